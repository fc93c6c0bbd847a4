"""The units of a group, their connections in and out, and what became of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.paths import paths_of
from keras_grow.optimizer_slots import reset_slots
from keras_grow.structure.graph import UnitsNotFollowed
from keras_grow.structure.kernels import axes_of, connections_of, counts_of
from keras_grow.structure.rules import rule_for
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import End, Group


@dataclasses.dataclass(frozen=True)
class NeuronChange:
    """What became of the units of one layer, and of the units of others that are tied to them.

    Attributes:
        name: the layer's path in the model.
        units: int64 array, the units that were born or removed.
        num_incoming, num_outgoing: how many connections that changed, in the layers that make the
            units and in those that read them.
        num_connected: how many of the units have a connection now.
        left: int64 array, units that were due and could not be removed.
        tied: the paths of the other layers that make the same units, the other ends of an addition.
    """

    name: str
    units: np.ndarray
    num_incoming: int
    num_outgoing: int
    num_connected: int
    left: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    tied: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many units were born or removed."""
        return len(self.units)


@dataclasses.dataclass(frozen=True)
class NeuronRecord:
    """What a change of neurons did; its `str` says it in a line.

    Attributes:
        layers: a `NeuronChange` for each layer that was looked at, in the model's order; of layers
            whose units are tied together, for the first.
        not_followed: why units of growable layers were not looked at, by the layers' paths: they
            reach an output of the model, or something that mixes them, which is named.
        seconds: how long it took.
        loss: the mean loss on the growth data before the change, or `None` if it was not measured.
    """

    layers: tuple[NeuronChange, ...]
    not_followed: Mapping[str, str]
    seconds: float
    loss: float | None = None

    @property
    def count(self) -> int:
        """How many units were born or removed."""
        return sum(layer.count for layer in self.layers)

    def __str__(self) -> str:
        connected = ", ".join(
            f"{layer.num_connected} connected in {layer.name!r}" for layer in self.layers
        )
        connections = sum(layer.num_incoming + layer.num_outgoing for layer in self.layers)
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        return (
            f"{self.count} neurons and {connections:,} connections changed, {connected}{loss}, "
            f"{self.seconds:.2f} s"
        )


class Units:
    """The units of a group, and the weights that lead into and out of them.

    Args:
        group: a group of a model.
        layer: the one of the layers that make it after which it is called, by default the first.

    Attributes:
        group: the group.
        layer, path: the layer and its path.
        numbers: int64 array of shape `(count,)`, what the layer calls the units.
        count: how many units there are, with and without connections.
    """

    def __init__(self, group: Group, layer: keras.Layer | None = None):
        (end, *_) = [end for end in group.made_by if layer in (None, end.layer)]
        self.group = group
        self.layer, self.path = end.layer, end.units
        self.numbers = end.indices[:, 0]
        self.count = group.count

    def fan_in(self) -> np.ndarray:
        """Active incoming connections of each unit, int64 of shape `(count,)`."""
        return self._count(self.group.made_by, side=1)

    def fan_out(self) -> np.ndarray:
        """Outgoing connections of each unit, int64 of shape `(count,)`.

        In a layer that is not growable, weights other than 0 count.
        """
        return self._count(self.group.read_by, side=0)

    def connected(self) -> np.ndarray:
        """Which units have a connection: bool of shape `(count,)`."""
        return (self.fan_in() > 0) | (self.fan_out() > 0)

    def dormant(self, count: int) -> np.ndarray:
        """The first `count` units without a connection; raises `ValueError` if there are fewer."""
        dormant = np.flatnonzero(~self.connected())
        if len(dormant) < count:
            name, wanted = self.path, self.count + count - len(dormant)
            raise ValueError(
                f"{count} units can be born into {count} dormant ones, without any connection. "
                f"Received: layer {name!r} with {len(dormant)} of them among {self.count}. Make a "
                f"wider copy: `keras_grow.widen(model, {name!r}, {wanted})`."
            )
        return dormant[:count]

    def cut_incoming(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> int:
        """Makes all incoming connections of `units` dormant, and their biases 0; says how many."""
        cut = self._cut(self.group.made_by, KernelAxes.units_of, units, optimizer)
        self.clear_bias(units, optimizer)
        return cut

    def cut_outgoing(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> int:
        """Makes all outgoing connections of `units` dormant, or 0; says how many."""
        return self._cut(self.group.read_by, KernelAxes.inputs_of, units, optimizer)

    def start_statistics_afresh(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> None:
        """Gives units what a new normalization layer on the way to their readers starts with."""
        for end in self.group.passed:
            rule = rule_for(end.layer)
            indices = tf.constant(end.indices[units].reshape(-1))
            for name, value in ({} if rule is None else rule.fresh_values).items():
                variable = getattr(end.layer, name, None)
                if variable is not None:
                    set_entries(variable, indices, value, optimizer)

    def clear_bias(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> None:
        """Sets the biases of `units` to 0, with fresh slots."""
        for entries in self.group.biases:
            indices = tf.constant(entries.indices[units].reshape(-1), tf.int64)
            set_entries(entries.variable, indices, 0.0, optimizer)

    def change(
        self, units: np.ndarray, num_incoming: int, num_outgoing: int, left: Any = ()
    ) -> NeuronChange:
        """The record of a change of `units` that has been made."""
        tied = tuple(end.path for end in self.group.made_by if end.layer is not self.layer)
        return NeuronChange(
            self.path,
            self.numbers[units],
            num_incoming,
            num_outgoing,
            int(self.connected().sum()),
            self.numbers[np.asarray(left, np.int64)],
            tied,
        )

    def _count(self, ends: Sequence[End], side: int) -> np.ndarray:
        total = np.zeros(self.count, np.int64)
        for end in ends:
            total += counts_of(end.layer)[side][end.indices].sum(axis=1)
        return total

    def _cut(
        self,
        ends: Sequence[End],
        side: Callable,
        units: np.ndarray,
        optimizer: keras.Optimizer | None,
    ) -> int:
        return sum(
            cut_connections(end.layer, side, end.indices[units].reshape(-1), optimizer)
            for end in ends
        )


def cut_connections(
    layer: keras.Layer, side: Callable, positions: np.ndarray, optimizer: keras.Optimizer | None
) -> int:
    """Makes connections dormant, or 0, whose units or inputs are among some; says how many.

    Args:
        layer: a layer with a kernel.
        side: `KernelAxes.units_of` or `KernelAxes.inputs_of`.
        positions: the numbers of these units or inputs.
        optimizer: whose slots of them start afresh.
    """
    axes, (connections, _) = axes_of(layer), connections_of(layer)
    is_chosen = np.zeros(max(axes.num_inputs, axes.num_units), bool)
    is_chosen[positions] = True
    indices = connections[tf.gather(tf.constant(is_chosen), side(axes, connections))]
    layer = getattr(layer, "masked", None) or layer
    if len(indices) and isinstance(layer, Growable):
        reset_slots(optimizer, layer.prune_connections(indices))
    elif len(indices):
        set_entries(layer.kernel, indices, 0.0, optimizer)
    return len(indices)


def checked_count(count: Any, name: str = "count") -> int:
    """`count`, a number of things; raises `ValueError` unless it is a positive integer."""
    return checked_integer(count, name)


def mean_weight(layer: Growable) -> float:
    """Mean |w| of the active connections; that of Glorot's uniform initializer without any."""
    _, weights = layer.active_connections()
    if len(weights):
        return float(tf.reduce_mean(tf.abs(weights)))
    return float(np.sqrt(6 / (layer.axes.num_inputs + layer.axes.num_units))) / 2


def set_entries(
    variable: keras.Variable,
    indices: tf.Tensor,
    value: float,
    optimizer: keras.Optimizer | None,
) -> None:
    """Sets entries at flat indices of a variable, and gives them fresh slots."""
    flat = tf.reshape(variable.value, [-1])
    values = tf.fill(tf.shape(indices), tf.cast(value, flat.dtype))
    flat = tf.tensor_scatter_nd_update(flat, indices[:, None], values)
    variable.assign(tf.reshape(flat, variable.shape))
    if variable.trainable:
        reset_slots(optimizer, [StorageChange(variable, indices)])


def followed(
    model: keras.Model, layers: Sequence[Growable], graph: UnitGraph | None = None
) -> tuple[list[Units], dict[str, str]]:
    """The `Units` of the groups that layers make, if they can change, and why the others can't.

    Args:
        model: a built Sequential or functional model.
        layers: growable layers of it that may change; those that make the same units must be
            among them.
        graph: the graph of its units, if it is at hand.
    """
    graph = UnitGraph(model) if graph is None else graph
    found: dict[int, Units] = {}
    others: dict[str, str] = {}
    makers = {end.layer for group in graph.groups for end in group.made_by}
    for layer, path in zip(layers, paths_of(model, layers), strict=True):
        if isinstance(layer, Inner) and layer not in makers:
            kind, attribute = type(layer.inner.layer), layer.inner.attribute
            if rule_for(layer.inner.layer) is None and attribute != "depthwise_kernel":
                others[path] = f"units are not followed through a {kind.__name__}"
            continue  # What filters maps one by one changes with the units that pass it.
        try:
            for group in graph.groups_of(layer):
                check_can_change(group, layers)
                found.setdefault(id(group), Units(group))
        except UnitsNotFollowed as error:
            others[path] = str(error)
    return list(found.values()), others


def sole_units(graph: UnitGraph, layer: Growable, layers: Sequence[Growable]) -> Units:
    """The units of a layer, all of one group that can change; raises `UnitsNotFollowed` if not."""
    group, *others = graph.groups_of(layer)
    if others:
        raise UnitsNotFollowed(
            "The units of the layer must all be tied alike. Received: layer "
            f"{layer.name!r}, whose units belong to {len(others) + 1} groups: "
            f"{'; '.join(map(str, (group, *others)))}"
        )
    check_can_change(group, layers)
    return Units(group, layer)


def check_can_change(group: Group, layers: Sequence[Growable]) -> None:
    """Raises `UnitsNotFollowed` unless a group can change and only `layers` make it."""
    why = group.why_fixed
    for end in group.made_by:
        if why is None and not any(end.layer is layer for layer in layers):
            why = f"{end.path!r} makes them too, and is not growable, frozen or not among `layers`"
    if why is not None:
        group = dataclasses.replace(group, why_fixed=why)
        raise UnitsNotFollowed(
            f"Units come and go in all layers that they are tied to. Received: {group}"
        )
