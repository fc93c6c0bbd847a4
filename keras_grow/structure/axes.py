"""Layers of which a copy has more or fewer units or inputs, and where their weights went."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable
from keras_grow.structure.kernels import attribute_of, has_kernel, holders_of
from keras_grow.structure.kernels import axes_of as axes_of_kernel
from keras_grow.structure.rules import computing, rule_for
from keras_grow.structure.wired_layers import OneKernel, wiring_for
from keras_grow.structure.wirings import INPUT, OUTPUT, Axis, Layout


class Places(NamedTuple):
    """Where the entries of a side of a layer stood, and where they stand now.

    Attributes:
        before, after: int64 arrays, of those that are in both.
        num_before, num_after: how many there were, and are.
    """

    before: np.ndarray
    after: np.ndarray
    num_before: int
    num_after: int


Axes = Mapping[str, Places]
"""The sides of a layer whose entries came or went: `INPUT`, `OUTPUT`, those inside it."""

_OnAxes = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Positions before and after on axes of a variable, counted from the end."""


def places(
    old_shape: Sequence[int], new_shape: Sequence[int], axes: _OnAxes
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


def axes_of(layer: keras.Layer, variable: keras.Variable, axes: Axes) -> _OnAxes:
    """Where entries of one of a layer's variables stood and stand, axis by axis."""
    layouts = layouts_of(layer)
    if layouts:
        wiring = wiring_for(layer)
        sizes = {} if wiring is None else wiring.sides(computing(layer))
        layout = layouts.get(id(variable), ())
        return {
            number - len(layout): _along(axis, axes, sizes)
            for number, axis in enumerate(layout)
            if any(side in axes for side in axis)
        }
    rule = None if has_kernel(layer) else rule_for(layer)
    of_inputs, of_units = (-2, -1) if rule is None else rule.axes(variable)
    sides = {of_inputs: axes.get(INPUT), of_units: axes.get(OUTPUT)}
    if rule is None:
        return {a: (s.before, s.after) for a, s in sides.items() if a and s}
    return {
        axis: (side.before, side.after)
        for axis, side in sides.items()
        if axis is not None and side is not None and _holds(variable, axis, side.before)
    }


def layouts_of(layer: keras.Layer, with_filters: bool = True) -> dict[int, Layout]:
    """What the axes of a layer's variables count, by their `id`.

    It is empty for layers of one kernel, and those that pass units on: they count by the end.

    Args:
        layer: the layer.
        with_filters: whether kernels are among them that filter each unit by itself.
    """
    wiring, inner = wiring_for(layer), computing(layer)
    if wiring is None or isinstance(wiring, OneKernel):
        return {}
    biases = wiring.biases(inner)
    found = {
        id(attribute_of(inner, name)): axes
        for name, axes in wiring.others(inner).items()
        if with_filters or name in biases
    }
    makes: dict[int, Axis] = {}
    if has_kernel(layer):
        (between,) = wiring.kernels(layer)
        variable = layer.kernel_variables[0] if isinstance(layer, Growable) else layer.kernel
        holders = {id(variable): layer}
        found[id(variable)], makes[id(variable)] = between.layout, between.makes
    else:
        holders = holders_of(layer)
        for between in wiring.kernels(inner):
            variable = attribute_of(inner, between.attribute)
            found[id(variable)], makes[id(variable)] = between.layout, between.makes
    for key, holder in holders.items():
        if key not in found:
            continue
        size = math.prod(axes_of_kernel(holder).shape)
        for each in getattr(holder, "kernel_variables", ()):
            # Beside the kernel a mask of its shape, or a number for each unit.
            is_whole = math.prod(each.shape) == size
            units = makes.get(key, sum(found[key][-2:], ()))
            found[id(each)] = found[key] if is_whole else (units,)
    return found


def _along(axis: Axis, axes: Axes, sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions before and after on an axis that counts the entries of some sides."""
    each = []
    for side in axis:
        size = sizes[side] if isinstance(side, str) else side
        whole = Places(np.arange(size), np.arange(size), size, size)
        each.append(axes.get(side, whole) if isinstance(side, str) else whole)
    before, after = (
        np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), counts).reshape(-1)
        for places, counts in (
            ([p.before for p in each], [p.num_before for p in each]),
            ([p.after for p in each], [p.num_after for p in each]),
        )
    )
    return before, after


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
    for side, numbers, count in (
        (INPUT, old.inputs_of(connections), old.num_inputs),
        (OUTPUT, old.units_of(connections), old.num_units),
    ):
        to = np.arange(count, dtype=np.int64)
        if side in axes:
            to[:] = -1
            to[axes[side].before] = axes[side].after
        moved.append(tf.gather(tf.constant(to), numbers))
    carried = tf.where((moved[0] >= 0) & (moved[1] >= 0))[:, 0]
    inputs, units = moved
    there = new.connection(inputs, units, old.positions_of(connections))
    return carried, tf.gather(there, carried)
