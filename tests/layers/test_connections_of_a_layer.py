"""grow_connections, prune_connections and active_connections, on kernels one can check by eye."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import WeightNormDense

# A dormant connection.
_ = None


@pytest.fixture
def layer(literal):
    return literal([[3.0, _, _], [_, 5.0, _], [-4.0, _, _], [_, 12.0, _]])


def _kernel(layer):
    return layer.effective_kernel().numpy()


def _everything(layer):
    return [variable.numpy().tobytes() for variable in layer.variables]


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_growing_wakes_the_flat_indices_row_by_row(layer, dtype):
    layer.grow_connections(tf.constant([2, 1, 9], dtype), [7.0, 0.0, -1.0])
    np.testing.assert_array_equal(
        layer.kernel_mask, np.array([[1, 1, 1], [0, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
    )
    np.testing.assert_allclose(
        _kernel(layer), [[3, 0, 7], [0, 5, 0], [-4, 0, 0], [-1, 12, 0]], rtol=1e-6
    )


def test_growing_without_values_keeps_the_effective_kernel_bit_identical(layer):
    before = _kernel(layer)
    layer.grow_connections([2, 1, 9])
    assert _kernel(layer).tobytes() == before.tobytes()
    assert layer.num_active == 7


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_pruning_silences_the_flat_indices_row_by_row(layer, dtype):
    layer.prune_connections(tf.constant([10, 0], dtype))
    np.testing.assert_array_equal(
        layer.kernel_mask, np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    )
    np.testing.assert_allclose(
        _kernel(layer), [[0, 0, 0], [0, 5, 0], [-4, 0, 0], [0, 0, 0]], rtol=1e-6
    )


def test_active_connections_are_flat_indices_in_order_and_their_weights(layer):
    indices, values = layer.active_connections()
    assert indices.dtype == tf.int64
    assert indices.numpy().tolist() == [0, 4, 6, 10]
    np.testing.assert_allclose(values, [3, 5, -4, 12], rtol=1e-6)
    assert (layer.num_active, layer.num_connections, layer.density) == (4, 12, 1 / 3)
    assert layer.kernel_shape == (4, 3)


def test_a_layer_may_lose_all_connections_and_gain_all(layer):
    layer.prune_connections([0, 4, 6, 10])
    assert layer.num_active == 0
    np.testing.assert_array_equal(layer(np.ones((2, 4), "float32")), np.zeros((2, 3)))
    layer.grow_connections(np.arange(12), np.arange(12.0) - 5.5)
    assert layer.density == 1
    np.testing.assert_allclose(_kernel(layer).ravel(), np.arange(12) - 5.5, rtol=1e-6)


def test_no_indices_change_nothing(layer):
    before = _everything(layer)
    for empty in ([], np.zeros(0, "int64")):
        layer.grow_connections(empty)
        layer.prune_connections(empty)
    assert _everything(layer) == before


def test_changes_name_the_entries_whose_slots_must_start_afresh(layer):
    for changes in (layer.grow_connections([1, 11], [2.0, 1.0]), layer.prune_connections([1, 0])):
        stored = changes[0]
        assert stored.variable is (layer.v if isinstance(layer, WeightNormDense) else layer.kernel)
        assert stored.indices.dtype == tf.int64
    assert stored.indices.numpy().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([1, 12], None, "from 0 to 11 for layer 'literal'.*Received: \\[12\\]"),
        ([-1], None, "from 0 to 11"),
        ([1, 2, 1], None, "each connection once. Received: 1 repetitions among 3"),
        ([1, 4], None, "Only dormant connections can be grown.*\\[4\\], for layer 'literal'"),
        ([1.0, 2.0], None, "`indices` must be flat.*Received: float32"),
        ([[1, 2]], None, "`indices` must be flat.*Received: int32 of shape \\(1, 2\\)"),
        ([True], None, "`indices` must be flat.*Received: bool"),
        ([1, 2], [1.0], "one weight per index. Received: values of shape \\(1,\\) for 2"),
        ([1, 2], [1.0, np.nan], "weight that is NaN or infinite"),
        ([1, 2], [np.inf, 1.0], "weight that is NaN or infinite"),
    ],
)
def test_wrong_growth_is_refused_and_leaves_the_layer(layer, indices, values, message):
    before = _everything(layer)
    with pytest.raises(ValueError, match=message):
        layer.grow_connections(indices, values)
    assert _everything(layer) == before


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 12], "from 0 to 11"),
        ([-12], "from 0 to 11"),
        ([0, 0], "each connection once"),
        ([0, 1], "Only active connections can be pruned.*\\[1\\], for layer 'literal'"),
        (0, "`indices` must be flat"),
        ([0.0], "`indices` must be flat"),
    ],
)
def test_wrong_pruning_is_refused_and_leaves_the_layer(layer, indices, message):
    before = _everything(layer)
    with pytest.raises(ValueError, match=message):
        layer.prune_connections(indices)
    assert _everything(layer) == before


@pytest.mark.parametrize(
    "ask",
    [
        lambda layer: layer.num_active,
        lambda layer: layer.num_connections,
        lambda layer: layer.density,
        lambda layer: layer.active_connections(),
        lambda layer: layer.grow_connections([0]),
        lambda layer: layer.prune_connections([0]),
    ],
)
def test_an_unbuilt_layer_says_that_it_must_be_built(layer_class, ask):
    with pytest.raises(ValueError, match="'early' has no connections before it is built"):
        ask(layer_class(3, name="early"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "positive integer. Received: units=0"),
        ({"units": -3}, "positive integer. Received: units=-3"),
        ({"units": 2.5}, "positive integer. Received: units=2.5"),
        ({"units": True}, "positive integer. Received: units=True"),
        ({"units": 2, "initial_density": 1.5}, "initial_density=1.5"),
        ({"units": 2, "initial_density": -0.1}, "initial_density=-0.1"),
        ({"units": 2, "initial_density": float("nan")}, "initial_density=nan"),
        ({"units": 2, "initial_density": "half"}, "initial_density='half'"),
        ({"units": 2, "seed": -1}, "seed=-1"),
        ({"units": 2, "seed": 1.0}, "seed=1.0"),
        ({"units": 2, "seed": True}, "seed=True"),
    ],
)
def test_wrong_arguments_are_refused(layer_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer_class(**arguments)


def test_inputs_of_another_size_are_refused(layer):
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 4"):
        model.layers[0](np.ones((2, 5), "float32"))
