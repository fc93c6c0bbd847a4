"""Wider copies of models: room for more units, with nothing else changed."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.integers import as_integer
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import find_layer, paths_of
from keras_grow.measuring.agreement import check_copy
from keras_grow.structure.axes import Axes, carry, grown_axes
from keras_grow.structure.cloning import Inside, check_convertible, clone_with
from keras_grow.structure.copying import made_anew
from keras_grow.structure.graph import Stream, UnitsNotFollowed
from keras_grow.structure.kernels import axes_of, has_kernel, why_not_resizable
from keras_grow.structure.rules import rule_for
from keras_grow.structure.unit_graph import Group, UnitGraph
from keras_grow.structure.wirings import OUTPUT


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
        layer: a growable layer of it, or its path or name. `keras_grow.groups` shows what its units
            (of a convolution, its maps) are tied to, and whether they can change.
        units: integer, more than the layer has.
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
    growable = growable_layers(model)
    old = find_layer(model, layer, growable)
    if old is None:
        raise ValueError(
            "`layer` must be a growable layer of the model, or its path or name. Received: "
            f"{layer!r}, expected one of {paths_of(model, growable)}"
        )
    num_old = old.axes.num_units
    wanted = as_integer(units)
    if wanted is None or wanted <= num_old:
        raise ValueError(
            f"`units` must be an integer above the {num_old} that layer {old.name!r} has. "
            f"Received: units={units!r}"
        )
    graph = UnitGraph(model)
    group = _sole_group(graph, old)
    num_new = wanted - num_old
    made = {id(end.layer) for end in group.made_by}
    densities = {}
    for end in {*group.made_by, *group.read_by}:
        if isinstance(end.layer, Growable) and end.layer.is_sparse:
            size = _grown_size(group, end.layer, num_new)
            densities[id(end.layer)] = end.layer.num_active / size
    touched = {id(end.layer) for end in (*group.made_by, *group.read_by, *group.passed)}

    changed: dict[int, dict[str, Any]] = {}
    for step in graph.graph.steps:
        rule, output = rule_for(step.layer), step.outputs[0]
        grown = _grown_stream(graph, group, output, num_new)[-1]
        if rule is not None and grown is not None and grown != output.count:
            changed[id(step.layer)] = rule.changes(step.layer, grown)

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        changes = {**changed.get(id(layer), {})}
        if id(layer) not in touched:
            return made_anew(layer, **changes) if changes else None
        if id(layer) in made:
            changes["filters" if hasattr(layer, "filters") else "units"] = wanted
        if id(layer) in densities:
            changes["initial_density"] = densities[id(layer)]
        return made_anew(layer, **changes)

    # The axes that grew can only be told once the copy is there.
    shapes = {
        nested: [_grown_stream(graph, group, stream, num_new) for stream in streams]
        for nested, streams in graph.graph.inputs_of_nested.items()
    }
    widened = clone_with(model, convert, lambda old, new: None, shapes)
    carried = carried_axes(model, widened)
    for before, after in paired_layers(model, widened):
        if id(before) in touched:
            carry(before, after, carried.get(id(before), {}))
    places = {layer: axes[OUTPUT][:2] for layer, axes in carried.items() if OUTPUT in axes}
    check_copy(model, widened, verify, places)
    return widened


def _sole_group(graph: UnitGraph, layer: Growable) -> Group:
    """The group of all units of a layer, if it can grow; raises `UnitsNotFollowed` if it can't."""
    group, *others = graph.groups_of(layer)
    why = group.why_fixed
    for end in group.made_by:
        all_units = np.arange(axes_of(end.layer).num_units)[:, None]
        if others or not np.array_equal(end.indices, all_units):
            why = f"the units of {end.path!r} are not all tied alike: widen what it is tied to"
    for end in (*group.made_by, *group.read_by):
        why = why or why_not_resizable(end.layer)
    if why is not None:
        group = dataclasses.replace(group, why_fixed=why)
        raise UnitsNotFollowed(
            f"New units stand in all layers that they are tied to. Received: {group}"
        )
    return group


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
