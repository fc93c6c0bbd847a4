"""What plain and growable layers with a kernel have in common."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.affine import Affine
from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.kernel_types import inner_kernels
from keras_grow.layers.masked import Masked
from keras_grow.search.flat_arrays import in_place
from keras_grow.structure.rules import computing, rule_for

_PLAIN = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


@dataclasses.dataclass(frozen=True, eq=False)
class KernelIn:
    """A kernel that a plain layer of another kind has, and how it is read.

    Attributes:
        layer: the layer that has it.
        kernel: the variable.
        axes: what its axes are.
        name: what it is called.
        masked: the growable layer of the kernel, where it is masked.
    """

    layer: keras.Layer
    kernel: keras.Variable
    axes: KernelAxes
    name: str
    masked: Growable | None = None


def holders_of(layer: keras.Layer) -> dict[int, Any]:
    """What stands for each kernel of a layer, by the `id` of the variable.

    It is a growable layer where the kernel is masked, else a `KernelIn`.
    """
    masked = layer.masked_kernels if isinstance(layer, GrowableKernels) else []
    found: dict[int, Any] = {id(each.inner.variable): each for each in masked}
    for kernel in inner_kernels(computing(layer)):
        variable = kernel.variable
        if id(variable) not in found:
            axes, name = kernel.axes_for(tuple(variable.shape)), kernel.attribute
            found[id(variable)] = KernelIn(kernel.layer, variable, axes, name)
    return found


def reversed_of(holder: Any) -> KernelIn:
    """What stands for a kernel that is read from its units to its inputs."""
    axes = axes_of(holder)
    axes = KernelAxes(axes.shape, inputs=axes.units, units=axes.inputs)
    if isinstance(holder, Growable):
        return KernelIn(holder.inner.layer, holder.inner.variable, axes, holder.name, holder)
    return dataclasses.replace(holder, axes=axes)


def attribute_of(layer: Any, path: str) -> Any:
    """What an attribute of a layer holds, "cell.kernel" of one inside it; `None` for none."""
    for name in filter(None, path.split(".")):
        layer = getattr(layer, name, None)
    return layer


def has_kernel(layer: keras.Layer) -> bool:
    """Whether a layer applies a kernel that mixes the units of its input, and makes others."""
    # Subclasses of plain layers may compute something else; a rule says that units stay apart.
    is_kernel_layer = isinstance(layer, Growable) or type(layer) in _PLAIN
    return is_kernel_layer and rule_for(layer) is None


def axes_of(layer: Any) -> KernelAxes:
    """What the axes of the kernel of a growable, Dense or convolution layer are."""
    if isinstance(layer, Growable | KernelIn):
        return layer.axes
    return KernelAxes(tuple(layer.kernel.shape), num_groups=getattr(layer, "groups", 1))


def connections_of(layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Flat indices of a layer's active connections, or of its weights other than 0; the weights."""
    if isinstance(layer, KernelIn) and layer.masked is not None:
        layer = layer.masked
    if isinstance(layer, Growable):
        return layer.active_connections()
    kernel = tf.reshape(layer.kernel.value, [-1])
    indices = tf.where(kernel != 0)[:, 0]
    return indices, tf.gather(kernel, indices)


def counts_of(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """How many connections lead out of each input of a layer, and into each unit; int64."""
    axes = axes_of(layer)
    is_list = isinstance(layer, Growable) and not isinstance(layer, Masked)
    is_list |= isinstance(layer, KernelIn) and layer.masked is not None
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
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "its units stand on another axis than the last"
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled in it"
    if getattr(layer, "quantization_mode", None) is not None:
        return "it is quantized"
    return None


def why_not_resizable(layer: keras.Layer) -> str | None:
    """Why a layer with a kernel can't be exchanged or have other units, `None` if it can."""
    if isinstance(layer, Growable) and not isinstance(layer, Affine | Inner):
        return "it is a growable layer of your own"
    return why_not_followed(layer)
