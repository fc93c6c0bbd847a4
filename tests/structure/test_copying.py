"""Layers made anew of their arguments, whether `get_config` says them or attributes keep them."""

import keras
import numpy as np
import pytest

from keras_grow.structure.copying import carry_seeds, carry_state, carry_trainable, made_anew


class _Keeps(keras.layers.Layer):
    """No `get_config`: Keras's own can't say what layer is inside."""

    def __init__(self, inner, factor, dtype=None, *, offset=0.0, **options):
        super().__init__(dtype=dtype, **options)
        self.inner, self.factor, self.offset = inner, factor, offset


class _KeepsAnother(keras.layers.Layer):
    def __init__(self, inner, factor):
        super().__init__()
        self.inner, self._times = inner, factor


class _TakesMany(keras.layers.Layer):
    def __init__(self, inner, *factors):
        super().__init__()
        self.inner, self.factors = inner, factors


def test_arguments_that_attributes_keep_make_another_one():
    layer = _Keeps(keras.layers.Dense(3), 2.5, "float64", offset=4.0, name="kept", trainable=False)
    new = made_anew(layer)
    assert type(new) is _Keeps
    assert (new.factor, new.offset) == (2.5, 4.0)
    assert (new.name, new.trainable, new.dtype) == ("kept", False, "float64")
    assert new.inner is not layer.inner
    assert (new.inner.units, new.inner.name) == (3, layer.inner.name)
    assert made_anew(layer, factor=7).factor == 7


@pytest.mark.parametrize(
    "layer",
    [
        _KeepsAnother(keras.layers.Dense(3), 2),
        _TakesMany(keras.layers.Dense(3), 1, 2),
        _Keeps(keras.metrics.Mean(), 2),
        _Keeps(keras.Variable(1.0), 2),
    ],
    ids=["another name", "any number", "a metric", "a variable"],
)
def test_arguments_that_no_attribute_keeps_are_not_guessed(layer):
    with pytest.raises(ValueError, match="keep each argument of `__init__` as an attribute"):
        made_anew(layer)


def test_another_kind_takes_what_both_have_and_changes_come_last():
    layer = keras.layers.SeparableConv2D(3, 2, padding="same", activation="relu", name="kept")
    new = made_anew(layer, keras.layers.Conv2D, filters=5)
    assert type(new) is keras.layers.Conv2D
    assert (new.filters, new.padding, new.name) == (5, "same", "kept")
    assert new.activation is keras.activations.relu


def test_an_objects_own_functions_stay_the_same_objects():
    def activation(x):
        return x

    def initializer(shape, dtype=None):
        return keras.ops.ones(shape, dtype)

    new = made_anew(keras.layers.Dense(3, activation, kernel_initializer=initializer))
    new.build((None, 2))
    assert np.array_equal(new.kernel, np.ones((2, 3)))
    assert float(new(np.ones((1, 2)))[0, 0]) == 2


def _dropping():
    layers = [keras.Input((4,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2)]
    return keras.Sequential(layers)


@pytest.mark.parametrize(("carry", "brings_weights"), [(carry_state, True), (carry_seeds, False)])
def test_how_often_seeds_have_drawn_comes_over(carry, brings_weights):
    old, new = _dropping(), _dropping()
    old(np.ones((3, 4)), training=True)
    carry(old, new)
    states = [model.layers[0].seed_generator.state.numpy() for model in (old, new, _dropping())]
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])
    kernels = [model.layers[1].kernel.numpy() for model in (old, new)]
    assert np.array_equal(*kernels) == brings_weights


def test_states_of_recurrent_layers_come_over_with_the_state_and_not_with_the_seeds():
    def stateful():
        inputs = keras.Input(batch_shape=(2, 3, 4))
        return keras.Sequential([inputs, keras.layers.GRU(3, stateful=True, dropout=0.1)])

    old = stateful()
    old(np.ones((2, 3, 4)))
    for carry, brings in ((carry_seeds, False), (carry_state, True)):
        new = stateful()
        carry(old, new)
        states = [model.layers[0].states[0].numpy() for model in (old, new)]
        assert np.any(states[0])
        assert np.array_equal(*states) == brings


def test_what_is_frozen_in_one_is_frozen_in_the_other_and_nothing_else():
    old, new = _dropping(), _dropping()
    old.layers[1].trainable = False
    new.layers[0].trainable = False
    carry_trainable(old, new)
    assert [layer.trainable for layer in new.layers] == [True, False]
    assert new.trainable
