import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import (
    GrowableConv1D,
    GrowableConv2D,
    GrowableDense,
    WeightNormConv2D,
    report,
)
from keras_grow.policies.densities import FanIn


@pytest.fixture
def model():
    """A 3-2-2 network with masks to check by eye, and 6 parameters that do not grow."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            GrowableDense(2, "relu", name="a"),
            keras.layers.PReLU(name="other"),
            keras.layers.Dense(1, name="plain"),
            GrowableDense(2, use_bias=False, name="b"),
        ]
    )
    model.get_layer("a").kernel_mask.assign([[True, False], [True, False], [False, False]])
    model.get_layer("b").kernel_mask.assign([[True, True]])
    return model


def test_counts_are_those_of_the_masks(model):
    counted = report(model)
    a, b = counted.layers
    assert (a.num_connections, a.num_active, a.connected_units, a.connected_inputs) == (6, 2, 1, 2)
    assert (a.connected_biases, a.num_parameters, a.flops, a.scaled_flops) == (1, 3, 4, None)
    assert (b.num_connections, b.num_active, b.connected_biases, b.num_parameters) == (2, 2, 0, 2)
    assert (counted.num_connections, counted.num_active, counted.num_parameters) == (8, 4, 5)
    assert (counted.density, counted.flops, counted.scaled_flops) == (0.5, 8, None)
    assert counted.other_parameters == 2 + 3


def test_scaled_flops_count_a_connection_as_often_as_its_input_is_not_zero(model):
    # Input 0 is on in 3 of 4 samples, input 1 in 1 of 4; input 2 feeds nothing.
    x = np.array([[1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 1, 1]], "float32")
    model.get_layer("plain").bias.assign([1.0])
    counted = report(model, (x,), batch_size=3)
    assert counted.layers[0].scaled_flops == pytest.approx(2 * (3 / 4 + 1 / 4))
    assert counted.layers[1].scaled_flops == pytest.approx(2 * 2 * 1)
    assert counted.scaled_flops == pytest.approx(6)


def test_the_table_is_what_a_person_reads(model):
    assert str(report(model)) == "\n".join(
        [
            "layer   kernel  connections  active  density   units  inputs  with biases  FLOPs",
            "--------------------------------------------------------------------------------",
            "a        3 x 2            6       2   33.33%  1 of 2  2 of 3            3      4",
            "b        1 x 2            2       2  100.00%  2 of 2  1 of 1            2      4",
            "--------------------------------------------------------------------------------",
            "in all                    8       4   50.00%                            5      8",
            "and 5 parameters in other layers",
            "80.0% of the weights can grow, but for 2 in plain/kernel",
        ]
    ).replace("a        3 x 2", "a       3 x 2 ").replace("b        1 x 2", "b       1 x 2 ")


def test_a_dense_lenet_5_has_the_weights_and_flops_of_the_literature():
    layers = [
        GrowableConv2D(20, 5, activation="relu"),
        keras.layers.MaxPooling2D(),
        WeightNormConv2D(50, 5, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        GrowableDense(500, "relu"),
        GrowableDense(10, "softmax"),
    ]
    counted = report(keras.Sequential([keras.Input((28, 28, 1)), *layers]))
    assert [layer.num_positions for layer in counted.layers] == [576, 64, 1, 1]
    assert [layer.num_active for layer in counted.layers] == [500, 25_000, 400_000, 5_000]
    assert [layer.flops for layer in counted.layers] == [576_000, 3_200_000, 800_000, 10_000]
    assert (counted.num_active, counted.flops) == (430_500, 4_586_000)


def test_an_input_map_lives_while_any_of_its_places_feeds_a_unit():
    layer = GrowableConv2D(3, 2, initial_density=0.0)
    model = keras.Sequential([keras.Input((4, 5, 4)), layer])
    # Map 2 at the first place to units 0 and 1, map 0 at the last place to unit 0.
    layer.grow_connections([2 * 3, 2 * 3 + 1, 3 * 12])
    # Map 0 is on in a quarter of the places, map 2 everywhere.
    x = np.zeros((2, 4, 5, 4), "float32")
    x[0, :2, :, 0] = x[:, :, :, 2] = 1
    (counted,) = report(model, (x,)).layers
    assert (counted.connected_units, counted.connected_biases, counted.connected_inputs) == (
        2,
        2,
        2,
    )
    assert (counted.num_positions, counted.flops) == (3 * 4, 2 * 3 * 12)
    assert counted.scaled_flops == pytest.approx(2 * 12 * (1 + 1 + 1 / 4))


def test_positions_that_are_not_known_are_measured_on_data_or_left_out():
    layers = [
        GrowableConv1D(2, 3, initial_density=FanIn(1), name="any"),
        keras.layers.GlobalAveragePooling1D(),
        GrowableDense(3, name="b"),
    ]
    model = keras.Sequential([keras.Input((None, 4)), *layers])
    unknown = report(model)
    assert [layer.num_positions for layer in unknown.layers] == [None, 1]
    assert [layer.flops for layer in unknown.layers] == [None, 12]
    assert (unknown.flops, unknown.scaled_flops) == (None, None)
    rows = str(unknown).splitlines()
    assert rows[0].split()[-2:] == ["positions", "FLOPs"]
    assert [row.split()[-2:] for row in (rows[2], rows[3], rows[5])] == [
        ["-", "-"],
        ["1", "12"],
        ["13", "-"],
    ]
    counted = report(model, (np.ones((5, 9, 4), "float32"),))
    assert [layer.num_positions for layer in counted.layers] == [7, 1]
    assert (counted.flops, counted.scaled_flops) == (2 * 2 * 7 + 12, 2 * 2 * 7 + 12)
    # Two samples of 9 steps and one of 4: 7, 7 and 2 positions. One pass is enough.
    batches = iter([(np.ones((2, 9, 4), "float32"),), (np.ones((1, 4, 4), "float32"),)])
    uneven = report(model, batches).layers[0]
    assert uneven.num_positions == pytest.approx(16 / 3)
    assert uneven.flops == round(2 * 2 * 16 / 3)


def test_a_report_without_growable_layers_or_before_building_is_refused():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no growable layer"):
        report(plain)
    with pytest.raises(ValueError, match="unbuilt layers"):
        report(keras.Sequential([GrowableDense(2)]))


def test_a_partly_frozen_model_shows_the_density_that_verbs_act_on_too():
    layers = [
        GrowableDense(10, initial_density=0.5, name="frozen"),
        GrowableDense(10, initial_density=0.2, name="grows"),
    ]
    model = keras.Sequential([keras.Input((10,)), *layers])
    assert "frozen:" not in str(keras_grow.report(model))
    layers[0].trainable = False
    counted = keras_grow.report(model)
    assert (counted.density, counted.trainable_density) == (0.35, 0.2)
    assert "frozen: frozen; density of the others, which `grow` and `prune` change: 20.00%" in str(
        counted
    )
