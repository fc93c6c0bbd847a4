"""What layers with a `kernel_mask` share.

Three guards keep what a dormant connection stores from reaching anything:

    forward      Select(kernel_mask, kernel, 0)      also where NaN is stored: 0 * NaN would be NaN
    backward     its gradient is 0 there             so optimizers see no reason to move it
    afterwards   the kernel's constraint zeroes it   whatever an optimizer, or its average, did

The mask is always in the graph, at density 1 too: a short cut would be traced into the compiled
step, which a later pruning could not undo.
"""

import abc
import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from keras_grow.layers.checked_saving import CheckedSaving
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.layers.initializers import ActiveFanIn
from keras_grow.layers.observer import current_observer
from keras_grow.policies.densities import FanIn, initial_count, seed_mask
from keras_grow.policies.scores import Score
from keras_grow.policies.view import Connections
from keras_grow.search.flat_arrays import in_place, num_true, replaced, taken
from keras_grow.search.measurements import Measurements
from keras_grow.search.selection import Candidates, best_candidates


def keep_active(kernel, mask):
    """`kernel` with exact zeros wherever `mask` is False, whatever stood there (NaN included)."""
    # `where` takes a slower path for the broadcasting of a scalar zero than `Select` does for
    # zeros of the kernel's shape, and its gradient another pass.
    kernel, mask = ops.convert_to_tensor(kernel), ops.convert_to_tensor(mask)
    return tf.raw_ops.Select(condition=mask, x=kernel, y=tf.zeros_like(kernel))


def scatter(tensor: tf.Tensor, indices: tf.Tensor, values: tf.Tensor | bool | float) -> tf.Tensor:
    """A copy of `tensor` with `values` at flat `indices`."""
    values = tf.broadcast_to(tf.cast(values, tensor.dtype), tf.shape(indices))
    return replaced(tf.convert_to_tensor(tensor), indices, values)


class EffectiveKernelRegularizer(keras.regularizers.Regularizer):
    """Lets a kernel's regularizer see the effective kernel, never what dormant entries store."""

    def __init__(self, layer: "Masked", regularizer: Callable):
        self._layer = layer
        self._regularizer = regularizer

    def __call__(self, stored_kernel):
        return self._regularizer(self._layer.effective_kernel())


class ActiveConstraint(keras.constraints.Constraint):
    """After each update, applies the user's constraint to active entries and zeroes the rest."""

    def __init__(self, mask: keras.Variable, constraint: Callable | None):
        self._mask = mask
        self._constraint = constraint

    def __call__(self, kernel):
        kernel = keep_active(kernel, self._mask)
        if self._constraint is not None:
            kernel = keep_active(self._constraint(kernel), self._mask)
        return kernel


class Masked(CheckedSaving, Growable):
    """A growable layer that stores a whole kernel and a bool mask, True = active.

    A subclass says what is stored: it makes the trainable variables in `_add_kernel`, and the
    effective kernel from them. Another, mixed in, sets `initial_density`, `seed`,
    `kernel_initializer`, `kernel_regularizer` and `kernel_constraint`, and says what the kernel is
    for: `Affine` applies it to inputs.
    """

    initial_density: float | FanIn
    seed: int | None
    kernel_initializer: Callable | None
    kernel_regularizer: Callable | None
    kernel_constraint: Callable | None
    kernel_mask: keras.Variable

    @abc.abstractmethod
    def _add_kernel(self, shape: tuple[int, ...], initializer: Callable) -> None:
        """Creates the trainable variables behind the effective kernel."""

    @property
    @abc.abstractmethod
    def _stored_kernel(self) -> keras.Variable:
        """The trainable variable of the kernel's shape."""

    @abc.abstractmethod
    def _compute_effective_kernel(self) -> tf.Tensor:
        """The effective kernel from the variables."""

    @abc.abstractmethod
    def _wake(
        self, indices: tf.Tensor, values: tf.Tensor, gradient: tf.Tensor | None
    ) -> list[StorageChange]:
        """Stores the weights of connections that are about to become active."""

    @abc.abstractmethod
    def _cut(self, indices: tf.Tensor) -> list[StorageChange]:
        """Stores what the survivors need once the connections at `indices` are dormant."""

    def _build_kernel(self, shape):
        self._add_kernel(shape, self._add_kernel_mask(shape))

    def _add_kernel_mask(self, shape: tuple[int, ...]) -> Callable:
        """Creates `kernel_mask`; returns the initializer of the stored kernel that goes with it."""
        axes = self.axes_for(shape)
        mask = seed_mask(axes, initial_count(self.initial_density, axes), self.seed)
        self.kernel_mask = self.add_weight(
            name="kernel_mask",
            shape=shape,
            dtype="bool",
            initializer=lambda shape, dtype: mask,
            trainable=False,
            autocast=False,
        )

        def masked_initializer(shape, dtype):
            if isinstance(self.kernel_initializer, ActiveFanIn):
                kernel = self.kernel_initializer(shape, dtype, mask=mask, axes=axes)
            else:
                kernel = self.kernel_initializer(shape, dtype=dtype)
            return keep_active(kernel, mask)

        return masked_initializer

    def _effective_kernel_regularizer(self) -> EffectiveKernelRegularizer | None:
        if self.kernel_regularizer is None:
            return None
        return EffectiveKernelRegularizer(self, self.kernel_regularizer)

    def effective_kernel(self) -> tf.Tensor:
        """What multiplies the input: float tensor of `kernel_shape`, 0 at dormant connections."""
        replacement = current_observer().kernel(self)
        return self._compute_effective_kernel() if replacement is None else replacement

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self._stored_kernel.assign(keep_active(self._stored_kernel, self.kernel_mask))

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return tuple(self._mask_variable().shape)

    @property
    def num_connections(self) -> int:
        return math.prod(self.kernel_shape)

    @property
    def num_active(self) -> int:
        return num_true(in_place(tf.convert_to_tensor(self._mask_variable().value)))

    def _mask_variable(self) -> keras.Variable:
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} has no connections before it is built. Call it on a batch, "
                "or build it."
            )
        return self.kernel_mask

    def active_connections(self) -> tuple[tf.Tensor, tf.Tensor]:
        mask = tf.reshape(self._mask_variable().value, [-1])
        indices = tf.where(mask)[:, 0]
        return indices, tf.gather(tf.reshape(self.effective_kernel(), [-1]), indices)

    def check_finite(self, path: str | None = None) -> None:
        stored = self._stored_kernel.value
        finite = tf.math.is_finite(stored)
        if bool(tf.reduce_all(finite)):
            return
        active = self.kernel_mask.value
        raise ValueError(
            f"Layer {path or self.name!r} stores weights that are NaN or infinite. Received: "
            f"{int(tf.math.count_nonzero(~finite & active))} of its active and "
            f"{int(tf.math.count_nonzero(~finite & ~active))} of its dormant connections. Training "
            "has diverged, or weights were assigned by hand; load a sound checkpoint."
        )

    def view(self, measured: Measurements, indices: tf.Tensor | None = None) -> Connections:
        weight, active = self.effective_kernel(), self.kernel_mask.value
        if indices is not None:
            weight, active = taken(weight, indices), taken(active, indices)
        return measured.connections(weight, active, self.kernel_shape, self.l1, indices)

    def growth_candidates(
        self, count: int, score: Score, measured: Measurements, freed: tf.Tensor | None = None
    ) -> Candidates:
        seen = self.view(measured.seen_by(score))
        if freed is not None:
            weight, active = (scatter(a, freed, 0) for a in (seen.weight, seen.active))
            seen = dataclasses.replace(seen, weight=weight, active=active)
        num_dormant = self.num_connections - num_true(in_place(seen.active))
        return best_candidates(score(seen), ~seen.active, min(count, num_dormant))

    def pruning_candidates(self, count: int, score: Score, measured: Measurements) -> Candidates:
        count = min(count, self.num_active)
        scores = score(self.view(measured.seen_by(score)))
        return best_candidates(-scores, self.kernel_mask.value, count)

    def grow_connections(
        self, indices: tf.Tensor, values: tf.Tensor | None = None, gradient: tf.Tensor | None = None
    ) -> list[StorageChange]:
        indices = self._check_activity(self.check_indices(indices), expected_active=False)
        values = self.check_values(indices, values, self._stored_kernel.value.dtype)
        self.check_can_wake(indices, values)
        changes = self._wake(indices, values, gradient)
        self.kernel_mask.assign(scatter(self.kernel_mask.value, indices, True))
        return changes

    def prune_connections(self, indices: tf.Tensor) -> list[StorageChange]:
        indices = self._check_activity(self.check_indices(indices), expected_active=True)
        changes = self._cut(indices)
        self.kernel_mask.assign(scatter(self.kernel_mask.value, indices, False))
        return changes

    def _check_activity(self, indices: tf.Tensor, expected_active: bool) -> tf.Tensor:
        wrong = taken(self.kernel_mask.value, indices) != expected_active
        if bool(tf.reduce_any(wrong)):
            now, wanted = ("dormant", "active") if expected_active else ("active", "dormant")
            raise ValueError(
                f"Only {wanted} connections can be {'pruned' if expected_active else 'grown'}. "
                f"Received: indices of {now} ones, such as {indices[wrong][:5].numpy()}, for layer "
                f"{self.name!r}"
            )
        return indices
