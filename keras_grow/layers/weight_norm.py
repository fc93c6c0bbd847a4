"""WeightNormDense: a growable Dense layer with normalised weights."""

import keras

from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.weight_norm_kernel import WeightNormKernel


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormDense(WeightNormKernel, DenseLike):
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
