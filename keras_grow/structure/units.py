"""The units of a hidden layer, their connections in and out, and what became of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.layers.paths import paths_of
from keras_grow.optimizer_slots import reset_slots
from keras_grow.structure.calls import UnitsNotFollowed
from keras_grow.structure.kernels import connections_of, inputs_of, kernel_shape
from keras_grow.structure.passing import NORMALIZATIONS
from keras_grow.structure.topology import consumers

# What a new normalisation layer starts with.
_FRESH_STATISTICS = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


@dataclasses.dataclass(frozen=True)
class NeuronChange:
    """What became of the units of one layer.

    Attributes:
        name: the layer's path in the model.
        units: int64 array, the units that were born or removed.
        num_incoming, num_outgoing: how many connections that changed, in the layer and in those
            that read it.
        num_living: how many of the layer's units have a connection now.
        left: int64 array, units that were due and could not be removed.
    """

    name: str
    units: np.ndarray
    num_incoming: int
    num_outgoing: int
    num_living: int
    left: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """How many units were born or removed."""
        return len(self.units)


@dataclasses.dataclass(frozen=True)
class NeuronRecord:
    """What a change of neurons did; its `str` says it in a line.

    Attributes:
        layers: a `NeuronChange` for each layer that was looked at, in the model's order.
        not_followed: why growable layers were not looked at, by their paths: their units reach an
            output of the model, or something that mixes them, which is named.
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
        living = ", ".join(f"{layer.num_living} living in {layer.name!r}" for layer in self.layers)
        connections = sum(layer.num_incoming + layer.num_outgoing for layer in self.layers)
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        return (
            f"{self.count} neurons and {connections:,} connections changed, {living}{loss}, "
            f"{self.seconds:.2f} s"
        )


class Units:
    """The units of a layer of a model, and the weights that lead into and out of them.

    Args:
        model: a built Sequential or functional model.
        layer: a growable layer of it.

    Attributes:
        layer: the layer.
        path: its path in the model.
        consumers: the layers that read its units.
        count: how many units it has, with and without connections.

    Raises:
        UnitsNotFollowed: see `topology.consumers`.
    """

    def __init__(self, model: keras.Model, layer: Growable):
        self.layer = layer
        (self.path,) = paths_of(model, [layer])
        self.consumers = consumers(model, layer)
        self.count = layer.kernel_shape[-1]

    def fan_in(self) -> np.ndarray:
        """Active incoming connections of each unit, int64 of shape `(count,)`."""
        units = self.layer.active_connections()[0] % self.count
        return _counts(units, self.count)

    def fan_out(self) -> np.ndarray:
        """Outgoing connections of each unit, int64 of shape `(count,)`.

        In a layer that is not growable, weights other than 0 count.
        """
        total = np.zeros(self.count, np.int64)
        for consumer in self.consumers:
            reader = consumer.layer
            inputs = inputs_of(reader, connections_of(reader)[0])
            total += _counts(inputs, kernel_shape(reader)[-2])[consumer.indices].sum(axis=1)
        return total

    def living(self) -> np.ndarray:
        """Which units have a connection: bool of shape `(count,)`."""
        return (self.fan_in() > 0) | (self.fan_out() > 0)

    def dormant(self, count: int) -> np.ndarray:
        """The first `count` units without a connection; raises `ValueError` if there are fewer."""
        dormant = np.flatnonzero(~self.living())
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
        active = self.layer.active_connections()[0]
        indices = active[_is_in(active % self.count, units, self.count)]
        if len(indices):
            reset_slots(optimizer, self.layer.prune_connections(indices))
        self.clear_bias(units, optimizer)
        return len(indices)

    def cut_outgoing(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> int:
        """Makes all outgoing connections of `units` dormant, or 0; says how many."""
        cut = 0
        for consumer in self.consumers:
            reader = consumer.layer
            connections, _ = connections_of(reader)
            rows = consumer.indices[units].reshape(-1)
            inputs = inputs_of(reader, connections)
            indices = connections[_is_in(inputs, rows, kernel_shape(reader)[-2])]
            cut += len(indices)
            if not len(indices):
                continue
            if isinstance(reader, Growable):
                reset_slots(optimizer, reader.prune_connections(indices))
            else:
                set_entries(reader.kernel, indices, 0.0, optimizer)
        return cut

    def start_statistics_afresh(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> None:
        """Gives units what a new normalisation layer on the way to their readers starts with."""
        passed = {
            id(place.layer): place for consumer in self.consumers for place in consumer.passed
        }
        for place in passed.values():
            if not isinstance(place.layer, NORMALIZATIONS):
                continue
            indices = tf.constant(place.indices[units].reshape(-1))
            for name, value in _FRESH_STATISTICS.items():
                variable = getattr(place.layer, name, None)
                if variable is not None:
                    set_entries(variable, indices, value, optimizer)

    def clear_bias(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> None:
        """Sets the biases of `units` to 0, with fresh slots."""
        if self.layer.bias is not None:
            set_entries(self.layer.bias, tf.constant(units, tf.int64), 0.0, optimizer)


def checked_count(count: Any, name: str = "count") -> int:
    """`count`, a number of things; raises `ValueError` unless it is a positive integer."""
    return checked_integer(count, name)


def mean_weight(layer: Growable) -> float:
    """Mean |w| of the active connections; that of Glorot's uniform initialiser without any."""
    _, weights = layer.active_connections()
    if len(weights):
        return float(tf.reduce_mean(tf.abs(weights)))
    return float(np.sqrt(6 / sum(layer.kernel_shape[-2:]))) / 2


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


def followed(model: keras.Model, layers: Sequence[Growable]) -> tuple[list[Units], dict[str, str]]:
    """The `Units` of those layers whose units can be followed, and why not those of the others."""
    found, others = [], {}
    for layer, path in zip(layers, paths_of(model, layers), strict=True):
        try:
            found.append(Units(model, layer))
        except UnitsNotFollowed as error:
            others[path] = str(error)
    return found, others


def _counts(positions: tf.Tensor, size: int) -> np.ndarray:
    ones = tf.ones(tf.shape(positions), tf.int64)
    return tf.math.unsorted_segment_sum(ones, positions, size).numpy()


def _is_in(positions: tf.Tensor, chosen: np.ndarray, size: int) -> tf.Tensor:
    """Whether each of `positions`, below `size`, is among `chosen`."""
    is_chosen = np.zeros(size, bool)
    is_chosen[chosen] = True
    return tf.gather(tf.constant(is_chosen), positions)
