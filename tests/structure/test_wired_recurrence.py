"""A unit of a recurrent layer goes where nothing moves it, and stays where anything does."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_grow
from keras_grow.structure.wired_layers import wiring_for

UNITS = 4
# How many gates a unit has, and which of them is the one that becomes the output.
_GATES = {layers.SimpleRNN: (1, 0), layers.LSTM: (4, 2), layers.GRU: (3, 2)}


def _model(layer):
    x = keras.Input((6, 3))
    model = keras.Model(x, layers.Dense(2)(layer(x)))
    return model, np.random.default_rng(0).normal(size=(5, 6, 3)).astype("float32")


def _still(cell, gates=None):
    """Nothing moves the last unit through some of its gates, by default through all."""
    number, _ = _GATES[_LAYERS_OF[type(cell)]]
    gates = range(number) if gates is None else gates
    columns = [gate * UNITS + UNITS - 1 for gate in gates]
    for variable in (cell.kernel, cell.recurrent_kernel, cell.bias):
        if variable is not None:
            values = variable.numpy()
            values[..., columns] = 0
            variable.assign(values)


_LAYERS_OF = {
    layers.SimpleRNNCell: layers.SimpleRNN,
    layers.LSTMCell: layers.LSTM,
    layers.GRUCell: layers.GRU,
}


def _left(model, x):
    """How many units the recurrent layer has left, in a copy that computes the same."""
    small = keras_grow.compact(model).model
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)
    layer = small.layers[1]
    return getattr(layer, "forward_layer", layer).units


@pytest.mark.parametrize("kind", _GATES)
@pytest.mark.parametrize("options", [{}, {"use_bias": False}])
def test_a_unit_goes_whose_new_value_is_zero_whatever_its_other_gates_are(kind, options):
    layer = kind(UNITS, bias_initializer="ones", **options)
    model, x = _model(layer)
    assert _left(model, x) == UNITS
    _, candidate = _GATES[kind]
    _still(layer.cell, [candidate])
    assert _left(model, x) == UNITS - 1
    for variable in (layer.cell.kernel, *([] if options else [layer.cell.bias])):
        before = variable.numpy()
        moved = before.copy()
        moved.reshape(-1, before.shape[-1])[0, candidate * UNITS + UNITS - 1] = 0.5
        variable.assign(moved)
        assert _left(model, x) == UNITS
        variable.assign(before)


@pytest.mark.parametrize("activation", ["exponential", "log_sigmoid"])
@pytest.mark.parametrize("kind", _GATES)
def test_it_stays_where_the_activation_of_zero_is_another_number(kind, activation):
    layer = kind(UNITS, activation)
    model, x = _model(layer)
    _still(layer.cell)
    assert _left(model, x / 10) == UNITS


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("kind", _GATES)
def test_both_directions_lose_it_where_it_is_still_in_both(kind, merge_mode):
    layer = layers.Bidirectional(kind(UNITS), merge_mode=merge_mode)
    model, x = _model(layer)
    _still(layer.forward_layer.cell)
    if merge_mode != "mul":
        assert _left(model, x) == UNITS
    _still(layer.backward_layer.cell)
    assert _left(model, x) == UNITS - 1


def test_what_is_in_the_way_of_two_directions_is_said():
    def why_not(layer):
        _model(layer)
        return wiring_for(layer).why_not(layer)

    forward, backward = (layers.GRU(n, go_backwards=n == 5) for n in (4, 5))
    unequal = layers.Bidirectional(forward, backward_layer=backward, merge_mode="concat")
    unequal.build((None, 6, 3))
    assert "different numbers of units" in wiring_for(unequal).why_not(unequal)
    assert why_not(layers.Bidirectional(layers.GRU(4))) is None
    own = layers.Bidirectional(layers.RNN(layers.GRUCell(4)))
    assert "a RNN is not known" in why_not(own)
    apart = layers.Bidirectional(layers.GRU(4), merge_mode=None)
    apart.build((None, 6, 3))
    assert wiring_for(apart).why_not(apart) == "it makes more than its output"
