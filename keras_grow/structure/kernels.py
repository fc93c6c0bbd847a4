"""What plain and growable layers with a kernel have in common."""

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.affine import Affine
from keras_grow.layers.growable import Growable
from keras_grow.layers.masked import Masked
from keras_grow.search.flat_arrays import in_place
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


def counts_of(layer: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    """How many connections lead out of each input of a layer, and into each unit; int64."""
    axes = axes_of(layer)
    is_list = isinstance(layer, Growable) and not isinstance(layer, Masked)
    if is_list or axes.num_groups > 1:
        connections, _ = connections_of(layer)
        return axes.count_by_input(connections), axes.count_by_unit(connections)
    # Far fewer numbers than a list of connections would hold.
    if isinstance(layer, Masked):
        active = in_place(tf.convert_to_tensor(layer.kernel_mask.value))
    else:
        active = in_place(layer.kernel.value != 0)
    sides = []
    for kept in (axes.inputs, axes.units):
        rest = [axis for axis in range(-len(axes.shape), 0) if axis not in kept]
        if isinstance(active, np.ndarray):
            counts = np.count_nonzero(active, axis=tuple(rest))
        else:
            counts = tf.math.count_nonzero(active, axis=rest).numpy()
        sides.append(np.reshape(counts, -1))
    return sides[0], sides[1]


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
