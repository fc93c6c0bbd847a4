"""Filters of maps one by one on the way to their readers: behind one of zeros a map is dead."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.layers.inner_kernel import Inner
from keras_grow.neurons.units import mean_weight, set_entries
from keras_grow.optimizer_slots import reset_slots
from keras_grow.structure.kernels import KernelIn, axes_of, connections_of, holders_of
from keras_grow.structure.rules import computing
from keras_grow.structure.unit_groups import Group


@dataclasses.dataclass(frozen=True, eq=False)
class Filter:
    """A kernel that filters the units of a group one by one, as a depthwise convolution does.

    Attributes:
        layer: the growable layer of the kernel, or a `KernelIn` where it is plain.
        connections: int64 of shape `(units, number)`, the flat indices of each unit's weights.
        bias: what is added behind, if the group passes it, else `None`.
        entries: int64 of shape `(units, copies)`, the units' entries of the bias.
    """

    layer: Growable | KernelIn
    connections: np.ndarray = dataclasses.field(repr=False)
    bias: keras.Variable | None = None
    entries: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)), repr=False)

    def clear(self, units: np.ndarray, optimizer: keras.Optimizer | None) -> None:
        """Makes the filters of some units dormant, or 0, and their biases 0, with fresh slots."""
        indices = tf.constant(np.sort(self.connections[units], axis=None))
        if isinstance(self.layer, KernelIn):
            set_entries(self.layer.kernel, indices, 0.0, optimizer)
        else:
            active, _ = self.layer.active_connections()
            active = active[tf.gather(_flags(indices, self.layer.axes.size), active)]
            reset_slots(optimizer, self.layer.prune_connections(active))
        if self.bias is not None:
            entries = tf.constant(self.entries[units].reshape(-1), tf.int64)
            set_entries(self.bias, entries, 0.0, optimizer)


def filters_of(group: Group) -> list[Filter]:
    """The filters that the units of a group pass on the way to their readers.

    They are those of depthwise convolutions, and of separable ones, whose other kernel reads what
    has been filtered.

    Args:
        group: a group of a model's units.
    """
    found = []
    for end in group.passed:
        for holder in _each_by_itself(end.layer):
            bias = getattr(computing(end.layer), "bias", None)
            bias = bias if isinstance(bias, keras.Variable) else None
            found.append(Filter(holder, _connections(holder, end.indices), bias, end.indices))
    for end in group.read_by:
        read = _variable(end.layer)
        for holder in _each_by_itself(end.owner):
            is_other = _variable(holder) is not read
            if is_other and axes_of(holder).num_units == axes_of(end.layer).num_inputs:
                found.append(Filter(holder, _connections(holder, end.indices)))
    return found


def wake_weights(
    layer: Growable | KernelIn, connections: tf.Tensor, weights: tf.Tensor
) -> list[StorageChange]:
    """Gives weights to connections that are dormant, or stand in a plain kernel.

    Returns:
        As `Growable.grow_connections`.
    """
    if isinstance(layer, Growable):
        return layer.grow_connections(connections, weights)
    kernel = layer.kernel
    flat = tf.reshape(kernel.value, [-1])
    flat = tf.tensor_scatter_nd_update(flat, connections[:, None], tf.cast(weights, flat.dtype))
    kernel.assign(tf.reshape(flat, kernel.shape))
    return [StorageChange(kernel, connections)] if kernel.trainable else []


def mean_weight_of(layer: Growable | KernelIn) -> float:
    """`mean_weight`, also of a plain kernel, whose weights of 0 do not count."""
    if isinstance(layer, Growable):
        return mean_weight(layer)
    _, weights = connections_of(layer)
    if len(weights):
        return float(tf.reduce_mean(tf.abs(weights)))
    return float(np.sqrt(6 / (layer.axes.num_inputs + layer.axes.num_units))) / 2


def _each_by_itself(layer: Any) -> list[Growable | KernelIn]:
    """The kernels of a layer in which each input has units of its own."""
    holders = [layer] if isinstance(layer, Growable) else list(holders_of(layer).values())
    return [each for each in holders if set(axes_of(each).inputs) & set(axes_of(each).units)]


def _connections(layer: Growable | KernelIn, units: np.ndarray) -> np.ndarray:
    """All connections into some units: of `(units, copies)`, flat indices `(units, number)`."""
    axes = axes_of(layer)
    into = np.argsort(axes.units_of(np.arange(axes.size, dtype=np.int64)), kind="stable")
    return into.reshape(axes.num_units, axes.fan_in)[units].reshape(len(units), -1)


def _variable(layer: Any) -> Any:
    """The variable that stores a kernel."""
    if isinstance(layer, KernelIn):
        return layer.kernel
    if isinstance(layer, Inner):
        return layer.inner.variable
    return layer.kernel_variables[0] if isinstance(layer, Growable) else layer.kernel


def _flags(indices: tf.Tensor, size: int) -> tf.Tensor:
    return tf.scatter_nd(indices[:, None], tf.ones(tf.shape(indices), bool), [size])
