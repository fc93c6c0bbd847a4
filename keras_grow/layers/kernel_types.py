"""Which variables of Keras's layers are kernels, and what their axes are: a table of layer types.

A layer type that stands here is growable inside `keras_grow.GrowableKernels`, wherever it stands:
by itself, in an attention, in a cell of a recurrent layer, in a block of your own.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from keras_grow.keras_private import CONV_LSTM_CELL
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import layer_paths

AxesOf = Callable[[Any, tuple[int, ...]], KernelAxes]
"""A function of a layer and the shape of a kernel in it, that says what the axes are."""

_KERNELS: dict[type, Mapping[str, AxesOf]] = {}


@dataclasses.dataclass(frozen=True)
class InnerKernel:
    """A kernel that a layer of another kind has.

    Attributes:
        layer: the layer that has it.
        attribute: the attribute of the layer that holds it.
        path: the path of the layer in the one that was looked through, "" for that one itself.
        axes_of: says what the axes are.
    """

    layer: keras.Layer
    attribute: str
    path: str
    axes_of: AxesOf

    @property
    def variable(self) -> keras.Variable:
        """The variable that stores it."""
        return getattr(self.layer, self.attribute)

    @property
    def is_embedding(self) -> bool:
        """Whether its rows are looked up."""
        return isinstance(self.layer, keras.layers.Embedding) and self.attribute == "embeddings"

    def axes_for(self, shape: tuple[int, ...]) -> KernelAxes:
        """What its axes are, given its shape."""
        return self.axes_of(self.layer, shape)

    def why_not_growable(self) -> str | None:
        """Why its connections can't be dormant, `None` if they can."""
        if getattr(self.layer, "lora_enabled", False):
            return "LoRA is enabled in it"
        if getattr(self.layer, "quantization_mode", None) is not None:
            return "it is quantized"
        if not isinstance(self.variable, keras.Variable):
            return f"its {self.attribute} is no variable"
        return None


def register(layer_type: type, **kernels: AxesOf) -> None:
    """Says which variables of a type of layers are kernels, so that they can grow.

    It counts for this type, and for subclasses that compute the same: that have its `call`.

    Args:
        layer_type: a class of layers.
        **kernels: for each attribute that holds a kernel, a function of the layer and the kernel's
            shape that returns its `keras_grow.kernel_types.KernelAxes`.

    Raises:
        TypeError: for other things.

    Example:

    ```python
    keras_grow.kernel_types.register(Bilinear, kernel=lambda layer, shape: KernelAxes(shape))
    ```
    """
    is_class = isinstance(layer_type, type) and issubclass(layer_type, keras.Layer)
    if not is_class or not kernels or not all(map(callable, kernels.values())):
        raise TypeError(
            "Kernels are registered for a class of layers, each by the name of its attribute, as a "
            f"function of the layer and the kernel's shape. Received: {layer_type!r}, {kernels!r}"
        )
    _KERNELS[layer_type] = kernels


def kernels_of(layer: keras.Layer) -> Mapping[str, AxesOf]:
    """The kernels that a layer itself has, by attribute."""
    kind: Any = type(layer)
    for base in kind.__mro__:
        if base in _KERNELS and kind.call is base.call:
            return _KERNELS[base]
    return {}


def is_built(layer: keras.Layer) -> bool:
    """Whether a layer has its kernels.

    Keras counts a layer of one's own as built that builds the layers in it when it is called.
    """
    return layer.built and all(inner.built for inner in layer_paths(layer) if kernels_of(inner))


def inner_kernels(layer: keras.Layer) -> Iterator[InnerKernel]:
    """The kernels of a layer, and of all layers inside it but growable ones, each once."""
    seen = {id(each) for inner in layer_paths(layer) for each in _growable_already(inner)}
    for inner, path in layer_paths(layer).items():
        if isinstance(inner, Growable):
            continue
        for attribute, axes_of in kernels_of(inner).items():
            variable = getattr(inner, attribute, None) if inner.built else None
            if variable is not None and id(variable) not in seen:
                seen.add(id(variable))
                yield InnerKernel(inner, attribute, path, axes_of)


def _growable_already(layer: keras.Layer) -> tuple[keras.Variable, ...]:
    return layer.kernel_variables if isinstance(layer, Growable) and layer.built else ()


def _dense(layer: keras.Layer, shape: tuple[int, ...]) -> KernelAxes:
    return KernelAxes(shape)


def _convolution(layer: Any, shape: tuple[int, ...]) -> KernelAxes:
    return KernelAxes(shape, num_groups=layer.groups)


def _transposed(layer: keras.Layer, shape: tuple[int, ...]) -> KernelAxes:
    return KernelAxes(shape, inputs=(-1,), units=(-2,))


def _depthwise(layer: keras.Layer, shape: tuple[int, ...]) -> KernelAxes:
    return KernelAxes(shape, inputs=(-2,), units=(-2, -1))


def _einsum(layer: Any, shape: tuple[int, ...]) -> KernelAxes:
    """Letters of the kernel that the output lacks are summed over; those of it alone are units.

    One that inputs and outputs have too counts as both: each of its entries has a kernel of its
    own, as each input of a depthwise convolution has.
    """
    read, _, made = layer.equation.replace(" ", "").partition("->")
    read, _, letters = read.partition(",")
    inputs = [i for i, letter in enumerate(letters) if letter in read]
    units = [i for i, letter in enumerate(letters) if letter in made]
    return KernelAxes(shape, tuple(inputs), tuple(units))


_layers = keras.layers

for _type in (_layers.Dense,):
    register(_type, kernel=_dense)
for _type in (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D):
    register(_type, kernel=_convolution)
for _type in (_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose):
    register(_type, kernel=_transposed)
for _type in (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D):
    register(_type, kernel=_depthwise)
for _type in (_layers.SeparableConv1D, _layers.SeparableConv2D):
    register(_type, depthwise_kernel=_depthwise, pointwise_kernel=_dense)
for _type in (_layers.SimpleRNNCell, _layers.LSTMCell, _layers.GRUCell, CONV_LSTM_CELL):
    register(_type, kernel=_dense, recurrent_kernel=_dense)
register(_layers.EinsumDense, kernel=_einsum)
register(_layers.Embedding, embeddings=_dense)
if hasattr(_layers, "ReversibleEmbedding"):  # Since Keras 3.13 or so.
    register(_layers.ReversibleEmbedding, embeddings=_dense, reverse_embeddings=_dense)
