"""Layers of which a copy has more or fewer units or inputs, and where their weights went."""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.structure.cloning import set_connections

Axes = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""For axes -1 and -2, where the entries of a layer's variables stood, and where they stand now."""


def places(
    old_shape: Sequence[int], new_shape: Sequence[int], axes: Axes
) -> tuple[tf.Tensor, tf.Tensor]:
    """Flat indices in a variable, and in its copy, of the same entries; int64.

    Axis -2 counts for variables that have one: a kernel's inputs, not its biases.
    """
    sides = []
    for side, shape in enumerate((old_shape, new_shape)):
        flat = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        for axis, positions in axes.items():
            if len(shape) >= -axis:
                flat = np.take(flat, positions[side], axis)
        sides.append(tf.constant(flat.reshape(-1)))
    return sides[0], sides[1]


def translated(
    connections: tf.Tensor, old_shape: Sequence[int], new_shape: Sequence[int], axes: Axes
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which connections of a kernel its copy has too, and their flat indices there; int64.

    An axis that is not named stays as it is. It serves layers that hold no array of the kernel's
    size.
    """
    inputs, units = connections // old_shape[-1], connections % old_shape[-1]
    window, inputs = inputs // old_shape[-2], inputs % old_shape[-2]
    moved = []
    for axis, positions in ((-2, inputs), (-1, units)):
        to = np.arange(old_shape[axis], dtype=np.int64)
        if axis in axes:
            old, new = axes[axis]
            to[:] = -1
            to[old] = new
        moved.append(tf.gather(tf.constant(to), positions))
    carried = tf.where((moved[0] >= 0) & (moved[1] >= 0))[:, 0]
    there = (window * new_shape[-2] + moved[0]) * new_shape[-1] + moved[1]
    return carried, tf.gather(there, carried)


def carry(old: keras.Layer, new: keras.Layer, axes: Axes) -> None:
    """Brings the weights of a layer into its copy, whose new units, if any, are dormant."""
    pairs = list(zip(old.weights, new.weights, strict=True))
    if isinstance(old, Growable) and old.is_sparse:
        indices, values = old.active_connections()
        carried, there = translated(indices, old.kernel_shape, new.kernel_shape, axes)
        set_connections(new, there, tf.gather(values, carried))
        pairs = [] if old.bias is None else [(old.bias, new.bias)]
    # A newborn finds 0 and False in kernels, masks and biases; in statistics, and in what else a
    # layer has, what is new.
    starts_empty = {id(variable) for variable in getattr(old, "kernel_variables", old.weights)}
    starts_empty.add(id(getattr(old, "bias", None)))
    if isinstance(old, keras.layers.BatchNormalization):
        starts_empty = set()
    for before, after in pairs:
        from_places, to_places = places(before.shape, after.shape, axes)
        values = tf.gather(tf.reshape(before.value, [-1]), from_places)
        rest = tf.zeros_like(after.value) if id(before) in starts_empty else after.value
        flat = tf.tensor_scatter_nd_update(tf.reshape(rest, [-1]), to_places[:, None], values)
        after.assign(tf.reshape(flat, after.shape))
