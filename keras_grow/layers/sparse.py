"""What layers that hold their active connections and nothing else share."""

import dataclasses
import math
import numbers
import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_grow.integers import as_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.layers.guarded import assign_unguarded, guard
from keras_grow.layers.initializers import draw
from keras_grow.layers.sparse_layout import Layout, array_names, why_no_layout
from keras_grow.layers.used_slots import UsedSlotsConstraint, UsedSlotsRegularizer
from keras_grow.policies.densities import FanIn, initial_count, seed_connections
from keras_grow.policies.scores import Score
from keras_grow.policies.statistics import Gradient
from keras_grow.policies.view import Connections
from keras_grow.search.measurements import Measurements
from keras_grow.search.selection import Candidates, best_candidates
from keras_grow.search.tiled_search import best_dormant

# Where the weight of a new connection came from.
_NOWHERE = -1


class Sparse(Growable):
    """A growable layer of a two-dimensional kernel that stores its active connections in slots.

    The weights of active connections stand in `values`, in the order of their flat indices; free
    slots stand behind. A subclass sets `capacity`, `initial_density`, `seed`,
    `kernel_initializer`, `kernel_regularizer` and `kernel_constraint`, calls `_add_connections`
    when it is built, and multiplies with `values` and `_layout()`.
    """

    is_sparse = True

    capacity: Any  # An integer, a density, a `FanIn` or None; an integer once the layer is built.
    initial_density: float | FanIn | None
    seed: int | None
    values: keras.Variable

    def _check_capacity(self):
        capacity = self.capacity
        if capacity is None and self.initial_density is None:
            raise ValueError(
                "A sparse layer needs to know how many connections to hold. Received: neither "
                "`capacity` nor `initial_density`. Pass "
                "`capacity=keras_grow.densities.FanIn(32)`, a number of connections, or a density."
            )
        count = as_integer(capacity)
        if count is not None:
            self.capacity = count  # A configuration is written with Python's own.
        is_number = isinstance(capacity, numbers.Real) and not isinstance(capacity, bool)
        is_density = count is None and is_number and 0 < capacity <= 1
        if not (capacity is None or is_density or isinstance(capacity, FanIn)) and not (
            count is not None and count > 0
        ):
            raise ValueError(
                "`capacity` must be a positive integer (connections), a float from 0 to 1 (a "
                f"density) or a keras_grow.densities.FanIn. Received: capacity={capacity!r}"
            )

    def _add_connections(self, shape: tuple[int, int]) -> None:
        """Creates the variables, with the connections that the layer starts with."""
        capacity, axes = self.capacity, KernelAxes(shape)
        if isinstance(capacity, (float, FanIn)):
            capacity = initial_count(capacity, axes)
        if self.initial_density is not None:
            count = initial_count(self.initial_density, axes)
        else:
            count = min(int(capacity), axes.size)
        capacity = count if capacity is None else min(int(capacity), axes.size)
        self.capacity = max(1, capacity)
        if count > self.capacity:
            raise ValueError(
                f"`initial_density` asks for {count} connections of a kernel of shape {shape}, "
                f"more than the capacity holds. Received: initial_density={self.initial_density!r},"
                f" capacity={self.capacity}"
            )
        self._kernel_shape = shape
        connections = seed_connections(axes, count, self.seed)
        layout = Layout.of(connections, shape, self.capacity)

        def initial_values(_, dtype):
            values = draw(self.kernel_initializer, axes, connections, dtype)
            return ops.pad(values, [[0, self.capacity - count]])

        regularizer = None
        if self.kernel_regularizer is not None:
            regularizer = UsedSlotsRegularizer(self, self.kernel_regularizer)
        self.values = self.add_weight(
            name="values",
            shape=(self.capacity,),
            initializer=initial_values,
            regularizer=regularizer,
            constraint=UsedSlotsConstraint(self, self.kernel_constraint),
        )
        for name, array in layout.arrays().items():
            variable = self.add_weight(
                name=name,
                shape=array.shape,
                dtype="int64",  # TensorFlow has no int32 variables on a GPU.
                initializer=lambda shape, dtype, array=array: array,
                trainable=False,
                autocast=False,
            )
            # An attribute each: TensorFlow's checkpoints do not look into dicts.
            setattr(self, f"layout_{name}", variable)
        guard(
            self._layout(),
            lambda arrays: why_no_layout(arrays, shape, self.capacity),
            lambda: f"layer {self.name!r}",
        )

    def is_used(self) -> tf.Tensor:
        """Which slots hold a connection: bool of shape `(capacity,)`."""
        self._check_built()
        return self.layout_inputs.value < self._kernel_shape[0]

    def _layout(self) -> dict[str, keras.Variable]:
        return {name: getattr(self, f"layout_{name}") for name in array_names()}

    def _check_built(self):
        if not hasattr(self, "values"):
            raise ValueError(
                f"Layer {self.name!r} has no connections before it is built. Call it on a batch, "
                "or build it."
            )

    @property
    def kernel_shape(self):
        self._check_built()
        return self._kernel_shape

    @property
    def kernel_variables(self):
        self._check_built()
        return (self.values, *self._layout().values())

    @property
    def num_connections(self):
        return math.prod(self.kernel_shape)

    @property
    def num_active(self):
        return int(tf.math.count_nonzero(self.is_used()))

    @property
    def num_free(self):
        return min(self.capacity, self.num_connections) - self.num_active

    def active_connections(self):
        count = self.num_active
        flat = self.layout_inputs.value * self._kernel_shape[-1] + self.layout_units.value
        flat = flat[:count]
        # A checkpoint of TensorFlow's, put together from several, passes by every other check.
        if tf.executing_eagerly() and not bool(tf.reduce_all(flat[1:] > flat[:-1])):
            raise ValueError(
                f"Layer {self.name!r} holds connections out of order, or twice. Received: indices "
                "that were not read as they were written. Load a sound checkpoint."
            )
        return flat, self.values.value[:count]

    def check_finite(self, path=None):
        bad = int(tf.math.count_nonzero(~tf.math.is_finite(self.values.value)))
        if bad:
            raise ValueError(
                f"Layer {path or self.name!r} stores weights that are NaN or infinite. Received: "
                f"{bad} of its {self.capacity} slots. Training has diverged, or weights were "
                "assigned by hand; load a sound checkpoint."
            )

    def view(self, measured: Measurements, indices: tf.Tensor | None = None) -> Connections:
        """What policies see of all active connections, or of those at `indices`."""
        active, values = self.active_connections()
        is_active = tf.ones(tf.shape(active), bool)
        weight = values
        if indices is None:
            indices = active
        else:
            slots, is_active = _find(active, indices)
            weight = tf.where(is_active, tf.gather(values, slots), 0) if len(active) else None
            weight = tf.zeros(tf.shape(indices), values.dtype) if weight is None else weight
        shape = self.kernel_shape
        connections = measured.connections(weight, is_active, shape, self.l1, indices)
        if Gradient() not in connections.statistics:
            return connections
        gradient = connections[Gradient()] + self._penalty_gradient(weight)
        statistics = {**connections.statistics, Gradient(): gradient}
        return dataclasses.replace(connections, statistics=statistics)

    def _penalty_gradient(self, weight):
        """What the regularizer adds to dL/dw, weight by weight; 0 at weights of 0."""
        if self.kernel_regularizer is None:
            return tf.zeros_like(weight)
        with tf.GradientTape() as tape:
            tape.watch(weight)
            penalty = self.kernel_regularizer(weight)
        return tape.gradient(penalty, weight, unconnected_gradients="zero")

    def growth_candidates(
        self, count: int, score: Score, measured: Measurements, freed: tf.Tensor | None = None
    ) -> Candidates:
        active, _ = self.active_connections()
        if freed is not None:
            active = tf.constant(np.setdiff1d(active, freed, assume_unique=True))
        return best_dormant(
            self.kernel_shape,
            active,
            count,
            score,
            measured.statistics,
            l1=self.l1,
            layer_index=measured.layer_index,
            step=measured.step,
            search=measured.search,
        )

    def pruning_candidates(self, count: int, score: Score, measured: Measurements) -> Candidates:
        connections = self.view(measured.seen_by(score))
        count = min(count, len(connections.weight))
        found = best_candidates(-score(connections), connections.active, count)
        active, _ = self.active_connections()
        return found._replace(indices=tf.gather(active, found.indices))

    def grow_connections(self, indices, values=None, gradient=None):
        indices = self.check_indices(indices)
        active, _ = self.active_connections()
        slots, is_active = _find(active, indices)
        if bool(tf.reduce_any(is_active)):
            raise ValueError(
                "Only dormant connections can be grown. Received: indices of active ones, such as "
                f"{indices[is_active][:5].numpy()}, for layer {self.name!r}"
            )
        values = self.check_values(indices, values, self.values.value.dtype)
        if len(indices) > self.num_free:
            raise ValueError(
                f"Layer {self.name!r} can hold {self.capacity} connections, and {self.num_free} "
                f"of its slots are free. Received: {len(indices)} connections to grow. Make a copy "
                "with more slots: `keras_grow.make_sparse(model, capacity=...)`."
            )
        order = np.argsort(indices.numpy())
        before, new = active.numpy(), indices.numpy()[order]
        insertions = np.searchsorted(before, new)
        came_from = np.insert(np.arange(len(before)), insertions, _NOWHERE)
        changes = self._hold(np.insert(before, insertions, new), came_from)
        slots = insertions + np.arange(len(new))
        values = tf.gather(values, order)
        self.values.assign(tf.tensor_scatter_nd_update(self.values.value, slots[:, None], values))
        return changes

    def prune_connections(self, indices):
        indices = self.check_indices(indices)
        active, _ = self.active_connections()
        slots, is_active = _find(active, indices)
        if not bool(tf.reduce_all(is_active)):
            raise ValueError(
                "Only active connections can be pruned. Received: indices of dormant ones, such as "
                f"{indices[~is_active][:5].numpy()}, for layer {self.name!r}"
            )
        came_from = np.delete(np.arange(len(active)), slots.numpy())
        return self._hold(active.numpy()[came_from], came_from)

    def _hold(self, connections: np.ndarray, came_from: np.ndarray) -> list[StorageChange]:
        """Holds other connections than before.

        Args:
            connections: their flat indices, int64, ascending.
            came_from: the slot from which each keeps its weight, or `_NOWHERE`; it starts at 0.
        """
        # Sorting runs on the host, in NumPy; weights and optimizer slots stay on their device.
        num_before, num_now = self.num_active, len(connections)
        moved_from = np.arange(self.capacity)
        stays = came_from != _NOWHERE
        moved_from[:num_now][stays] = came_from[stays]
        fresh = np.concatenate([np.flatnonzero(~stays), np.arange(num_now, num_before)])
        fresh, moved_from = tf.constant(fresh, tf.int64), tf.constant(moved_from, tf.int64)
        values = tf.gather(self.values.value, moved_from)
        zeros = tf.zeros(tf.shape(fresh), values.dtype)
        self.values.assign(tf.tensor_scatter_nd_update(values, fresh[:, None], zeros))
        arrays = Layout.of(connections, self.kernel_shape, self.capacity).arrays()
        for name, variable in self._layout().items():
            assign_unguarded(variable, arrays[name])
        return [StorageChange(self.values, fresh, moved_from)]

    def save_own_variables(self, store):
        connections, values = self.active_connections()
        store["connections"], store["values"] = connections.numpy(), values.numpy()
        # Rounded down, the mean of two files' connections may well look like other connections.
        store["checksum"] = np.int64(_checksum(connections.numpy()))
        if self.bias is not None:
            store["bias"] = self.bias.numpy()

    def load_own_variables(self, store):
        expected = {"checksum", "connections", "values"}
        expected |= {"bias"} if self.bias is not None else set()
        if set(store.keys()) != expected:
            raise ValueError(
                f"Layer {self.name!r} expected saved arrays {sorted(expected)}. "
                f"Received: {sorted(store.keys())}"
            )
        connections, values = np.asarray(store["connections"]), np.asarray(store["values"])
        is_ascending = bool(np.all(np.diff(connections) > 0))
        inside = len(connections) == 0 or (
            connections[0] >= 0 and connections[-1] < self.num_connections
        )
        fits = connections.ndim == 1 and len(connections) <= self.capacity
        if not (fits and is_ascending and inside and connections.shape == values.shape):
            raise ValueError(
                f"Layer {self.name!r}, a kernel of shape {self.kernel_shape} with a capacity of "
                f"{self.capacity}, can't hold what was saved. Received: connections of shape "
                f"{connections.shape}{'' if is_ascending and inside else ', out of range or order'}"
                f", values of shape {values.shape}. Build it with the capacity of the saved one."
            )
        if int(store["checksum"][()]) != _checksum(connections):
            raise ValueError(
                f"Layer {self.name!r} was saved with other connections than the file holds. "
                "Received: connections that do not match their checksum, as the mean of several "
                "files has. To average models, convert them with `keras_grow.make_growable` first."
            )
        if self.bias is not None:
            self.bias.assign(store["bias"])
        self._hold(connections.astype(np.int64), np.full(len(connections), _NOWHERE))
        missing = self.capacity - len(values)
        self.values.assign(np.pad(values.astype(self.values.dtype), (0, missing)))


def _checksum(connections: np.ndarray) -> int:
    """32 bits that say of connections, and of their dtype, whether they are as they were saved."""
    return zlib.crc32(connections.dtype.kind.encode() + connections.astype("<i8").tobytes())


def _find(active: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The slots of `indices` among the ascending `active`, and which of them are there."""
    if len(active) == 0:
        return tf.zeros(tf.shape(indices), tf.int64), tf.zeros(tf.shape(indices), bool)
    slots = tf.searchsorted(active, indices, out_type=tf.int64)
    slots = tf.minimum(slots, len(active) - 1)
    return slots, tf.gather(active, slots) == indices
