import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, report


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
    assert (a.num_connections, a.num_active, a.living_units, a.living_inputs) == (6, 2, 1, 2)
    assert (a.living_biases, a.num_parameters, a.flops, a.scaled_flops) == (1, 3, 4, None)
    assert (b.num_connections, b.num_active, b.living_biases, b.num_parameters) == (2, 2, 0, 2)
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
        ]
    ).replace("a        3 x 2", "a       3 x 2 ").replace("b        1 x 2", "b       1 x 2 ")


def test_a_report_without_growable_layers_or_before_building_is_refused():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no growable layer"):
        report(plain)
    with pytest.raises(ValueError, match="unbuilt layers"):
        report(keras.Sequential([GrowableDense(2)]))
