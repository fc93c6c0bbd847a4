"""What the wirings of layers are made of: sizes of sides, positions, biases."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_grow.structure.rules import UnitsMixed, rule_for
from keras_grow.structure.wired_layers import wiring_for
from keras_grow.structure.wirings import num_biases, num_positions, zeros_of


def _built(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    keras.Model(inputs, layer(*inputs))
    return layer


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (layers.GRUCell(3), 2),
        (layers.GRUCell(3, reset_after=False), 1),
        (layers.GRUCell(3, use_bias=False), 0),
        (layers.LSTMCell(3), 1),
        (layers.Dense(3), 1),
        (layers.Dense(3, use_bias=False), 0),
        (layers.EinsumDense("btd,dgf->btgf", (None, 2, 4), bias_axes="gf"), 1),
    ],
)
def test_a_gru_has_two_biases_for_each_unit_and_others_one(layer, count):
    layer.build((None, 6, 5) if isinstance(layer, layers.EinsumDense) else (None, 5))
    assert num_biases(layer) == count


def test_positions_are_those_between_batch_and_units():
    assert num_positions((None, 5)) == 1
    assert num_positions((None, 4, 3, 5)) == 12
    assert num_positions((None, None, 3, 5)) == 3


@pytest.mark.parametrize(
    ("make", "shapes", "sides"),
    [
        (lambda: layers.LSTM(4), [(6, 5)], {"input": 5, "output": 4}),
        (lambda: layers.GRU(4, use_bias=False), [(6, 5)], {"input": 5, "output": 4}),
        (
            lambda: layers.MultiHeadAttention(4, 3, value_dim=2, use_bias=False),
            [(6, 5), (6, 7)],
            {"heads": 4, "key_size": 3, "value_size": 2},
        ),
        (lambda: layers.SeparableConv1D(4, 2, depth_multiplier=3), [(6, 5)], {"filtered": 15}),
        (lambda: layers.Conv1D(8, 2, groups=2), [(6, 4)], {"output_of_group": 4}),
    ],
)
def test_sides_have_the_sizes_of_the_axes_that_count_them(make, shapes, sides):
    layer = _built(make(), *shapes)
    found = wiring_for(layer).sides(layer)
    assert {name: found.get(name) for name in sides} == sides


def test_more_than_the_output_of_a_layer_is_not_followed():
    layer = _built(layers.Dense(3), (5,))
    wiring = wiring_for(_built(layers.Conv1D(8, 2, groups=2), (6, 4)))
    assert wiring.outputs(layer, {}, 1) == ["output"]
    for count in (0, 2):
        with pytest.raises(UnitsMixed, match="more than its output"):
            wiring.outputs(layer, {}, count)


def test_only_zeros_of_constants_are_zeros():
    found = zeros_of(np.array([0.0, 2.0, np.nan, -1.0]))
    np.testing.assert_array_equal(found, [0, np.nan, np.nan, np.nan])


def test_units_that_are_born_find_a_normalization_that_does_nothing():
    layer = _built(layers.BatchNormalization(), (5,))
    fresh = rule_for(layer).fresh_values
    x = np.random.default_rng(0).normal(size=(8,))
    normalized = (x - fresh["moving_mean"]) / np.sqrt(fresh["moving_variance"])
    np.testing.assert_array_equal(fresh["gamma"] * normalized + fresh["beta"], x)
