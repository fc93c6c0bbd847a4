"""What plain and growable layers with a kernel have in common."""

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable

_PLAIN = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def has_kernel(layer: keras.Layer) -> bool:
    """Whether a layer applies a kernel, inputs and units on its last two axes, to its input."""
    # Subclasses of plain layers may compute something else.
    return isinstance(layer, Growable) or type(layer) in _PLAIN


def kernel_shape(layer: keras.Layer) -> tuple[int, ...]:
    """The shape of the kernel of a growable, Dense or convolution layer, inputs and units last."""
    return layer.kernel_shape if isinstance(layer, Growable) else tuple(layer.kernel.shape)


def connections_of(layer: keras.Layer) -> tuple[tf.Tensor, tf.Tensor]:
    """Flat indices of a layer's active connections, or of its weights other than 0; the weights."""
    if isinstance(layer, Growable):
        return layer.active_connections()
    kernel = tf.reshape(layer.kernel.value, [-1])
    indices = tf.where(kernel != 0)[:, 0]
    return indices, tf.gather(kernel, indices)


def inputs_of(layer: keras.Layer, connections: tf.Tensor) -> tf.Tensor:
    """Which input, of the kernel's axis -2, each connection leads out of."""
    *_, num_inputs, num_units = kernel_shape(layer)
    return connections // num_units % num_inputs
