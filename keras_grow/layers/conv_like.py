"""What growable layers with the arguments of Keras's convolutions share."""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_grow.integers import as_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.affine import Affine, checked_size


class ConvLike(Affine):
    """`activation(convolution(inputs, kernel) + bias)`, with Keras's arguments in Keras's order.

    A connection of a convolution leads from one place of the window and one input map to one
    output map, and is shared by all positions of the window. With groups, units read the input
    maps of their group only. A subclass sets `rank`, the number of the axes along which the window
    moves.
    """

    rank: int
    num_positions = None

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        initial_density=1.0,
        seed=None,
        **kwargs,
    ):
        filters = checked_size("filters", filters)
        groups = checked_size("groups", groups)
        if filters % groups:
            raise ValueError(
                "Groups have equally many filters, expected a divisor of `filters`. Received: "
                f"groups={groups}, filters={filters}"
            )
        if data_format is None:
            data_format = keras.config.image_data_format()
        if data_format != "channels_last":
            raise ValueError(
                "Growable convolutions take inputs with the channels last, as TensorFlow's CPU "
                'does. Expected data_format="channels_last". '
                f"Received: data_format={data_format!r}. Use `keras_grow.GrowableKernels` of "
                "Keras's own layer, where the device computes it."
            )
        super().__init__(
            activation,
            use_bias,
            kernel_initializer,
            bias_initializer,
            kernel_regularizer,
            bias_regularizer,
            activity_regularizer,
            kernel_constraint,
            bias_constraint,
            initial_density=initial_density,
            seed=seed,
            **kwargs,
        )
        self.filters = filters
        self.kernel_size = _per_axis("kernel_size", kernel_size, self.rank)
        self.strides = _per_axis("strides", strides, self.rank)
        self.padding = _known_padding(padding, self.rank)
        self.data_format = data_format
        self.dilation_rate = _per_axis("dilation_rate", dilation_rate, self.rank)
        self.groups = groups
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "TensorFlow has no convolution with strides and dilation, expected one of them to "
                f"be 1. Received: strides={self.strides}, dilation_rate={self.dilation_rate}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    def build(self, input_shape):
        positions = self.compute_output_shape(input_shape)[1:-1]
        super().build(input_shape)
        self.num_positions = None if None in positions else math.prod(positions)
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2, axes={-1: input_shape[-1]})

    def _kernel_shape_for(self, input_shape):
        if input_shape[-1] is None:
            raise ValueError(
                "A convolution must know how many channels its inputs have. "
                f"Received: inputs of shape {tuple(input_shape)} for layer {self.name!r}"
            )
        if input_shape[-1] % self.groups:
            raise ValueError(
                "Groups read equally many input channels, expected a divisor of their number. "
                f"Received: groups={self.groups}, inputs of shape {tuple(input_shape)} for layer "
                f"{self.name!r}"
            )
        return (*self.kernel_size, input_shape[-1] // self.groups, self.filters)

    def axes_for(self, shape):
        return KernelAxes(shape, num_groups=self.groups)

    def apply_kernel(self, inputs, kernel):
        inputs, padding = self._padded(inputs)
        return ops.conv(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def as_rows(self, inputs):
        if self.groups > 1:
            raise ValueError(
                "Units of different groups read other inputs, and see no rows in common. Received: "
                f"layer {self.name!r} with groups={self.groups}. Its growth gradients are measured "
                "by `keras_grow.growth_gradients`."
            )
        inputs, padding = self._padded(inputs)
        # TensorFlow cuts patches out of images only: a sequence is an image of height 1.
        missing = (1,) * (2 - self.rank)
        for _ in missing:
            inputs = tf.expand_dims(inputs, 1)
        patches = tf.image.extract_patches(
            inputs,
            sizes=[1, *missing, *self.kernel_size, 1],
            strides=[1, *missing, *self.strides, 1],
            rates=[1, *missing, *self.dilation_rate, 1],
            padding=padding.upper(),
        )
        return tf.reshape(patches, [-1, self.fan_in])

    def _padded(self, inputs):
        """Inputs with what causal padding adds, and the padding that is left to TensorFlow."""
        if self.padding != "causal":
            return inputs, self.padding
        before = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        return ops.pad(inputs, [[0, 0], [before, 0], [0, 0]]), "valid"

    def compute_output_shape(self, input_shape):
        if len(input_shape) != self.rank + 2:
            raise ValueError(
                f"Expected inputs of rank {self.rank + 2}: batch, {self.rank} axes of positions, "
                f"channels. Received: inputs of shape {tuple(input_shape)} for layer {self.name!r}"
            )
        positions = []
        for size, window, stride, dilation in zip(
            input_shape[1:-1], self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            reach = dilation * (window - 1) if self.padding == "valid" else 0
            positions.append(None if size is None else -((reach - size) // stride))
        if any(count is not None and count <= 0 for count in positions):
            raise ValueError(
                f"The window of layer {self.name!r} has no position in its inputs. Received: "
                f"inputs of shape {tuple(input_shape)}, kernel_size={self.kernel_size}, "
                f"dilation_rate={self.dilation_rate}. Expected larger inputs, a smaller window, "
                'or padding="same".'
            )
        return (input_shape[0], *positions, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
        }


def _per_axis(name: str, value: Any, rank: int) -> tuple[int, ...]:
    """`value`, or one integer for all axes, as one positive integer per axis."""
    given = value if isinstance(value, (tuple, list)) else (value,) * rank
    sizes = [as_integer(size) for size in given]
    if len(sizes) != rank or any(size is None or size <= 0 for size in sizes):
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive integer, or {rank} of "
            f"them, one per axis. Received: {name}={value!r}"
        )
    return tuple(size for size in sizes if size)


def _known_padding(padding: Any, rank: int) -> str:
    known = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    name = padding.lower() if isinstance(padding, str) else padding
    if name not in known:
        raise ValueError(
            f"Received an invalid value for `padding`, expected one of {known}. "
            f"Received: padding={padding!r}"
        )
    return name
