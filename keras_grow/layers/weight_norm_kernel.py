"""A masked kernel that is stored as direction and length: weight normalization."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_grow.layers.growable import StorageChange
from keras_grow.layers.masked import ActiveConstraint, Masked, keep_active, scatter

_HALF_TYPES = ("float16", "bfloat16")
# The deviation with which Salimans & Kingma draw v; the scale for a layer without active weights.
_PAPER_DEVIATION = 0.05
# Lengths of millions of entries are finite where each is smaller than the largest number by that.
_ROOM_FOR_SUMS = 2.0**14


def _norm(v, axes):
    """||v|| per unit, and whether it is positive; 1 in the place of 0, for finite gradients."""
    if axes.has_units_last:
        # The gradient of a bias is the sum over all axes but the last: that of `reduce_sum`, and
        # several times as fast on a CPU.
        squared = tf.raw_ops.BiasAddGrad(out_backprop=tf.square(v))
    else:
        squared = tf.reshape(tf.reduce_sum(tf.square(v), axes.over_inputs()), [-1])
    is_positive = squared > 0
    return ops.sqrt(ops.where(is_positive, squared, ops.ones_like(squared))), is_positive


def _has_weights(v, axes):
    """Which units have a weight other than 0, be it so small that its square is 0."""
    return tf.reshape(tf.reduce_any(v != 0, axes.over_inputs()), [-1])


def _can_be_squared(v, axes):
    """Of which units the squares of |v| are normal numbers, and sums of millions of them."""
    size = _largest_entry(v, axes)
    limits = np.finfo(v.dtype.as_numpy_dtype)
    least, most = np.sqrt(limits.tiny) * _ROOM_FOR_SUMS, np.sqrt(limits.max) / _ROOM_FOR_SUMS
    return (size >= least) & (size <= most)


def _unit_direction(weight, axes):
    """v of entries up to 1 and g, for weights of any size."""
    size = _largest_entry(weight, axes)
    v = tf.math.divide_no_nan(weight, axes.per_unit(size))
    norm, _ = _norm(v, axes)
    return v, size * norm


def _largest_entry(v, axes):
    return tf.reshape(tf.reduce_max(tf.abs(v), axes.over_inputs()), [-1])


def _scale(v, g, axes):
    """g / ||v|| per unit, with one pass over v for its gradient where autodiff takes three."""

    @tf.custom_gradient
    def scale(v, g):
        norm, _ = _norm(v, axes)

        def gradient(upstream):
            to_g = upstream / norm
            return v * axes.per_unit(-to_g * (g / norm) / norm), to_g

        return g / norm, gradient

    return scale(v, g)


class WeightNormKernel(Masked):
    r"""A masked layer with variables `v` and `g`, and the effective kernel

    $$ w = \frac{g}{\lVert v \rVert} v $$

    with the norm per unit over the active entries of $v$, in float32 or better whatever the
    policy. Growing and pruning keep the other weights as they are.
    """

    def _add_kernel(self, shape, initializer):
        dtype = self.variable_dtype
        self.v = self.add_weight(
            name="v",
            shape=shape,
            dtype="float32" if dtype in _HALF_TYPES else dtype,
            autocast=False,
            initializer=initializer,
            regularizer=self._effective_kernel_regularizer(),
            constraint=WeightConstraint(self),
        )
        self._add_gain()

    def _add_gain(self) -> None:
        """Creates `g`, the norms of `v` as it stands."""
        axes = self.axes_for(tuple(self.v.shape))

        def initial_gain(shape, dtype):
            v = keep_active(self.v, self.kernel_mask)
            norm, _ = _norm(v, axes)
            return ops.where(_has_weights(v, axes), norm, ops.zeros_like(norm))

        self.g = self.add_weight(
            name="g",
            shape=(axes.num_units,),
            dtype=self.v.dtype,
            autocast=False,
            initializer=initial_gain,
        )

    @property
    def kernel_variables(self):
        return (self.v, self.g, self.kernel_mask)

    @property
    def _stored_kernel(self):
        return self.v

    def check_finite(self, path=None):
        super().check_finite(path)
        if not bool(tf.reduce_all(tf.math.is_finite(self.g.value))):
            raise ValueError(
                f"Layer {path or self.name!r} stores gains `g` that are NaN or infinite. "
                f"Received: {self.g.numpy()}"
            )
        v = keep_active(self.v, self.kernel_mask)
        norm, _ = _norm(v, self.axes)
        num_bad = int(tf.math.count_nonzero(~tf.math.is_finite(norm)))
        if num_bad:
            raise ValueError(
                f"Layer {path or self.name!r} stores directions `v` too long for {v.dtype.name}, "
                "which squares their entries. Received: entries of up to "
                f"{float(tf.reduce_max(tf.abs(v))):.3g} in {num_bad} units. The length of `v` says "
                "nothing: divide it by its length, and put the size of the weights into `g`."
            )

    def check_can_wake(self, indices, values):
        super().check_can_wake(indices, values)
        largest = np.finfo(self.v.dtype).max / _ROOM_FOR_SUMS
        size = float(tf.reduce_max(tf.abs(tf.concat([values, tf.zeros_like(values[:1])], axis=0))))
        if size > largest:
            raise ValueError(
                f"Layer {self.name!r} keeps the length of each unit's weights in {self.v.dtype}, "
                f"which must hold it. Received: a weight of {size:.3g}, expected "
                f"{largest:.3g} at most"
            )

    def direction(self):
        """v / ||v||, of `kernel_shape`; 0 for units without active inputs."""
        v = keep_active(self.v, self.kernel_mask)
        norm, _ = _norm(v, self.axes)
        return v / self.axes.per_unit(norm)

    def _compute_effective_kernel(self):
        # One product over the whole kernel; g = ||v|| gives w = v exactly.
        v, scale = self._direction_and_scale()
        return v * self.axes.per_unit(scale)

    def _direction_and_scale(self):
        """Masked v, and g / ||v|| per unit: the effective kernel is their product."""
        v = keep_active(self.v, self.kernel_mask)
        return v, _scale(v, tf.convert_to_tensor(self.g.value), self.axes)

    def _wake(self, indices, values, gradient):
        axes = self.axes
        v = keep_active(self.v, self.kernel_mask)
        g = self.g.value
        norm, _ = _norm(v, axes)
        is_alive = _has_weights(v, axes)
        units = axes.units_of(indices)
        new_weight = scatter(tf.zeros_like(v), indices, values)
        has_new_weight = _has_weights(new_weight, axes)
        # g = 0 makes w = 0 whatever v is: given weights then have to bring their own direction.
        starts_over = has_new_weight & (~is_alive | (g == 0))
        scale = tf.where(starts_over, tf.ones_like(g), norm / tf.where(g == 0, 1.0, g))
        new_v = tf.where(axes.per_unit(starts_over), 0.0, v) + new_weight * axes.per_unit(scale)
        new_norm, _ = _norm(new_v, axes)
        new_g = tf.where(starts_over, new_norm, tf.where(has_new_weight, g * new_norm / norm, g))
        is_out_of_range = has_new_weight & ~_can_be_squared(new_v, axes)
        if bool(tf.reduce_any(is_out_of_range)):
            unit_v, length = _unit_direction(v * axes.per_unit(g / norm) + new_weight, axes)
            new_v = tf.where(axes.per_unit(is_out_of_range), unit_v, new_v)
            new_g = tf.where(is_out_of_range, length, new_g)
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
        self.v.assign(tf.where(axes.per_unit(needs_direction), woken, new_v))
        self.g.assign(tf.where(needs_direction, 0.0, new_g))
        born = tf.where(was_touched & (starts_over | needs_direction))[:, 0]
        return [StorageChange(self.v, indices), StorageChange(self.g, born)]

    def _cut(self, indices):
        v = keep_active(self.v, self.kernel_mask)
        norm, _ = _norm(v, self.axes)
        kept = scatter(v, indices, 0.0)
        kept_norm, _ = _norm(kept, self.axes)
        self.v.assign(kept)
        has_inputs = _has_weights(kept, self.axes)
        self.g.assign(tf.where(has_inputs, self.g.value * (kept_norm / norm), 0.0))
        return [StorageChange(self.v, indices)]


class WeightConstraint(ActiveConstraint):
    """Applies the user's constraint to w = g v / ||v||, by setting g and v anew."""

    def __init__(self, layer: WeightNormKernel):
        super().__init__(layer.kernel_mask, None)
        self._layer = layer

    def __call__(self, v):
        v = super().__call__(v)
        constraint = self._layer.kernel_constraint
        if constraint is None:
            return v
        axes = self._layer.axes
        norm, _ = _norm(v, axes)
        w = v * axes.per_unit(ops.convert_to_tensor(self._layer.g) / norm)
        w = keep_active(constraint(w), self._mask)
        w_norm, is_positive = _norm(w, axes)
        self._layer.g.assign(ops.where(is_positive, w_norm, ops.zeros_like(w_norm)))
        # ||v|| stays: it sets how fast the direction learns.
        return ops.where(axes.per_unit(is_positive), w * axes.per_unit(norm / w_norm), v)
