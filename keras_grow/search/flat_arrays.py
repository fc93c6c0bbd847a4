"""Flat arrays, read where they are: on the host by NumPy, on other devices by TensorFlow.

What lies in the host's memory NumPy reads in place, and finds, takes and replaces entries several
times as fast. Of what lies on a GPU nothing is fetched.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

Array = Any
"""A NumPy array if it is on the host, else a tensor."""


def is_on_host(tensor: tf.Tensor) -> bool:
    """Whether NumPy can read a tensor without a copy from another device."""
    is_eager = hasattr(tensor, "numpy")
    return is_eager and tf.DeviceSpec.from_string(tensor.device).device_type == "CPU"


def in_place(tensor: tf.Tensor) -> Array:
    """A view of a tensor for NumPy, or the tensor itself if it is on another device."""
    return np.asarray(tensor) if is_on_host(tensor) else tensor


def as_tensor(array: Array) -> tf.Tensor:
    """A tensor of an array that nobody else holds."""
    # `tf.constant` copies twice.
    return tf.raw_ops.Identity(input=array) if isinstance(array, np.ndarray) else array


def all_positions(array: Array) -> Array:
    """int64, from 0 to the size of a flat array."""
    if isinstance(array, np.ndarray):
        return np.arange(len(array))
    return tf.range(len(array), dtype=tf.int64)


def true_positions(mask: Array) -> Array:
    """Where a flat mask is True: int64, ascending."""
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else tf.where(mask)[:, 0]


def num_true(mask: Array) -> int:
    """How many entries of a mask are True."""
    if isinstance(mask, np.ndarray):
        return int(np.count_nonzero(mask))
    return int(tf.math.count_nonzero(mask))


def take(array: Array, positions: Array) -> Array:
    """The entries of a flat array at some positions."""
    if isinstance(array, np.ndarray):
        return np.take(array, positions)
    return tf.gather(array, positions)


def taken(tensor: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """The entries of a tensor of any shape at flat positions."""
    return as_tensor(take(in_place(tf.reshape(tensor, [-1])), positions))


def replaced(tensor: tf.Tensor, positions: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """A copy of a tensor of any shape with other values at flat positions."""
    if is_on_host(tensor) and is_on_host(positions):
        copy = np.asarray(tensor).copy()
        copy.reshape(-1)[np.asarray(positions)] = np.asarray(values)
        return as_tensor(copy)
    flat = tf.tensor_scatter_nd_update(tf.reshape(tensor, [-1]), positions[:, None], values)
    return tf.reshape(flat, tf.shape(tensor))


def in_parts(positions: Array, sizes: Sequence[int]) -> list[Array]:
    """Ascending positions in arrays laid end to end, as positions in each of them."""
    ends = np.cumsum(sizes)
    if isinstance(positions, np.ndarray):
        cuts = np.searchsorted(positions, ends)
    else:
        cuts = tf.searchsorted(positions, tf.constant(ends), out_type=tf.int64).numpy()
    return [
        positions[first:last] - (end - size)
        for first, last, end, size in zip([0, *cuts], cuts, ends, sizes)
    ]
