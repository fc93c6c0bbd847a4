"""Layers of a copy stand in the places of those they were made of."""

import keras
import pytest
from keras import layers

import keras_grow
from keras_grow.layers.in_place import mask_in_place
from keras_grow.layers.pairing import paired_layers, torn_layers


class _Block(layers.Layer):
    def __init__(self, inner=None, **options):
        super().__init__(**options)
        self.inner = inner or layers.Dense(4, name="inner")

    def call(self, x):
        return self.inner(x)


class _OtherBlock(_Block):
    pass


def _names(pairs):
    return [(layer.name, copy.name) for layer, copy in pairs]


def test_layers_inside_a_layer_are_paired_where_the_copy_is_of_its_class():
    block, same, other = _Block(name="a"), _Block(name="b"), _OtherBlock(name="c")
    assert _names(paired_layers(block, same)) == [("a", "b"), ("inner", "inner")]
    assert paired_layers(block, same)[1] == (block.inner, same.inner)
    assert _names(paired_layers(block, other)) == [("a", "c")]


def test_those_inside_a_model_are_paired_whatever_its_class():
    class Own(keras.Sequential):
        pass

    model, copy = (kind([keras.Input((3,)), layers.Dense(2)]) for kind in (keras.Sequential, Own))
    assert paired_layers(model, copy) == [(model, copy), (model.layers[0], copy.layers[0])]


@pytest.mark.parametrize("is_back", [False, True])
def test_a_layer_is_paired_with_what_wraps_it(is_back):
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.LSTM(4, name="lstm")(x))
    growable = keras_grow.make_growable(model)
    pairs = paired_layers(growable, model) if is_back else paired_layers(model, growable)
    (cell,) = [pair for pair in pairs if isinstance(pair[0], layers.LSTMCell)]
    assert type(cell[0]) is type(cell[1])
    assert cell[0] is not cell[1]


def test_kernels_that_were_masked_in_place_have_no_copy():
    model, copy = (_Block(layers.GRU(4, name="gru")) for _ in range(2))
    for each in (model, copy):
        each.inner.build((None, 5, 3))
    expected = _names(paired_layers(model, copy))
    assert "gru" in dict(expected)
    mask_in_place(model.inner)
    for pairs in (paired_layers(model, copy), paired_layers(copy, model)):
        assert [name for name, _ in _names(pairs)][1:] == [name for name, _ in expected][1:]


def test_kernels_of_two_wrapped_layers_are_paired():
    x = keras.Input((5, 3))
    model = keras_grow.make_growable(keras.Model(x, layers.LSTM(4)(x)))
    copy = keras.models.clone_model(model)
    kernels = keras_grow.growable_layers(model)
    pairs = dict(paired_layers(model, copy))
    assert [pairs[kernel] for kernel in kernels] == keras_grow.growable_layers(copy)
    assert len(kernels) == 2


def test_a_layer_with_another_copy_in_each_place_is_torn():
    shared = layers.Dense(4, name="shared")
    shared.build((None, 4))

    class Two(layers.Layer):
        def __init__(self, left, right, **options):
            super().__init__(**options)
            self.left, self.right = _Block(left), _Block(right)

    def copy():
        dense = layers.Dense(4)
        dense.build((None, 4))
        return dense

    one = copy()
    assert torn_layers(Two(shared, shared), Two(one, one)) == []
    assert torn_layers(Two(shared, shared), Two(copy(), copy())) == [shared]
    without_weights = layers.ReLU()
    assert torn_layers(Two(without_weights, without_weights), Two(copy(), copy())) == []
