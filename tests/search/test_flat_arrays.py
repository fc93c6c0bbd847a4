"""Flat arrays read by NumPy in place, and by TensorFlow elsewhere: the same answers."""

import numpy as np
import pytest
import tensorflow as tf

from keras_grow.search import flat_arrays
from keras_grow.search.flat_arrays import (
    all_positions,
    in_parts,
    in_place,
    num_true,
    replaced,
    take,
    taken,
    true_positions,
)


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    """Tensors are on the host, or said not to be."""
    if request.param == "device":
        monkeypatch.setattr(flat_arrays, "is_on_host", lambda tensor: False)
    return request.param


def test_what_is_on_the_host_is_read_without_a_copy(place):
    tensor = tf.constant([4.0, 5.0, 6.0])
    array = in_place(tensor)
    assert isinstance(array, np.ndarray) == (place == "host")
    if place == "host":
        assert np.shares_memory(array, in_place(tensor))


def test_positions_and_entries_are_those_of_the_mask(place):
    numbers, mask = (
        in_place(tf.constant([4.0, 5.0, 6.0])),
        in_place(tf.constant([True, False, True])),
    )
    positions = true_positions(mask)
    assert positions.dtype == "int64"
    assert np.asarray(positions).tolist() == [0, 2]
    assert num_true(mask) == 2
    assert np.asarray(take(numbers, positions)).tolist() == [4.0, 6.0]
    assert np.asarray(all_positions(numbers)).tolist() == [0, 1, 2]
    for array in (positions, all_positions(numbers), take(numbers, positions)):
        assert isinstance(array, np.ndarray) == (place == "host")


def test_positions_in_arrays_end_to_end_are_given_back_to_each(place):
    positions = in_place(tf.constant([0, 2, 3, 6, 8], tf.int64))
    parts = in_parts(positions, [3, 0, 4, 2])
    assert [np.asarray(part).tolist() for part in parts] == [[0, 2], [], [0, 3], [1]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "bool"])
def test_entries_of_any_shape_are_taken_and_replaced_in_a_copy(place, dtype):
    before = tf.cast([[1, 0, 1], [1, 1, 0]], dtype)
    positions, values = tf.constant([1, 3], tf.int64), tf.cast([1, 0], dtype)
    after = replaced(before, positions, values)
    assert (after.dtype, after.shape) == (before.dtype, (2, 3))
    assert tf.cast(after, "int64").numpy().tolist() == [[1, 1, 1], [0, 1, 0]]
    assert tf.cast(before, "int64").numpy().tolist() == [[1, 0, 1], [1, 1, 0]]
    assert tf.cast(taken(after, positions), "int64").numpy().tolist() == [1, 0]
