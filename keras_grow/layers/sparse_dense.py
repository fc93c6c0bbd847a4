"""SparseDense: a Dense layer that holds its active connections and nothing else."""

import keras
import tensorflow as tf

from keras_grow.layers.affine import checked_size
from keras_grow.layers.capacity import checked_capacity
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.exporters import refuse_other_exporters
from keras_grow.layers.initializers import ActiveFanIn
from keras_grow.layers.observer import current_observer
from keras_grow.layers.own_slots import OwnSlots
from keras_grow.layers.shared_layout import SharedSlots
from keras_grow.layers.slots import Slots
from keras_grow.layers.sparse import Sparse

# They look at a kernel's columns or at its shape, which a list of connections does not have.
_CONSTRAINTS_OF_COLUMNS = (
    keras.constraints.MaxNorm,
    keras.constraints.MinMaxNorm,
    keras.constraints.UnitNorm,
)


@keras.saving.register_keras_serializable(package="keras_grow")
class SparseDense(Sparse, DenseLike):
    r"""A Dense layer whose memory and time follow its active connections, not its size.

    $$ y = \mathrm{activation}(x W + b) $$

    computes what `GrowableDense` computes, and holds no array of the size of W: its weights are
    a list of `capacity` slots, one for each connection that may be active at a time. A step
    costs time and memory in proportion to the capacity, in training too, so that layers can be
    far wider than a dense kernel would fit. Below a density of about 10% it is the faster of the
    two as well.

    With a `group_size` of U, U neighboring units share their inputs: the connections from an input
    into a group come and go together, and a step is a gather and a product of small dense matrices,
    several times as fast. It needs no XLA, and holds the inputs that it gathers: for each sample
    `capacity / group_size` numbers, and an eighth more, by which there are more slots too. Groups
    start with equally many inputs, which is the fastest; where they differ much, so that sums over
    shorter rows are needed, a step takes up to one and a half times as long.

    Any unit may take any share of the slots. When all are taken, growth says so, and
    `keras_grow.make_sparse(model, capacity=...)` makes a copy of the model with more.

    Regularizers and constraints must work weight by weight, as L1, L2 and `NonNeg` do. Lamb and
    Adafactor, whose steps depend on a layer's weights together, are refused by growth and
    pruning; Muon treats the list of weights as it treats biases, by AdamW.

    Weights of several models can be averaged (`get_weights`, `set_weights`) where they have the
    same connections, as they do along a training under `keras.callbacks.SwapEMAWeights` or an
    optimizer with `use_ema`. `set_weights` refuses what are no connections, such as the mean of
    others' indices; convert models that differ with `keras_grow.make_growable`, average, and
    convert back with `keras_grow.make_sparse`.

    Args:
        units: positive integer, the size of the output's last axis.
        activation, use_bias, bias_initializer, kernel_regularizer, bias_regularizer,
            activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Dense`.
        kernel_initializer: an initializer that draws weights one by one: those that scale with
            the fan, normal, uniform and constant ones; by default
            `keras_grow.ActiveFanIn("glorot_uniform")`, which scales to the inputs that each unit
            really has.
        capacity: how many connections the layer can hold: an integer counts connections, a float
            from 0 to 1 is a density, `keras_grow.densities.FanIn(8)` is 8 times the units. By
            default as many as start active.
        initial_density: the share of connections that start active, at random, at least one
            input per unit where the count allows, and one connection in all unless it is 0: a float
            from 0 to 1, or a `FanIn`. By default the capacity is filled.
        seed: non-negative integer that fixes which; `None` follows
            `keras.utils.set_random_seed`.
        group_size: positive integer that divides `units`, how many neighboring units share their
            inputs; by default each has its own. Counts of connections, the capacity and the initial
            ones among them, are multiples of it, rounded down, though not to 0.

    Input shape:
        `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        values: variable, the weights by slot; of shape `(capacity,)`, in the order of
            `active_connections`, free slots behind, where units do not share their inputs. Else
            longer, with slots that are always free between them.
        bias: variable of shape `(units,)`, or `None`.
        capacity: integer, once built.
        atom_size: the `group_size`: how many connections can only come and go together.
        num_connections, num_active, num_free, density: counts, now.

    Raises:
        ValueError: for units, densities, capacities, seeds or group sizes out of range, and for
            initializers, regularizers and constraints that need a whole kernel.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> fan_in = keras_grow.densities.FanIn
    >>> layer = keras_grow.SparseDense(
    ...     65_536, initial_density=fan_in(2), capacity=fan_in(4), seed=0
    ... )
    >>> layer(np.ones((2, 65_536), "float32")).shape
    TensorShape([2, 65536])
    >>> layer.num_active, layer.capacity, layer.num_connections
    (131072, 262144, 4294967296)

    Reference: the order of the connections in memory is this package's own, `sparse_layout`.
    """

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
        group_size=1,
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
        self.group_size = checked_size("group_size", group_size)
        if self.units % self.group_size:
            raise ValueError(
                "`group_size` must divide `units`. "
                f"Received: group_size={self.group_size}, units={self.units}"
            )
        if isinstance(capacity, dict):
            capacity = keras.saving.deserialize_keras_object(capacity)
        self.capacity = checked_capacity(capacity, self.initial_density)
        if isinstance(self.kernel_regularizer, keras.regularizers.OrthogonalRegularizer):
            raise ValueError(
                "The regularizer of a sparse kernel must work weight by weight, as L1 and L2 do. "
                f"Received: kernel_regularizer={self.kernel_regularizer!r}"
            )
        if isinstance(self.kernel_constraint, _CONSTRAINTS_OF_COLUMNS):
            raise ValueError(
                "The constraint of a sparse kernel must work weight by weight, as NonNeg does. "
                f"Received: kernel_constraint={self.kernel_constraint!r}"
            )

    @property
    def atom_size(self):
        return self.group_size

    def _slots_for(self, shape: tuple[int, int], capacity: int) -> Slots:
        if self.group_size == 1:
            return OwnSlots(shape, capacity)
        return SharedSlots(shape, self.group_size, capacity)

    def _build_kernel(self, shape):
        self._add_connections(shape)

    def _linear(self, inputs):
        if isinstance(inputs, tf.SparseTensor):
            inputs = tf.sparse.to_dense(inputs)
        product = current_observer().product(self, inputs)
        if product is not None:
            return product
        refuse_other_exporters(self.name)
        inputs = tf.cast(inputs, self.compute_dtype)
        leading = tf.shape(inputs)[:-1]
        outputs = self._product(tf.reshape(inputs, [-1, self.kernel_shape[0]]))
        if inputs.shape.rank == 2:
            return outputs
        outputs = tf.reshape(outputs, tf.concat([leading, [self.units]], axis=0))
        return tf.ensure_shape(outputs, [*inputs.shape[:-1], self.units])

    def get_config(self):
        capacity = keras.saving.serialize_keras_object(self.capacity)
        config = {**super().get_config(), "capacity": capacity}
        return {**config, "group_size": self.group_size}
