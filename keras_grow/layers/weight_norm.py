"""WeightNormDense and WeightNormConv2D: growable layers with normalized weights."""

import keras

from keras_grow.layers.conv_like import ConvLike
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.weight_norm_kernel import WeightNormKernel


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormDense(WeightNormKernel, DenseLike):
    r"""A growable Dense layer that learns the direction and the length of its weights apart.

    $$ w = \frac{g}{\lVert v \rVert} v, \qquad y = \mathrm{activation}(x w + b) $$

    with the norm per unit over the active entries of the direction $v$, always in float32 or
    better. Initially $g = \lVert v \rVert$, so that $w = v$;
    `keras_grow.initialize_weight_norm(model, data)` sets `g` and `b` from data instead. A unit
    without active inputs outputs its bias, with finite gradients. Regularizers and constraints
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

    def _apply_own_kernel(self, inputs):
        # Scaling outputs spares three passes over the kernel: w itself, and in the backward pass
        # dL/dw * v and its scaling. In half precision the product with v, whose length is free,
        # could overflow where that with w does not.
        if self.compute_dtype != self.v.dtype:
            return super()._apply_own_kernel(inputs)
        v, scale = self._direction_and_scale()
        return self.apply_kernel(inputs, v) * scale


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormConv2D(WeightNormKernel, ConvLike):
    r"""A growable Conv2D layer that learns the direction and the length of its weights apart.

    $$ w = \frac{g}{\lVert v \rVert} v, \qquad y = \mathrm{activation}(x * w + b) $$

    with the convolution $*$ and one norm per output map, over all places of the window and all
    input maps. Everything else is as in `keras_grow.WeightNormDense`.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups: as in
            `keras_grow.GrowableConv2D`.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Conv2D`; `kernel_initializer` draws `v`.
        initial_density, seed: as in `keras_grow.GrowableConv2D`.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, new_height, new_width, filters)`.

    Attributes:
        v: variable of shape `(*kernel_size, channels, filters)`, the direction.
        g: variable of shape `(filters,)`, the gain.
        kernel_mask: non-trainable bool variable of the shape of `v`.
        bias: variable of shape `(filters,)`, or `None`.

    Raises:
        ValueError: as `keras_grow.GrowableConv2D`.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.WeightNormConv2D(20, 5)
    >>> layer(np.ones((2, 28, 28, 1), "float32")).shape
    TensorShape([2, 24, 24, 20])

    Reference: Salimans, Kingma, arXiv:1602.07868, equations 2 and 3, and section 3, where
    pre-activations of a convolution are normalized per map, over samples and positions.
    """

    rank = 2
    plain_class = keras.layers.Conv2D


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormConv1D(WeightNormKernel, ConvLike):
    """A growable Conv1D layer with normalized weights: `WeightNormConv2D` along one axis.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups: as in
            `keras_grow.GrowableConv1D`.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Conv1D`; `kernel_initializer` draws `v`.
        initial_density, seed: as in `keras_grow.GrowableConv2D`.

    Input shape:
        `(batch, steps, channels)`.

    Output shape:
        `(batch, new_steps, filters)`.

    Attributes:
        v, g, kernel_mask, bias: as in `keras_grow.WeightNormConv2D`, without the second axis.

    Raises:
        ValueError: as `keras_grow.GrowableConv1D`.
    """

    rank = 1
    plain_class = keras.layers.Conv1D
