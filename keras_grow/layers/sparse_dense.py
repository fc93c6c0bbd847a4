"""SparseDense: a Dense layer that holds its active connections and nothing else."""

import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_grow.connections import selection
from keras_grow.connections.densities import (
    FanIn,
    initial_count,
    seed_connections,
)
from keras_grow.connections.scores import Score
from keras_grow.connections.tiled_search import best_dormant
from keras_grow.connections.view import Connections
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import Evidence, StorageChange
from keras_grow.layers.initializers import ActiveFanIn, draw
from keras_grow.layers.masked import keep_active
from keras_grow.layers.observer import current_observer
from keras_grow.layers.sparse_layout import Layout, array_names
from keras_grow.layers.sparse_product import sparse_matmul

# They look at a kernel's columns or at its shape, which a list of connections does not have.
_CONSTRAINTS_OF_COLUMNS = (
    keras.constraints.MaxNorm,
    keras.constraints.MinMaxNorm,
    keras.constraints.UnitNorm,
)


class _UsedSlots(keras.regularizers.Regularizer, keras.constraints.Constraint):
    """Shows the user's regulariser, or constraint, the slots in use; the others count as 0."""

    def __init__(self, layer: "SparseDense", function: Callable | None):
        self._layer = layer
        self._function = function

    def __call__(self, values):
        is_used = self._layer.inputs_of_slots < self._layer.kernel_shape[0]
        values = keep_active(values, is_used)
        if self._function is None:
            return values
        result = self._function(values)
        return keep_active(result, is_used) if result.shape == values.shape else result


@keras.saving.register_keras_serializable(package="keras_grow")
class SparseDense(DenseLike):
    r"""A Dense layer whose memory and time follow its active connections, not its size.

    $$ y = \mathrm{activation}(x W + b) $$

    computes what `GrowableDense` computes, and holds no array of the size of W: its weights are
    a list of `capacity` slots, one for each connection that may be active at a time. A step
    costs time and memory in proportion to the capacity, in training too, so that layers can be
    far wider than a dense kernel would fit. Below a density of about 10% it is the faster of the
    two as well.

    Any unit may take any share of the slots. When all are taken, growth says so, and
    `keras_grow.make_sparse(model, capacity=...)` makes a copy of the model with more.

    Regularisers and constraints must work weight by weight, as L1, L2 and `NonNeg` do. Lamb and
    Adafactor, whose steps depend on a layer's weights together, are refused by growth and
    pruning; Muon treats the list of weights as it treats biases, by AdamW.

    Args:
        units: positive integer, the size of the output's last axis.
        activation, use_bias, bias_initializer, kernel_regularizer, bias_regularizer,
            activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Dense`.
        kernel_initializer: an initialiser that draws weights one by one: those that scale with
            the fan, normal, uniform and constant ones; by default
            `keras_grow.ActiveFanIn("glorot_uniform")`, which scales to the inputs that each unit
            really has.
        capacity: how many connections the layer can hold: an integer counts connections, a float
            from 0 to 1 is a density, `keras_grow.FanIn(8)` is 8 times the units. By default as
            many as start active.
        initial_density: the share of connections that start active, at random, at least one
            input per unit where the count allows: a float from 0 to 1, or a `FanIn`. By default
            the capacity is filled.
        seed: non-negative integer that fixes which; `None` follows
            `keras.utils.set_random_seed`.

    Input shape:
        `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        values: variable of shape `(capacity,)`, the weights by slot, in the order of
            `active_connections`; free slots stand behind.
        bias: variable of shape `(units,)`, or `None`.
        capacity: integer, once built.
        num_connections, num_active, num_free, density: counts, now.

    Raises:
        ValueError: for units, densities, capacities or seeds out of range, and for initialisers,
            regularisers and constraints that need a whole kernel.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.SparseDense(
    ...     65_536, initial_density=keras_grow.FanIn(2), capacity=keras_grow.FanIn(4), seed=0
    ... )
    >>> layer(np.ones((2, 65_536), "float32")).shape
    TensorShape([2, 65536])
    >>> layer.num_active, layer.capacity, layer.num_connections
    (131072, 262144, 4294967296)

    Reference: the order of the connections in memory is this package's own, `sparse_layout`.
    """

    is_sparse = True

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer=None,
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        capacity=None,
        initial_density=None,
        seed=None,
        **kwargs,
    ):
        if kernel_initializer is None:
            kernel_initializer = ActiveFanIn("glorot_uniform")
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            initial_density=0.0 if initial_density is None else initial_density,
            seed=seed,
            **kwargs,
        )
        if initial_density is None:
            self.initial_density = None
        if isinstance(capacity, dict):
            capacity = keras.saving.deserialize_keras_object(capacity)
        self.capacity = capacity
        self._check_capacity()
        if isinstance(self.kernel_regularizer, keras.regularizers.OrthogonalRegularizer):
            raise ValueError(
                "The regulariser of a sparse kernel must work weight by weight, as L1 and L2 do. "
                f"Received: kernel_regularizer={self.kernel_regularizer!r}"
            )
        if isinstance(self.kernel_constraint, _CONSTRAINTS_OF_COLUMNS):
            raise ValueError(
                "The constraint of a sparse kernel must work weight by weight, as NonNeg does. "
                f"Received: kernel_constraint={self.kernel_constraint!r}"
            )

    def _check_capacity(self):
        capacity = self.capacity
        if capacity is None and self.initial_density is None:
            raise ValueError(
                "A sparse layer needs to know how many connections to hold. Received: neither "
                "`capacity` nor `initial_density`. Pass `capacity=keras_grow.FanIn(32)`, a number "
                "of connections, or a density."
            )
        is_count = isinstance(capacity, (int, np.integer)) and not isinstance(capacity, bool)
        is_density = isinstance(capacity, float) and 0 < capacity <= 1
        if not (capacity is None or is_density or isinstance(capacity, FanIn)) and not (
            is_count and capacity > 0
        ):
            raise ValueError(
                "`capacity` must be a positive integer (connections), a float from 0 to 1 (a "
                f"density) or a keras_grow.FanIn. Received: capacity={capacity!r}"
            )

    def _build_kernel(self, shape):
        num_connections = math.prod(shape)
        capacity = self.capacity
        if isinstance(capacity, (float, FanIn)):
            capacity = initial_count(capacity, shape)
        if self.initial_density is None:
            count = min(capacity, num_connections)
        else:
            count = initial_count(self.initial_density, shape)
        capacity = count if capacity is None else min(capacity, num_connections)
        self.capacity = max(1, int(capacity))
        if count > self.capacity:
            raise ValueError(
                f"`initial_density` asks for {count} connections of a kernel of shape {shape}, "
                f"more than the capacity holds. Received: initial_density={self.initial_density!r},"
                f" capacity={self.capacity}"
            )
        self._kernel_shape = shape
        connections = seed_connections(shape, count, self.seed)
        layout = Layout.of(connections, shape, self.capacity)

        def initial_values(_, dtype):
            values = draw(self.kernel_initializer, shape, connections, dtype)
            return ops.pad(values, [[0, self.capacity - count]])

        regularizer = self.kernel_regularizer and _UsedSlots(self, self.kernel_regularizer)
        self.values = self.add_weight(
            name="values",
            shape=(self.capacity,),
            initializer=initial_values,
            regularizer=regularizer,
            constraint=_UsedSlots(self, self.kernel_constraint),
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

    def _multiply(self, inputs):
        product = current_observer().product(self, inputs)
        if product is not None:
            return product
        inputs = tf.cast(inputs, self.compute_dtype)
        values = tf.cast(self.values.value, self.compute_dtype)
        layout = {name: tf.convert_to_tensor(v.value) for name, v in self._layout().items()}
        leading = tf.shape(inputs)[:-1]
        rows = tf.reshape(inputs, [-1, self.kernel_shape[0]])
        outputs = sparse_matmul(rows, values, layout)
        if inputs.shape.rank == 2:
            return outputs
        outputs = tf.reshape(outputs, tf.concat([leading, [self.units]], axis=0))
        return tf.ensure_shape(outputs, [*inputs.shape[:-1], self.units])

    @property
    def inputs_of_slots(self) -> keras.Variable:
        """int64 variable of shape `(capacity,)`: each connection's input, `inputs` if free."""
        self._check_built()
        return self.layout_inputs

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
        is_used = self.inputs_of_slots.value < self.kernel_shape[0]
        return int(tf.math.count_nonzero(is_used))

    @property
    def num_free(self):
        return min(self.capacity, self.num_connections) - self.num_active

    def active_connections(self):
        count = self.num_active
        flat = self.layout_inputs.value * self.units + self.layout_units.value
        return flat[:count], self.values.value[:count]

    def check_finite(self):
        bad = int(tf.math.count_nonzero(~tf.math.is_finite(self.values.value)))
        if bad:
            raise ValueError(
                f"Layer {self.name!r} stores weights that are NaN or infinite. Received: {bad} of "
                f"its {self.capacity} slots. Training has diverged, or weights were assigned by "
                "hand; load a sound checkpoint."
            )

    def view(self, evidence: Evidence, indices: tf.Tensor | None = None) -> Connections:
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
        gradient, input_rms = evidence.gradient, evidence.input_rms
        if gradient is not None:
            gradient = tf.cast(gradient.at(indices), weight.dtype)
            gradient += self._penalty_gradient(weight)
        if input_rms is not None:
            input_rms = tf.cast(tf.gather(input_rms, indices // self.units), weight.dtype)
        return Connections(
            weight=weight,
            active=is_active,
            gradient=gradient,
            input_rms=input_rms,
            l1=self._l1,
            layer_index=evidence.layer_index,
            first_index=0,
            step=evidence.step,
        )

    @property
    def _l1(self) -> float:
        return float(getattr(self.kernel_regularizer, "l1", 0.0))

    def _penalty_gradient(self, weight):
        """What the regulariser adds to dL/dw, weight by weight; 0 at weights of 0."""
        if self.kernel_regularizer is None:
            return tf.zeros_like(weight)
        with tf.GradientTape() as tape:
            tape.watch(weight)
            penalty = self.kernel_regularizer(weight)
        return tape.gradient(penalty, weight, unconnected_gradients="zero")

    def propose_growth(self, count: int, score: Score, evidence: Evidence) -> selection.Proposal:
        return best_dormant(
            self.kernel_shape,
            self.active_connections()[0],
            min(count, self.num_free),
            score,
            gradient=evidence.gradient,
            input_rms=evidence.input_rms,
            l1=self._l1,
            layer_index=evidence.layer_index,
            step=evidence.step,
            search=evidence.search,
        )

    def propose_pruning(self, count: int, score: Score, evidence: Evidence) -> selection.Proposal:
        connections = self.view(evidence)
        count = min(count, len(connections.weight))
        proposal = selection.best_candidates(-score(connections), connections.active, count)
        active, _ = self.active_connections()
        return proposal._replace(indices=tf.gather(active, proposal.indices))

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
        new = np.sort(np.concatenate([active.numpy(), indices.numpy()]))
        changes = self._hold(active.numpy(), new)
        slots = np.searchsorted(new, indices.numpy())
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
        return self._hold(active.numpy(), np.delete(active.numpy(), slots.numpy()))

    def _hold(self, before: np.ndarray, after: np.ndarray) -> list[StorageChange]:
        """Holds other connections; those that stay keep their weights, new ones start at 0."""
        # Sorting runs on the host, in NumPy; weights and optimizer slots stay on their device.
        moved_from = np.arange(self.capacity)
        place = np.searchsorted(before, after)
        place[place == len(before)] = 0
        stays = before[place] == after if len(before) else np.zeros(len(after), bool)
        moved_from[: len(after)][stays] = place[stays]
        fresh = np.flatnonzero(~stays)
        freed = np.arange(len(after), len(before))
        fresh = tf.constant(np.concatenate([fresh, freed]), tf.int64)
        values = tf.gather(self.values.value, moved_from)
        zeros = tf.zeros(tf.shape(fresh), values.dtype)
        self.values.assign(tf.tensor_scatter_nd_update(values, fresh[:, None], zeros))
        arrays = Layout.of(after, self.kernel_shape, self.capacity).arrays()
        for name, variable in self._layout().items():
            variable.assign(arrays[name])
        return [StorageChange(self.values, fresh, tf.constant(moved_from))]

    def save_own_variables(self, store):
        connections, values = self.active_connections()
        store["connections"], store["values"] = connections.numpy(), values.numpy()
        if self.bias is not None:
            store["bias"] = self.bias.numpy()

    def load_own_variables(self, store):
        expected = {"connections", "values"} | ({"bias"} if self.bias is not None else set())
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
        if self.bias is not None:
            self.bias.assign(store["bias"])
        self._hold(np.zeros(0, np.int64), connections.astype(np.int64))
        missing = self.capacity - len(values)
        self.values.assign(np.pad(values.astype(self.values.dtype), (0, missing)))

    def get_config(self):
        capacity = keras.saving.serialize_keras_object(self.capacity)
        return {**super().get_config(), "capacity": capacity}


def _find(active: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The slots of `indices` among the ascending `active`, and which of them are there."""
    if len(active) == 0:
        return tf.zeros(tf.shape(indices), tf.int64), tf.zeros(tf.shape(indices), bool)
    slots = tf.searchsorted(active, indices, out_type=tf.int64)
    slots = tf.minimum(slots, len(active) - 1)
    return slots, tf.gather(active, slots) == indices
