"""Layers of which a copy has more or fewer units or inputs, and where their weights went."""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable
from keras_grow.structure.cloning import set_connections
from keras_grow.structure.graph import Stream
from keras_grow.structure.kernels import has_kernel
from keras_grow.structure.rules import places_behind, rule_for
from keras_grow.structure.unit_graph import UnitGraph

Axes = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""For axes -1 and -2, where the entries of a layer's variables stood, and where they stand now.

Of a layer without a kernel, -1 are the units of its output and -2 those of its input."""


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


def axes_of(layer: keras.Layer, variable: keras.Variable, axes: Axes) -> Axes:
    """On which axes of one of a layer's variables its inputs and units lie."""
    rule = None if has_kernel(layer) else rule_for(layer)
    if rule is None:
        return axes
    of_inputs, of_units = rule.axes(variable)
    sides = {of_inputs: axes.get(-2), of_units: axes.get(-1)}
    return {
        axis: side
        for axis, side in sides.items()
        if axis is not None and side is not None and _holds(variable, axis, side[0])
    }


def _holds(variable: keras.Variable, axis: int, positions: np.ndarray) -> bool:
    """Whether a variable has an entry for each position on an axis, and not one for all."""
    has_axis = len(variable.shape) >= -axis
    return has_axis and int(positions.max(initial=0)) < variable.shape[axis]


def translated(
    connections: tf.Tensor, old: KernelAxes, new: KernelAxes, axes: Axes
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which connections of a kernel its copy has too, and their flat indices there; int64.

    An axis that is not named stays as it is. It serves layers that hold no array of the kernel's
    size.
    """
    moved = []
    for axis, numbers, count in (
        (-2, old.inputs_of(connections), old.num_inputs),
        (-1, old.units_of(connections), old.num_units),
    ):
        to = np.arange(count, dtype=np.int64)
        if axis in axes:
            before, after = axes[axis]
            to[:] = -1
            to[before] = after
        moved.append(tf.gather(tf.constant(to), numbers))
    carried = tf.where((moved[0] >= 0) & (moved[1] >= 0))[:, 0]
    inputs, units = moved
    there = new.connection(inputs, units, old.positions_of(connections))
    return carried, tf.gather(there, carried)


def carry(old: keras.Layer, new: keras.Layer, axes: Axes) -> None:
    """Brings the weights of a layer into its copy, whose new units, if any, are dormant."""
    pairs = list(zip(old.weights, new.weights, strict=True))
    if isinstance(old, Growable) and old.is_sparse:
        indices, values = old.active_connections()
        carried, there = translated(indices, old.axes, new.axes, axes)
        set_connections(new, there, tf.gather(values, carried))
        pairs = [] if old.bias is None else [(old.bias, new.bias)]
    # A newborn finds 0 and False in kernels, masks and biases; in statistics, and in what else a
    # layer has, what is new.
    starts_empty = set()
    if has_kernel(old):
        starts_empty = {id(variable) for variable in getattr(old, "kernel_variables", old.weights)}
        starts_empty.add(id(getattr(old, "bias", None)))
    for before, after in pairs:
        of_variable = axes_of(old, before, axes)
        from_places, to_places = places(before.shape, after.shape, of_variable)
        values = tf.gather(tf.reshape(before.value, [-1]), from_places)
        rest = tf.zeros_like(after.value) if id(before) in starts_empty else after.value
        flat = tf.tensor_scatter_nd_update(tf.reshape(rest, [-1]), to_places[:, None], values)
        after.assign(tf.reshape(flat, after.shape))


def grown_axes(old: UnitGraph, new: UnitGraph) -> dict[int, Axes]:
    """Where the units of a model stand in a copy some of whose layers have more of them.

    Args:
        old: of the model.
        new: of the copy. New units of a layer with a kernel stand behind its old ones.

    Returns:
        The axes of each layer of the model that reads or makes more units in the copy, by its `id`.
    """
    # For each unit of a tensor of the copy the one of the model's tensor, or -1.
    before: dict[Stream, np.ndarray] = {
        there: np.arange(here.count)
        for here, there in zip(old.graph.inputs, new.graph.inputs, strict=True)
    }
    axes: dict[int, Axes] = {}
    for here, there in zip(old.graph.steps, new.graph.steps, strict=True):
        for was, now in zip(here.outputs, there.outputs, strict=True):
            before[now] = np.arange(now.count)
            before[now][was.count :] = -1
        if here not in old.fixed and id(here.layer) not in old.kernels:
            behind = before[there.outputs[0]]
            behind[:] = -1
            laid = [
                places_behind(step.layer, [stream.shape for stream in step.inputs])
                for step in (here, there)
            ]
            for stream, at_old, at_new in zip(there.inputs, *laid, strict=True):
                is_old = before[stream] >= 0
                behind[at_new[is_old]] = at_old[before[stream][is_old]]
        found = {}
        for axis, *sides in ((-2, here.inputs, there.inputs), (-1, here.outputs, there.outputs)):
            (old_stream, *_), (new_stream, *more) = sides
            if not more and old_stream.count != new_stream.count:
                at_new = np.flatnonzero(before[new_stream] >= 0)
                found[axis] = (before[new_stream][at_new], at_new)
        if found and getattr(here.layer, "weights", None):
            axes.setdefault(id(here.layer), found)
    return axes
