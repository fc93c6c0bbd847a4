"""Where the units of a model stand in a wider copy of it."""

from collections.abc import Mapping

import numpy as np

from keras_grow.structure.axes import Axes, Places
from keras_grow.structure.graph import Step, Stream
from keras_grow.structure.rules import computing, places_behind
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.wirings import INPUT, OUTPUT, Tie


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
