"""What layers that hold their active connections and nothing else share."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.capacity import atoms_to_start_with
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.layers.guarded import assign_unguarded, guard
from keras_grow.layers.initializers import draw
from keras_grow.layers.slots import Slots
from keras_grow.layers.sparse_candidates import best_to_grow, best_to_prune
from keras_grow.layers.sparse_saving import save, saved_connections
from keras_grow.layers.used_slots import UsedSlotsConstraint, UsedSlotsRegularizer
from keras_grow.policies.densities import FanIn, seed_connections, seed_evenly
from keras_grow.policies.scores import Score
from keras_grow.policies.statistics import Gradient
from keras_grow.policies.view import Connections
from keras_grow.search.atoms import connections_of
from keras_grow.search.measurements import Measurements
from keras_grow.search.selection import Candidates

# Where the weight of a new connection came from.
_NOWHERE = -1


class Sparse(Growable):
    """A growable layer of a two-dimensional kernel that stores its active connections in slots.

    The weights of active connections stand in `values`, where its `Slots` say. A subclass sets
    `capacity`, `initial_density`, `seed`, `kernel_initializer`, `kernel_regularizer` and
    `kernel_constraint`, says which `Slots` it has, calls `_add_connections` when it is built, and
    multiplies with `_product`.
    """

    is_sparse = True

    capacity: Any  # An integer, a density, a `FanIn` or None; an integer once the layer is built.
    initial_density: float | FanIn | None
    seed: int | None
    values: keras.Variable

    @abc.abstractmethod
    def _slots_for(self, shape: tuple[int, int], capacity: int) -> Slots:
        """The slots for so many atoms of a kernel of a shape."""

    def _add_connections(self, shape: tuple[int, int]) -> None:
        """Creates the variables, with the connections that the layer starts with."""
        axes, size = KernelAxes(shape), self.atom_size
        num_atoms, most = atoms_to_start_with(self.capacity, self.initial_density, axes, size)
        self.capacity = most * size
        self._kernel_shape = shape
        self._slots = slots = self._slots_for(shape, most)
        # Groups with equally many atoms are multiplied fastest.
        choose = seed_connections if size == 1 else seed_evenly
        atoms = choose(KernelAxes((shape[0], shape[1] // size)), num_atoms, self.seed)
        arrays, connections = slots.arrays(atoms), (atoms[:, None] * size + np.arange(size)).ravel()

        def initial_values(_, dtype):
            values = draw(self.kernel_initializer, axes, connections, dtype)
            places = tf.reshape(slots.slots_of_atoms(arrays), [-1, 1])
            return tf.scatter_nd(places, values, [slots.num_slots])

        regularizer = None
        if self.kernel_regularizer is not None:
            regularizer = UsedSlotsRegularizer(self, self.kernel_regularizer)
        self.values = self.add_weight(
            name="values",
            shape=(slots.num_slots,),
            initializer=initial_values,
            regularizer=regularizer,
            constraint=UsedSlotsConstraint(self, self.kernel_constraint),
        )
        for name, array in arrays.items():
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
        self._array_names: Sequence[str] = tuple(arrays)
        guard(self._layout(), slots.why_not, lambda: f"layer {self.name!r}")

    def is_used(self) -> tf.Tensor:
        """Which slots hold a connection: bool of the shape of `values`."""
        self._check_built()
        return self._slots.is_used(self._arrays())

    def slots_of(self, connections: tf.Tensor) -> tf.Tensor:
        """Where in `values` the weights of some active connections stand.

        Args:
            connections: int64 of shape `(count,)`, their flat indices.
        """
        arrays = self._arrays()
        numbers, places = connections // self.atom_size, connections % self.atom_size
        atoms = tf.searchsorted(self._slots.atoms(arrays), numbers, out_type=tf.int64)
        slots = tf.reshape(self._slots.slots_of_atoms(arrays), [-1])
        return tf.gather(slots, atoms * self.atom_size + places)

    def _product(self, inputs: tf.Tensor) -> tf.Tensor:
        """The kernel applied to inputs of shape `(batch, inputs)`, in their dtype."""
        return self._slots.product(inputs, tf.cast(self.values.value, inputs.dtype), self._arrays())

    def _layout(self) -> dict[str, keras.Variable]:
        return {name: getattr(self, f"layout_{name}") for name in self._array_names}

    def _arrays(self) -> dict[str, tf.Tensor]:
        layout = self._layout().items()
        return {name: tf.convert_to_tensor(variable.value) for name, variable in layout}

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
        self._check_built()
        return self.atom_size * int(self._slots.num_atoms(self._arrays()))

    @property
    def num_free(self):
        return min(self.capacity, self.num_connections) - self.num_active

    def active_connections(self):
        atoms = self._active_atoms()
        values = self._slots.weights(self.values.value, self._arrays())
        return connections_of(atoms, self.atom_size), values

    def _active_atoms(self) -> tf.Tensor:
        self._check_built()
        atoms = self._slots.atoms(self._arrays())
        # A checkpoint of TensorFlow's, put together from several, passes by every other check.
        if tf.executing_eagerly() and not bool(tf.reduce_all(atoms[1:] > atoms[:-1])):
            raise ValueError(
                f"Layer {self.name!r} holds connections out of order, or twice. Received: indices "
                "that were not read as they were written. Load a sound checkpoint."
            )
        return atoms

    def check_finite(self, path=None):
        bad = int(tf.math.count_nonzero(~tf.math.is_finite(self.values.value)))
        if bad:
            raise ValueError(
                f"Layer {path or self.name!r} stores weights that are NaN or infinite. Received: "
                f"{bad} of its {self._slots.num_slots} slots. Training has diverged, or weights "
                "were assigned by hand; load a sound checkpoint."
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
        active, size = self._active_atoms(), self.atom_size
        if freed is not None:
            atoms = np.asarray(freed)[::size] // size
            active = tf.constant(np.setdiff1d(active, atoms, assume_unique=True))
        return best_to_grow(self.kernel_shape, size, active, count, score, measured, self.l1)

    def pruning_candidates(self, count: int, score: Score, measured: Measurements) -> Candidates:
        measured, active = measured.seen_by(score), self._active_atoms()
        seen = self.view(measured)
        return best_to_prune(
            self.kernel_shape, self.atom_size, active, count, score, measured, seen
        )

    def grow_connections(self, indices, values=None, gradient=None):
        indices = self.check_indices(indices)
        active = self._active_atoms()
        _, is_active = _find(active, indices // self.atom_size)
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
        before, new = active.numpy(), indices.numpy()[order][:: self.atom_size] // self.atom_size
        insertions = np.searchsorted(before, new)
        came_from = np.insert(np.arange(len(before)), insertions, _NOWHERE)
        changes = self._hold(np.insert(before, insertions, new), came_from)
        slots = tf.gather(
            self._slots.slots_of_atoms(self._arrays()), insertions + np.arange(len(new))
        )
        values = tf.gather(values, order)
        self.values.assign(
            tf.tensor_scatter_nd_update(self.values.value, tf.reshape(slots, [-1, 1]), values)
        )
        return changes

    def prune_connections(self, indices):
        indices = self.check_indices(indices)
        active = self._active_atoms()
        places, is_active = _find(active, indices // self.atom_size)
        if not bool(tf.reduce_all(is_active)):
            raise ValueError(
                "Only active connections can be pruned. Received: indices of dormant ones, such as "
                f"{indices[~is_active][:5].numpy()}, for layer {self.name!r}"
            )
        came_from = np.delete(np.arange(len(active)), places.numpy())
        return self._hold(active.numpy()[came_from], came_from)

    def _hold(self, atoms: np.ndarray, came_from: np.ndarray) -> list[StorageChange]:
        """Holds other atoms than before.

        Args:
            atoms: their numbers, int64, ascending.
            came_from: which of the atoms before each is, and keeps its weights, or `_NOWHERE`; it
                starts at 0.
        """
        # Sorting runs on the host, in NumPy; weights and optimizer slots stay on their device.
        arrays = self._slots.arrays(atoms)
        slots_before = self._slots.slots_of_atoms(self._arrays()).numpy()
        slots_now = self._slots.slots_of_atoms(arrays).numpy()
        moved_from = np.arange(self._slots.num_slots)
        stays = came_from != _NOWHERE
        moved_from[slots_now[stays]] = slots_before[came_from[stays]]
        is_left = np.zeros(self._slots.num_slots, bool)
        is_left[slots_before], is_left[slots_now] = True, False
        fresh = np.concatenate([slots_now[~stays].reshape(-1), np.flatnonzero(is_left)])
        fresh, moved_from = tf.constant(fresh, tf.int64), tf.constant(moved_from, tf.int64)
        values = tf.gather(self.values.value, moved_from)
        zeros = tf.zeros(tf.shape(fresh), values.dtype)
        self.values.assign(tf.tensor_scatter_nd_update(values, fresh[:, None], zeros))
        for name, variable in self._layout().items():
            assign_unguarded(variable, arrays[name])
        return [StorageChange(self.values, fresh, moved_from)]

    def save_own_variables(self, store):
        save(self, store)

    def load_own_variables(self, store):
        connections, values = saved_connections(self, store)
        if self.bias is not None:
            self.bias.assign(store["bias"])
        atoms = connections[:: self.atom_size] // self.atom_size
        self._hold(atoms, np.full(len(atoms), _NOWHERE))
        stored = np.zeros(self.values.shape, self.values.dtype)
        stored[self._slots.slots_of_atoms(self._arrays()).numpy().reshape(-1)] = values
        self.values.assign(stored)


def _find(active: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The slots of `indices` among the ascending `active`, and which of them are there."""
    if len(active) == 0:
        return tf.zeros(tf.shape(indices), tf.int64), tf.zeros(tf.shape(indices), bool)
    slots = tf.searchsorted(active, indices, out_type=tf.int64)
    slots = tf.minimum(slots, len(active) - 1)
    return slots, tf.gather(active, slots) == indices
