"""GrowableConv1D and GrowableConv2D: convolutions whose connections can be dormant."""

import keras

from keras_grow.layers.conv_like import ConvLike
from keras_grow.layers.plain_kernel import PlainKernel


@keras.saving.register_keras_serializable(package="keras_grow")
class GrowableConv2D(PlainKernel, ConvLike):
    r"""A `keras.layers.Conv2D` whose connections can be dormant, grow and be pruned.

    $$ y = \mathrm{activation}(x * (m \odot W) + b) $$

    with the convolution $*$ and a bool mask $m$, True = active. A connection leads from one place
    of the window and one input map to one output map; all positions of the window share it, and
    its gradient is summed over them. Everything else is as in `keras_grow.GrowableDense`: at
    density 1 outputs, gradients and training are Conv2D's to the bit (without XLA).

    Args:
        filters: positive integer, the number of output maps.
        kernel_size, strides, padding, dilation_rate: as in `keras.layers.Conv2D`.
        data_format: `"channels_last"`, the only one, or `None` where that is Keras's default.
        groups: as in `keras.layers.Conv2D`; every unit may be connected to the input maps of its
            group.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Conv2D`.
        initial_density: float from 0 to 1, the share of connections that start active: an exact
            count, at random, at least one per output map where the count allows; one connection at
            least, unless it is 0.
        seed: non-negative integer that fixes which; `None` follows
            `keras.utils.set_random_seed`.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, new_height, new_width, filters)`.

    Attributes:
        kernel: variable of shape `(*kernel_size, channels // groups, filters)`, what is stored.
        kernel_mask: non-trainable bool variable of the same shape.
        bias: variable of shape `(filters,)`, or `None`.
        num_positions: positions of the window in one input, `new_height * new_width`, once
            built; `None` if built for inputs of any size.
        num_connections, num_active, density: counts, now.

    Raises:
        ValueError: for arguments out of range, groups that do not divide filters and channels,
            channels first, strides together with dilation, and inputs smaller than the window.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.GrowableConv2D(20, 5, initial_density=0.1, seed=0)
    >>> layer(np.ones((2, 28, 28, 1), "float32")).shape
    TensorShape([2, 24, 24, 20])
    >>> layer.num_active, layer.num_connections, layer.num_positions
    (50, 500, 576)

    Reference: Dai, Yin, Jha, "NeST: A Neural Network Synthesis Tool Based on a Grow-and-Prune
    Paradigm", arXiv:1711.02017.
    """

    rank = 2
    plain_class = keras.layers.Conv2D


@keras.saving.register_keras_serializable(package="keras_grow")
class GrowableConv1D(PlainKernel, ConvLike):
    """A `keras.layers.Conv1D` whose connections can be dormant, grow and be pruned.

    It is `keras_grow.GrowableConv2D` along one axis.

    Args:
        filters: positive integer, the number of output maps.
        kernel_size, strides, padding, dilation_rate: as in `keras.layers.Conv1D`; `padding` may be
            `"causal"`.
        data_format, groups: as in `keras_grow.GrowableConv2D`.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Conv1D`.
        initial_density, seed: as in `keras_grow.GrowableConv2D`.

    Input shape:
        `(batch, steps, channels)`.

    Output shape:
        `(batch, new_steps, filters)`.

    Attributes:
        kernel: variable of shape `(kernel_size, channels, filters)`, what is stored.
        kernel_mask, bias, num_positions, num_connections, num_active, density: as in
            `keras_grow.GrowableConv2D`.

    Raises:
        ValueError: as `keras_grow.GrowableConv2D`.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.GrowableConv1D(8, 3, padding="causal", initial_density=0.5, seed=0)
    >>> layer(np.ones((2, 10, 4), "float32")).shape
    TensorShape([2, 10, 8])
    """

    rank = 1
    plain_class = keras.layers.Conv1D
