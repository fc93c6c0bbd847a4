"""PartialAreaConv2D: a convolution that leaves out parts of its maps."""

import math

import keras
import tensorflow as tf

from keras_grow.layers.conv import GrowableConv2D


@keras.saving.register_keras_serializable(package="keras_grow")
class PartialAreaConv2D(GrowableConv2D):
    r"""A `GrowableConv2D` in which every pair of maps is convolved in a part of the area only.

    $$ y_{pqo} = \mathrm{activation}\Big(\sum_c a_{pqco} \sum_{ij} x_{p+i,q+j,c} w_{ijco} + b_o\Big)
    $$

    with a bool mask $a$ over positions $(p, q)$ for each input map $c$ and output map $o$, True =
    computed. Weights stay as many, FLOPs become fewer: those of a connection count at the
    positions at which its pair of maps is computed. All positions are, at first;
    `keras_grow.areas.prune_areas` finds out which matter little.

    TensorFlow has no convolution that skips positions: training and serving multiply each
    position's patch by the weights that its masks leave, which gives the numbers and the gradients
    of a partial-area convolution, but not its speed.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation,
            use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            activity_regularizer, kernel_constraint, bias_constraint, initial_density, seed: as in
            `keras_grow.GrowableConv2D`.

    Input shape:
        `(batch, height, width, channels)`, of known height and width.

    Output shape:
        `(batch, new_height, new_width, filters)`.

    Attributes:
        area_mask: non-trainable bool variable of shape
            `(new_height, new_width, channels, filters)`.
        kernel, kernel_mask, bias, num_positions, num_connections, num_active, density: as in
            `keras_grow.GrowableConv2D`.

    Raises:
        ValueError: as `GrowableConv2D`, and for inputs of unknown height or width.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.areas.PartialAreaConv2D(3, 5)
    >>> layer(np.ones((2, 12, 12, 2), "float32")).shape
    TensorShape([2, 8, 8, 3])
    >>> tuple(layer.area_mask.shape)
    (8, 8, 2, 3)

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 5 and Algorithm 2.
    """

    plain_class = None

    is_applied_everywhere = False

    def build(self, input_shape):
        super().build(input_shape)
        if self.groups > 1:
            raise ValueError(
                "A partial-area convolution has a mask for each pair of maps, which groups forbid. "
                f"Received: groups={self.groups} for layer {self.name!r}"
            )
        if self.num_positions is None:
            raise ValueError(
                "A partial-area convolution has a mask over its positions, and must know them. "
                f"Received: inputs of shape {tuple(input_shape)} for layer {self.name!r}. Expected "
                "a known height and width, as in `keras.Input((28, 28, 1))`."
            )
        _, height, width, _ = self.compute_output_shape(input_shape)
        self.area_mask = self.add_weight(
            name="area_mask",
            shape=(height, width, *self.kernel_shape[-2:]),
            dtype="bool",
            initializer="ones",
            trainable=False,
            autocast=False,
        )

    def apply_kernel(self, inputs, kernel):
        height, width, channels, filters = self.area_mask.shape
        patches = tf.reshape(self.as_rows(inputs), [-1, height * width, self.fan_in])
        kernel = tf.reshape(kernel, [1, -1, channels, filters])
        area = tf.reshape(self.area_mask.value, [height * width, 1, channels, filters])
        # A kernel for each position. The mask, not a product with it: 0 x NaN is NaN.
        kernels = tf.where(area, kernel, tf.zeros((), kernel.dtype))
        kernels = tf.reshape(kernels, [height * width, self.fan_in, filters])
        outputs = tf.matmul(tf.transpose(patches, [1, 0, 2]), kernels)
        return tf.reshape(tf.transpose(outputs, [1, 0, 2]), [-1, height, width, filters])

    def positions_of(self, indices):
        area = tf.reduce_sum(tf.cast(self.area_mask.value, tf.float64), axis=[0, 1])
        num_pairs = math.prod(self.kernel_shape[-2:])
        return tf.gather(tf.reshape(area, [-1]), indices % num_pairs)
