"""Wider copies of models: room for more units, with nothing else changed."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.integers import as_integer
from keras_grow.layers.affine import Affine
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import find_layer, paths_of
from keras_grow.measuring.agreement import check_copy
from keras_grow.structure.axes import Axes
from keras_grow.structure.cloning import Inside, check_convertible, clone_with
from keras_grow.structure.copying import carry_seeds
from keras_grow.structure.graph import Step, Stream, UnitsNotFollowed
from keras_grow.structure.grown_axes import grown_axes
from keras_grow.structure.kernels import axes_of, has_kernel, why_not_resizable
from keras_grow.structure.resizing import carry, resized
from keras_grow.structure.rules import computing
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import Group
from keras_grow.structure.wirings import INPUT, OUTPUT


def widen(
    model: keras.Model, layer: str | Growable, units: int, *, verify: Any = True
) -> keras.Model:
    """A copy of `model` in which `layer` has more units, with weights and connections kept.

    What is tied to these units grows with them: the other ends of additions and products, the
    layers on the way, and what reads them. The new units are dormant: no connection leads into or
    out of them, in a plain layer their weights are 0, and their entries of a BatchNormalization on
    the way are those of a new layer. The copy therefore computes the same function, and trains as
    `model` does, except that a plain layer may learn from new units whose activation is not 0 at
    0, as it does from a bias. New units wake by `grow_neurons` or `grow`. The copy is not compiled
    (`convert_optimizer` makes its optimizer), and `model` stays as it was. A sparse layer keeps its
    number of slots; `make_sparse` makes more.

    Args:
        model: a built Sequential or functional model.
        layer: a growable layer of it, or its path or name; or what `keras_grow.groups` calls
            units, which shows too what they are tied to, and whether they can change: "lstm" the
            units of a recurrent layer, "attention/heads" and "attention/key_size" those inside an
            attention.
        units: integer, more than there are; of a convolution with groups that is asked for by
            itself, those of all its groups together.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, a layer that is not growable or whose units
            can't change, and fewer units than the layer has.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    wider = keras_grow.widen(model, "hidden", 400)
    wider.compile(keras_grow.convert_optimizer(model, wider), model.loss)
    ```
    """
    check_convertible(model)
    graph = UnitGraph(model)
    group = _group_called(model, graph, layer)
    copies = _copies(group, layer)
    wanted, num_old = as_integer(units), group.count * copies
    if wanted is None or wanted <= num_old or wanted % copies:
        of_each = f", a multiple of {copies} for its groups" if copies > 1 else ""
        raise ValueError(
            f"`units` must be an integer above the {num_old} that layer "
            f"{group.made_by[0].units!r} has{of_each}. Received: units={units!r}"
        )
    num_new = wanted // copies - group.count
    densities = {}
    for end in {*group.made_by, *group.read_by}:
        if isinstance(end.layer, Growable) and end.layer.is_sparse:
            size = _grown_size(group, end.layer, num_new)
            densities[id(end.layer)] = end.layer.num_active / size
    grown: dict[int, dict[str, int]] = {}
    for step in graph.graph.steps:
        grown.setdefault(id(step.layer), _counts_grown(graph, group, step, num_new))

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        if not grown.get(id(layer)):
            return None
        changes = {}
        if id(layer) in densities:
            changes["initial_density"] = densities[id(layer)]
        return resized(layer, grown[id(layer)], **changes)

    # The axes that grew can only be told once the copy is there.
    shapes = {
        nested: [_grown_stream(graph, group, stream, num_new) for stream in streams]
        for nested, streams in graph.graph.inputs_of_nested.items()
    }
    widened = clone_with(model, convert, lambda old, new: None, shapes)
    carried = carried_axes(model, widened)
    for before, after in paired_layers(model, widened):
        if grown.get(id(before)) and before.weights:
            carry(before, after, carried.get(id(before), {}))
    carry_seeds(model, widened)
    places = {layer: axes[OUTPUT][:2] for layer, axes in carried.items() if OUTPUT in axes}
    check_copy(model, widened, verify, places)
    return widened


def _group_called(model: keras.Model, graph: UnitGraph, asked: Any) -> Group:
    """The group of all units of a layer, if it can grow; raises `ValueError` if it can't."""
    named = [group for group in graph.groups if asked in [end.units for end in group.made_by]]
    growable = growable_layers(model)
    layer = find_layer(model, asked, growable)
    if layer is None and not named:
        raise ValueError(
            "`layer` must be a growable layer of the model, or its path or name, or what "
            f"`keras_grow.groups` calls its units. Received: {asked!r}, expected one of "
            f"{paths_of(model, growable)}"
        )
    found = named if layer is None else graph.groups_of(layer)
    group, *others = found
    why = group.why_fixed
    if others:
        names = sorted({end.units for each in found for end in each.made_by})
        why = f"there are several groups of units: ask for one of {names}"
    for end in group.made_by:
        sides = graph.sides[id(computing(end.owner))]
        if not any(np.array_equal(graph.roots[x.units], group.roots) for x in sides.values()):
            why = (
                why or f"the units of {end.path!r} are not all tied alike: widen what it is tied to"
            )
    for end in (*group.made_by, *group.read_by):
        why = why or why_not_resizable(end.layer)
    if not any(isinstance(end.layer, Growable) for end in group.made_by):
        why = why or "no growable layer makes them"
    if why is not None:
        group = dataclasses.replace(group, why_fixed=why)
        raise UnitsNotFollowed(
            f"New units stand in all layers that they are tied to. Received: {group}"
        )
    return group


def _copies(group: Group, asked: Any) -> int:
    """How many units of a layer stand for one of a group: of a convolution one in each group."""
    for end in group.made_by:
        is_layer = isinstance(end.layer, Affine) and asked != end.units
        if is_layer and asked in (end.layer, end.path, end.layer.name):
            return int(end.indices.shape[1])
    return 1


def _counts_grown(graph: UnitGraph, group: Group, step: Step, num_new: int) -> dict[str, int]:
    """How many entries the sides of a layer have, of those that have more than before."""
    if step in graph.calls:
        streams = graph.sides[id(computing(step.layer))]
    elif len(step.inputs) == 1 and len(step.outputs) == 1:
        streams = {INPUT: step.inputs[0], OUTPUT: step.outputs[0]}
    else:
        return {}
    counts = {
        side: _grown_stream(graph, group, stream, num_new)[-1] for side, stream in streams.items()
    }
    return {side: n for side, n in counts.items() if n and n != streams[side].count}


def _grown_stream(
    graph: UnitGraph, group: Group, stream: Stream, num_new: int
) -> tuple[int | None, ...]:
    """The shape of a tensor once a group has more units."""
    num_here = np.isin(graph.roots[stream.units], group.roots).sum()
    if not num_here:
        return stream.shape
    return (*stream.shape[:-1], int(stream.count + num_here // group.count * num_new))


def _grown_size(group: Group, layer: keras.Layer, num_new: int) -> int:
    """How many connections a layer has once a group has more units."""
    axes = axes_of(layer)
    counts = [axes.num_inputs, axes.num_units]
    for side, ends in enumerate((group.read_by, group.made_by)):
        counts[side] += sum(num_new * end.indices.shape[1] for end in ends if end.layer is layer)
    return axes.num_positions * math.prod(counts)


def carried_axes(model: keras.Model, widened: keras.Model) -> Mapping[int, Axes]:
    """How the variables of `model` lie in those of a wider copy.

    Args:
        model: a model.
        widened: what `widen`, once or more often, made of it.

    Returns:
        A dict from the `id` of each layer of `model` whose variables grew to its `Axes`.
    """
    for old, new in paired_layers(model, widened):
        if has_kernel(old) and has_kernel(new):
            count, count_now = axes_of(old).num_units, axes_of(new).num_units
            if count > count_now:
                raise ValueError(
                    "`converted` must have been made from `model`. Received: layer "
                    f"{old.name!r} with {count} units, and {count_now} in the copy"
                )
    return grown_axes(UnitGraph(model), UnitGraph(widened))
