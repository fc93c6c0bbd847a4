"""Which connections newborns get: those with units that are not dormant themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.neurons.units import Units
from keras_grow.structure.kernels import axes_of
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import End, Group


class Dormancy:
    """Where dormant units stand in the kernels of a model.

    A connection between a newborn and a dormant unit would bring nothing now, and since a dormant
    unit is one without any, nothing could be born into it any more.

    Args:
        graph: the graph of the model's units. Of groups that can't change none is dormant: an
            output is wanted whether or not anything feeds it.
    """

    def __init__(self, graph: UnitGraph):
        # How many dormant units an entry stands for: one of a head and of a dimension is of both.
        self._inputs: dict[int, np.ndarray] = {}
        self._units: dict[int, np.ndarray] = {}
        for group in graph.groups:
            if group.why_fixed is None:
                self._count(group, np.flatnonzero(~Units(group).connected()), 1)

    def wakes(self, group: Group, units: np.ndarray) -> None:
        """Notes that dormant units of a group are dormant no more."""
        self._count(group, units, -1)

    def inputs(self, layer: Any) -> np.ndarray:
        """Which inputs of a layer are of dormant units; bool of shape `(inputs,)`.

        Args:
            layer: a layer with a kernel, as an `End` names it.
        """
        none = np.zeros(axes_of(layer).num_inputs, np.int64)
        return self._inputs.get(id(layer), none) > 0

    def units(self, layer: Any) -> np.ndarray:
        """Which units of a layer are dormant, `inputs` of what it makes; of shape `(units,)`."""
        none = np.zeros(axes_of(layer).num_units, np.int64)
        return self._units.get(id(layer), none) > 0

    def _count(self, group: Group, units: np.ndarray, by: int) -> None:
        for ends, counts, side in (
            (group.read_by, self._inputs, "num_inputs"),
            (group.made_by, self._units, "num_units"),
        ):
            for end in ends:
                size = getattr(axes_of(end.layer), side)
                of_layer = counts.setdefault(id(end.layer), np.zeros(size, np.int64))
                of_layer[np.unique(end.indices[units])] += by


def connections_of_unit(
    units: Units, unit: int, dormancy: Dormancy
) -> tuple[list[tuple[Growable, tf.Tensor]], list[tuple[Growable, tf.Tensor]]]:
    """The connections into a unit, and those out of it: pairs of a layer and flat indices.

    Those with dormant units are left out, unless there would be none into the unit, or out of it.

    Args:
        units: the units of a group whose makers and readers are growable.
        unit: the number of one among them, dormant no more.
        dormancy: which others are.
    """

    def between(end: End, are_inputs: bool, spares_dormant: bool) -> np.ndarray:
        axes = axes_of(end.layer)
        inputs, made = np.ones(axes.num_inputs, bool), np.ones(axes.num_units, bool)
        if spares_dormant:
            inputs, made = ~dormancy.inputs(end.layer), ~dormancy.units(end.layer)
        side = inputs if are_inputs else made
        side &= np.isin(np.arange(len(side)), end.indices[unit])
        return axes.connections_between(np.flatnonzero(inputs), np.flatnonzero(made))

    def all_of(ends: Sequence[End], are_inputs: bool) -> dict[Any, np.ndarray]:
        found: dict[Any, np.ndarray] = {}
        for spares_dormant in (True, False):
            found.clear()
            for end in ends:
                layer, indices = growable_of(end.layer), between(end, are_inputs, spares_dormant)
                found[layer] = np.union1d(found.get(layer, indices), indices)
            if any(map(len, found.values())):
                break
        return found

    incoming = all_of(units.group.made_by, are_inputs=False)
    outgoing = all_of(units.group.read_by, are_inputs=True)
    for layer in incoming.keys() & outgoing.keys():  # It reads what it makes.
        outgoing[layer] = np.setdiff1d(outgoing[layer], incoming[layer])
    into, out_of = (
        [(layer, tf.constant(indices)) for layer, indices in side.items()]
        for side in (incoming, outgoing)
    )
    return into, out_of


def growable_of(layer: Any) -> Growable | None:
    """The growable layer that stands for a kernel, `None` if it is plain."""
    layer = getattr(layer, "masked", None) or layer
    return layer if isinstance(layer, Growable) else None
