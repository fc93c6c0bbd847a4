"""Indices and weights of connections are checked before a layer changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableConv2D, GrowableDense, SparseDense


@pytest.fixture(params=["masked", "sparse"])
def layer(request):
    """A layer of 20 connections, 10 of them active."""
    kinds = {"masked": GrowableDense, "sparse": lambda n, **o: SparseDense(n, capacity=20, **o)}
    layer = kinds[request.param](5, initial_density=0.5, seed=0, name="kind")
    layer.build((None, 4))
    return layer


@pytest.mark.parametrize("indices", [[[0, 1]], 3, [0.0, 1.0], [True]])
def test_indices_are_flat_integers(layer, indices):
    with pytest.raises(ValueError, match="`indices` must be flat.*Received: "):
        layer.check_indices(np.array(indices))


@pytest.mark.parametrize("indices", [[-1], [20], [3, 25], [0, -7, 2]])
def test_indices_lie_inside_the_kernel(layer, indices):
    with pytest.raises(ValueError, match="must lie from 0 to 19 for layer 'kind'"):
        layer.check_indices(np.array(indices))


@pytest.mark.parametrize("indices", [[3, 3], [0, 5, 4, 5], [7, 2, 7, 2], [1, 2, 3, 3]])
def test_indices_name_each_connection_once(layer, indices):
    repetitions = len(indices) - len(set(indices))
    message = f"each connection once. Received: {repetitions} repetitions among {len(indices)}"
    with pytest.raises(ValueError, match=message):
        layer.check_indices(np.array(indices))


@pytest.mark.parametrize("indices", [[], [19], [4, 0, 19], [3, 2, 1], [0, 1, 2]])
def test_indices_in_any_order_are_taken(layer, indices):
    for dtype in ("int32", "int64", "uint8"):
        found = layer.check_indices(np.array(indices, dtype))
        assert found.dtype == "int64"
        assert found.numpy().tolist() == indices
    assert layer.check_indices(np.array([])).dtype == "int64"


def test_there_is_one_finite_weight_for_each_index(layer):
    indices = tf.constant([0, 3], tf.int64)
    assert layer.check_values(indices, None, tf.float32).numpy().tolist() == [0, 0]
    assert layer.check_values(indices, [1, 2], tf.float64).dtype == "float64"
    for values in ([1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], 1.0):
        with pytest.raises(ValueError, match="one weight per index"):
            layer.check_values(indices, values, tf.float32)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="can't wake with a weight that is NaN or infinite"):
            layer.check_values(indices, [1.0, bad], tf.float32)


def test_counts_add_up(layer):
    assert (layer.num_connections, layer.num_active, layer.num_free) == (20, 10, 10)
    assert layer.density == 0.5
    dormant = np.setdiff1d(np.arange(20), layer.active_connections()[0])
    layer.grow_connections(dormant[:3])
    assert (layer.num_active, layer.num_free, layer.density) == (13, 7, 0.65)


@pytest.mark.parametrize(("penalty", "l1"), [(None, 0.0), ("l2", 0.0), ("l1", 0.01)])
def test_the_factor_of_an_l1_penalty_is_read_of_the_regularizer(penalty, l1):
    assert GrowableDense(3, kernel_regularizer=penalty).l1 == pytest.approx(l1)
    both = keras.regularizers.L1L2(0.25, 0.5)
    assert GrowableDense(3, kernel_regularizer=both).l1 == 0.25


def test_a_connection_of_a_convolution_is_applied_at_each_position():
    layer = GrowableConv2D(3, 2)
    assert layer(np.ones((2, 5, 7, 1))).shape == (2, 4, 6, 3)
    assert layer.positions_of(tf.constant([0, 3], tf.int64)).numpy().tolist() == [24, 24]
