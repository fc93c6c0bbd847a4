"""WeightNormDense: a growable Dense layer with normalised weights."""

import keras
import tensorflow as tf
from keras import ops

from keras_grow.layers.growable import StorageChange
from keras_grow.layers.masked import ActiveConstraint, keep_active, scatter
from keras_grow.layers.masked_dense import MaskedDense

_HALF_TYPES = ("float16", "bfloat16")
# The deviation with which Salimans & Kingma draw v; the scale for a layer without active weights.
_PAPER_DEVIATION = 0.05


def _norm(v):
    """||v|| per unit, and whether it is positive; 1 in the place of 0, for finite gradients."""
    squared = ops.sum(ops.square(v), axis=0)
    is_positive = squared > 0
    return ops.sqrt(ops.where(is_positive, squared, ops.ones_like(squared))), is_positive


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormDense(MaskedDense):
    r"""A growable Dense layer that learns the direction and the length of its weights apart.

    $$ w = \frac{g}{\lVert v \rVert} v, \qquad y = \mathrm{activation}(x w + b) $$

    with the norm per unit over the active entries of the direction $v$, always in float32 or
    better. Initially $g = \lVert v \rVert$, so that $w = v$;
    `keras_grow.initialize_weight_norm(model, data)` sets `g` and `b` from data instead. A unit
    without active inputs outputs its bias, with finite gradients. Regularisers and constraints
    act on $w$. Growing at 0 leaves the function as it was; in a unit that has no active input,
    `v` wakes against the gradient with `g = 0`, so that `g` can learn. Pruning rescales `g` so
    that the surviving weights stay what they were.

    Args:
        units: positive integer, the size of the output's last axis.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Dense`; `kernel_initializer` draws `v`.
        initial_density, seed: as in `keras_grow.GrowableDense`.

    Input shape:
        `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        v: variable of shape `(inputs, units)`, the direction.
        g: variable of shape `(units,)`, the gain.
        kernel_mask: non-trainable bool variable of shape `(inputs, units)`.
        bias: variable of shape `(units,)`, or `None`.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.WeightNormDense(3)
    >>> layer(np.ones((2, 5), "float32")).shape
    TensorShape([2, 3])

    Reference: Salimans, Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate
    Training of Deep Neural Networks", arXiv:1602.07868, equations 2 and 3.
    """

    def _add_kernel(self, shape, initializer):
        dtype = "float32" if self.variable_dtype in _HALF_TYPES else self.variable_dtype
        self.v = self.add_weight(
            name="v",
            shape=shape,
            dtype=dtype,
            autocast=False,
            initializer=initializer,
            regularizer=self._effective_kernel_regularizer(),
            constraint=_WeightConstraint(self),
        )

        def initial_gain(shape, dtype):
            norm, is_positive = _norm(keep_active(self.v, self.kernel_mask))
            return ops.where(is_positive, norm, ops.zeros_like(norm))

        self.g = self.add_weight(
            name="g", shape=(self.units,), dtype=dtype, autocast=False, initializer=initial_gain
        )

    @property
    def kernel_variables(self):
        return (self.v, self.g, self.kernel_mask)

    @property
    def _stored_kernel(self):
        return self.v

    def check_finite(self):
        super().check_finite()
        if not bool(tf.reduce_all(tf.math.is_finite(self.g.value))):
            raise ValueError(
                f"Layer {self.name!r} stores gains `g` that are NaN or infinite. "
                f"Received: {self.g.numpy()}"
            )

    def direction(self):
        """v / ||v||, shape `(inputs, units)`; 0 for units without active inputs."""
        v = keep_active(self.v, self.kernel_mask)
        norm, _ = _norm(v)
        return v / norm

    def _compute_effective_kernel(self):
        # One product over the whole kernel; g = ||v|| gives w = v exactly.
        v = keep_active(self.v, self.kernel_mask)
        norm, _ = _norm(v)
        return v * (ops.convert_to_tensor(self.g) / norm)

    def _wake(self, indices, values, gradient):
        v = keep_active(self.v, self.kernel_mask)
        g = self.g.value
        norm, is_alive = _norm(v)
        units = indices % self.units
        new_weight = scatter(tf.zeros_like(v), indices, values)
        has_new_weight = tf.reduce_any(new_weight != 0, axis=0)
        # g = 0 makes w = 0 whatever v is: given weights then have to bring their own direction.
        starts_over = has_new_weight & (~is_alive | (g == 0))
        scale = tf.where(starts_over, tf.ones_like(g), norm / tf.where(g == 0, 1.0, g))
        new_v = tf.where(starts_over, 0.0, v) + new_weight * scale
        new_norm, _ = _norm(new_v)
        new_g = tf.where(starts_over, new_norm, tf.where(has_new_weight, g * new_norm / norm, g))
        # A dead unit that wakes at 0 has neither dL/dv nor dL/dg; a direction gives it dL/dg.
        was_touched = scatter(tf.zeros_like(g), units, 1.0) > 0
        needs_direction = was_touched & ~is_alive & ~has_new_weight
        downhill = tf.ones_like(values)
        if gradient is not None:
            downhill = tf.where(gradient > 0, -downhill, downhill)
        mean_size = tf.math.divide_no_nan(
            tf.reduce_sum(tf.abs(v)), tf.cast(tf.math.count_nonzero(v), v.dtype)
        )
        size = tf.where(mean_size > 0, mean_size, _PAPER_DEVIATION)
        woken = scatter(tf.zeros_like(v), indices, downhill * size)
        self.v.assign(tf.where(needs_direction, woken, new_v))
        self.g.assign(tf.where(needs_direction, 0.0, new_g))
        born = tf.where(was_touched & (starts_over | needs_direction))[:, 0]
        return [StorageChange(self.v, indices), StorageChange(self.g, born)]

    def _cut(self, indices):
        v = keep_active(self.v, self.kernel_mask)
        norm, _ = _norm(v)
        kept = scatter(v, indices, 0.0)
        kept_norm, is_alive = _norm(kept)
        self.v.assign(kept)
        self.g.assign(tf.where(is_alive, self.g.value * (kept_norm / norm), 0.0))
        return [StorageChange(self.v, indices)]


class _WeightConstraint(ActiveConstraint):
    """Applies the user's constraint to w = g v / ||v||, by setting g and v anew."""

    def __init__(self, layer: WeightNormDense):
        super().__init__(layer.kernel_mask, None)
        self._layer = layer

    def __call__(self, v):
        v = super().__call__(v)
        constraint = self._layer.kernel_constraint
        if constraint is None:
            return v
        norm, _ = _norm(v)
        w = v * (ops.convert_to_tensor(self._layer.g) / norm)
        w = keep_active(constraint(w), self._mask)
        w_norm, is_positive = _norm(w)
        self._layer.g.assign(ops.where(is_positive, w_norm, ops.zeros_like(w_norm)))
        # ||v|| stays: it sets how fast the direction learns.
        return ops.where(is_positive, w * (norm / w_norm), v)
