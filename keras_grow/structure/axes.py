"""Layers of which a copy has more or fewer units or inputs, and where their weights went."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.weight_norm_kernel import WeightNormKernel
from keras_grow.structure.cloning import set_connections
from keras_grow.structure.copying import made_anew
from keras_grow.structure.graph import Step, Stream
from keras_grow.structure.kernels import attribute_of, has_kernel, holders_of
from keras_grow.structure.kernels import axes_of as axes_of_kernel
from keras_grow.structure.rules import UnitRule, computing, places_behind, rule_for
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.wired_layers import OneKernel, wiring_for
from keras_grow.structure.wirings import INPUT, OUTPUT, Axis, Layout, Tie, Wiring


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


def resized(layer: keras.Layer, counts: Mapping[str, int], **changes: Any) -> keras.Layer:
    """A layer made anew with other numbers of entries on some of its sides.

    Args:
        layer: a layer whose units are followed.
        counts: how many entries sides have, of those where it is another number than now.
        changes: other arguments of it that are not as they were.
    """
    wiring, inner = wiring_for(layer), computing(layer)
    parts: Mapping[str, dict[str, Any]] = {}
    if wiring is not None and counts:
        changes |= wiring.changes(inner, counts)
        parts = wiring.inside(inner, counts)
    elif OUTPUT in counts:
        rule = rule_for(layer)
        changes |= {} if rule is None else rule.changes(inner, counts[OUTPUT])
    inside = {}
    for name, of_part in parts.items():
        part = attribute_of(inner, name)
        inside[id(part)] = made_anew(part, **of_part)
    if isinstance(layer, GrowableKernels):
        return made_anew(layer, inside={id(inner): made_anew(inner, inside=inside, **changes)})
    return made_anew(layer, inside=inside, **changes)


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
    rule: Wiring | UnitRule | None = wiring_for(old) or rule_for(old)
    filters = {
        id(attribute_of(computing(old), name)): getattr(computing(new), initializer)
        for name, initializer in ({} if rule is None else rule.filters).items()
    }
    starts_empty = set(layouts_of(old, with_filters=False))
    if has_kernel(old):
        starts_empty = {id(variable) for variable in getattr(old, "kernel_variables", old.weights)}
        starts_empty.add(id(getattr(old, "bias", None)))
    for before, after in pairs:
        of_variable = axes_of(old, before, axes)
        from_places, to_places = places(before.shape, after.shape, of_variable)
        values = tf.gather(tf.reshape(before.value, [-1]), from_places)
        rest = tf.zeros_like(after.value) if id(before) in starts_empty else after.value
        if id(before) in filters:
            rest = tf.cast(filters[id(before)](after.shape), after.dtype)
        flat = tf.tensor_scatter_nd_update(tf.reshape(rest, [-1]), to_places[:, None], values)
        after.assign(tf.reshape(flat, after.shape))
    for variable, scale in scales_of(old, new).values():
        variable.assign(variable * scale)


def scales_of(old: keras.Layer, new: keras.Layer) -> dict[int, tuple[keras.Variable, float]]:
    """By what variables of a copy are multiplied so that it computes the same.

    Returns:
        The variable of the copy and the factor, by the `id` of the original's.
    """
    rule: Wiring | UnitRule | None = wiring_for(old) or rule_for(old)
    if rule is None:
        return {}
    found = {}
    layers = computing(old), computing(new)
    for attribute, scale in rule.scales(*layers).items():
        pair = [attribute_of(layer, attribute) for layer in layers]
        if pair[0] is None:
            continue
        masked = [holders_of(each).get(id(x)) for each, x in zip((old, new), pair, strict=True)]
        if isinstance(masked[0], WeightNormKernel):  # Its length is not that of what is stored.
            pair = [each.g for each in masked if each is not None]
        found[id(pair[0])] = pair[1], scale
    return found


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
        if here in old.calls:
            before |= _inside(old, here, new, there, before)
        elif here not in old.fixed:
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
        for side, *pair in _sides(old, here, new, there):
            old_stream, new_stream = pair
            if old_stream.count != new_stream.count:
                at_new = np.flatnonzero(before[new_stream] >= 0)
                found[side] = Places(
                    before[new_stream][at_new], at_new, old_stream.count, new_stream.count
                )
        if found and getattr(here.layer, "weights", None):
            axes.setdefault(id(here.layer), found)
    return axes


def _inside(
    old: UnitGraph, here: Step, new: UnitGraph, there: Step, before: Mapping[Stream, np.ndarray]
) -> dict[Stream, np.ndarray]:
    """Where entries of the sides that a layer makes stood in the model, -1 for new ones.

    New ones stand behind the old, but where a side is laid out after another that has grown.
    """
    sides = {side: (was, now) for side, was, now in _sides(old, here, new, there)}
    wiring = old.wirings[id(computing(here.layer))]
    inputs = wiring.inputs(computing(here.layer), here.names, here.options)
    found = {}
    for side, (was, now) in sides.items():
        if side in inputs:
            found[side] = before[now]
        else:
            found[side] = np.arange(now.count)
            found[side][was.count :] = -1
    ties = [wiring.ties(computing(step.layer)) for step in (here, there)]
    pairs = [pair for pair in zip(*ties, strict=True) if {pair[0].one, pair[0].other} <= {*sides}]
    # What stands inside follows from what comes in, and what comes out from what stands inside.
    onward = [pair for pair in pairs if pair[0].one in inputs and pair[0].other not in inputs]
    outward = [pair for pair in pairs if pair[0].one == OUTPUT]
    outward += [tuple(tie.turned() for tie in p) for p in pairs if p[0].other == OUTPUT]
    for at_old, at_new in onward:
        if at_old.other != OUTPUT:
            _follow(at_old, at_new, sides, found)
    for at_old, at_new in outward:
        if at_old.other not in inputs:
            _follow(at_old.turned(), at_new.turned(), sides, found)
    return {now: found[side] for side, (_, now) in sides.items() if side not in inputs}


def _follow(
    at_old: Tie,
    at_new: Tie,
    sides: Mapping[str, tuple[Stream, Stream]],
    found: dict[str, np.ndarray],
) -> None:
    """Notes where entries of the other side of a tie stood, given those of the one side."""
    was, now = sides[at_old.other]
    if was.count == now.count:
        return
    laid = []
    for tie, stream in zip((at_old, at_new), sides[at_old.one], strict=True):
        order = np.argsort(tie.units, kind="stable")
        laid.append(tie.others[order].reshape(stream.count, -1))
    source = found[at_old.one]
    is_old = (source >= 0)[:, None]
    found[at_old.other][laid[1]] = np.where(is_old, laid[0][source], -1)


def _sides(
    old: UnitGraph, here: Step, new: UnitGraph, there: Step
) -> list[tuple[str, Stream, Stream]]:
    """The sides of a layer, and their tensors in a model and in its copy."""
    if here in old.calls:
        pair = [
            graph.sides[id(computing(step.layer))] for graph, step in ((old, here), (new, there))
        ]
        return [(side, stream, pair[1][side]) for side, stream in pair[0].items()]
    if len(there.outputs) != 1 or len(there.inputs) != 1:
        return []
    return [
        (INPUT, here.inputs[0], there.inputs[0]),
        (OUTPUT, here.outputs[0], there.outputs[0]),
    ]
