"""What plain and growable layers with a kernel have in common."""

import keras
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.affine import Affine
from keras_grow.layers.growable import Growable
from keras_grow.structure.rules import rule_for

_PLAIN = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def has_kernel(layer: keras.Layer) -> bool:
    """Whether a layer applies a kernel that mixes the units of its input, and makes others."""
    # Subclasses of plain layers may compute something else; a rule says that units stay apart.
    is_kernel_layer = isinstance(layer, Growable) or type(layer) in _PLAIN
    return is_kernel_layer and rule_for(layer) is None


def axes_of(layer: keras.Layer) -> KernelAxes:
    """What the axes of the kernel of a growable, Dense or convolution layer are."""
    if isinstance(layer, Growable):
        return layer.axes
    return KernelAxes(tuple(layer.kernel.shape), num_groups=getattr(layer, "groups", 1))


def connections_of(layer: keras.Layer) -> tuple[tf.Tensor, tf.Tensor]:
    """Flat indices of a layer's active connections, or of its weights other than 0; the weights."""
    if isinstance(layer, Growable):
        return layer.active_connections()
    kernel = tf.reshape(layer.kernel.value, [-1])
    indices = tf.where(kernel != 0)[:, 0]
    return indices, tf.gather(kernel, indices)


def why_not_followed(layer: keras.Layer) -> str | None:
    """Why it can't be told which weights of a layer with a kernel a unit has, `None` if it can."""
    if getattr(layer, "groups", 1) != 1:
        return "its input channels are split into groups"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "its units stand on another axis than the last"
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled in it"
    if getattr(layer, "quantization_mode", None) is not None:
        return "it is quantized"
    return None


def why_not_resizable(layer: keras.Layer) -> str | None:
    """Why a layer with a kernel can't be exchanged or have other units, `None` if it can."""
    if isinstance(layer, Growable) and not isinstance(layer, Affine):
        return "it is a growable layer of your own"
    return why_not_followed(layer)
