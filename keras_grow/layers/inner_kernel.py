"""Kernels of other layers as growable ones: each has its mask, and the layer keeps its variable."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import StorageChange
from keras_grow.layers.initializers import ActiveFanIn
from keras_grow.layers.kernel_types import InnerKernel
from keras_grow.layers.masked import (
    ActiveConstraint,
    EffectiveKernelRegularizer,
    Masked,
    keep_active,
)
from keras_grow.layers.plain_kernel import PlainKernel
from keras_grow.layers.unquantized import allow_in, refuse_in
from keras_grow.layers.weight_norm_kernel import WeightConstraint, WeightNormKernel


class Inner(Masked):
    """A growable kernel in a layer that knows nothing of it; made by `GrowableKernels`.

    It is a layer of its own beside that layer, so that the verbs find it, and it and its mask are
    saved. The layer's variable gets the regularizer and the constraint that a masked kernel has.

    Args:
        kernel: where the kernel is.
        initial_density, seed: as of `GrowableDense`.
        num_positions: at how many places of one sample it is applied.
    """

    shows_activities = False

    def __init__(
        self, kernel: InnerKernel, initial_density, seed, num_positions: int | None, **kwargs
    ):
        super().__init__(**kwargs)
        self.inner = kernel
        self.initial_density, self.seed = initial_density, seed
        self.num_positions = num_positions
        variable = kernel.variable
        if isinstance(variable.constraint, ActiveConstraint):
            raise ValueError(
                "The connections of a kernel are masked once. Received: "
                f"{variable.path!r}, which is growable already"
            )
        self.kernel_regularizer = variable.regularizer
        self.kernel_constraint = variable.constraint
        self._build_kernel(tuple(variable.shape))
        if variable.regularizer is not None:
            variable.regularizer = EffectiveKernelRegularizer(self, self.kernel_regularizer)
        variable.constraint = self._constraint()
        refuse_in(kernel.layer)
        self.built = True

    @property
    # Other masked layers have an initializer of their own, and may set it.
    def kernel_initializer(self):  # type: ignore[override]
        """What the layer around it draws the kernel by, now: a copy is made with zeros."""
        return getattr(self.inner.layer, _initializer_of(self.inner.attribute), None)

    def _constraint(self) -> keras.constraints.Constraint:
        """What holds the variable after each update."""
        return ActiveConstraint(self.kernel_mask, self.kernel_constraint)

    def set_mask(self, mask: tf.Tensor | np.ndarray) -> None:
        """Makes exactly the connections active that a bool mask names; others become 0."""
        self.kernel_mask.assign(mask)
        self._stored_kernel.assign(keep_active(self._stored_kernel, self.kernel_mask))

    def dormant(self) -> StorageChange:
        """Its dormant connections, whose optimizer slots describe what is no longer theirs."""
        dormant = tf.where(~tf.reshape(self.kernel_mask.value, [-1]))[:, 0]
        return StorageChange(self.inner.variable, dormant)

    def placed_in(self, copies: Mapping[keras.Layer, keras.Layer]) -> InnerKernel:
        """The same kernel in the copy of its layer."""
        return dataclasses.replace(self.inner, layer=copies[self.inner.layer])

    def release(self) -> None:
        """Gives the variable its regularizer and constraint back, with dormant weights at 0."""
        variable = self.inner.variable
        variable.assign(self._compute_effective_kernel())
        variable.regularizer, variable.constraint = self.kernel_regularizer, self.kernel_constraint
        allow_in(self.inner.layer)

    def _add_kernel(self, shape: tuple[int, ...], initializer: Callable) -> None:
        kernel = keep_active(self._stored_kernel, self.kernel_mask)
        if isinstance(self.kernel_initializer, ActiveFanIn):
            kernel = self.kernel_initializer.rescaled(kernel, self.kernel_mask.numpy(), self.axes)
        self._stored_kernel.assign(kernel)

    def axes_for(self, shape):
        return self.inner.axes_for(shape)

    @property
    def trainable(self):
        return super().trainable and self.inner.layer.trainable

    @trainable.setter
    def trainable(self, value):
        keras.Layer.trainable.fset(self, value)

    @property
    def bias(self) -> keras.Variable | None:
        """The variable that is added to what this kernel alone makes, `None` where none is."""
        bias = getattr(self.inner.layer, "bias", None)
        if not isinstance(bias, keras.Variable) or self.inner.attribute != "kernel":
            return None
        return bias if math.prod(bias.shape) == self.axes.num_units else None

    def as_rows(self, inputs):
        raise ValueError(
            f"Kernel {self.name!r} is applied by the {type(self.inner.layer).__name__} that has it"
        )


@keras.saving.register_keras_serializable(package="keras_grow")
class MaskedInner(Inner, PlainKernel):
    """A kernel in another layer, masked."""

    @property
    def kernel(self) -> keras.Variable:
        """The layer's variable."""
        return self.inner.variable

    def _compute_effective_kernel(self):
        if self.inner.is_embedding:
            return _active_table(self.kernel, self.kernel_mask)
        return super()._compute_effective_kernel()


def _active_table(table: keras.Variable, mask: keras.Variable) -> tf.Tensor:
    """`keep_active`, with a gradient of some rows where some rows are looked up.

    An optimizer leaves the others alone then, as Keras's do.
    """

    @tf.custom_gradient
    def active(table):
        def gradient(upstream):
            if not isinstance(upstream, tf.IndexedSlices):
                return keep_active(upstream, mask)
            rows = tf.gather(tf.convert_to_tensor(mask), upstream.indices)
            values = keep_active(upstream.values, rows)
            return tf.IndexedSlices(values, upstream.indices, upstream.dense_shape)

        return keep_active(table, mask), gradient

    return active(tf.convert_to_tensor(table))


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormInner(Inner, WeightNormKernel):
    """A kernel in another layer, masked and normalized: its variable stores directions."""

    @property
    def v(self) -> keras.Variable:
        """The layer's variable."""
        return self.inner.variable

    def _constraint(self):
        return WeightConstraint(self)

    def _add_kernel(self, shape, initializer):
        super()._add_kernel(shape, initializer)
        if self.v.dtype in ("float16", "bfloat16"):
            raise ValueError(
                "Norms are taken in float32 or better. Received: kernel "
                f"{self.v.path!r} of {self.v.dtype}. Use a mixed policy, which stores float32."
            )
        self._add_gain()


def _initializer_of(attribute: str) -> str:
    """What Keras calls the initializer of a kernel: "recurrent_initializer" of the recurrent."""
    if attribute == "kernel" or attribute == "embeddings":
        return f"{attribute}_initializer"
    return attribute.removesuffix("_kernel") + "_initializer"
