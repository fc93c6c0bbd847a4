"""Which layers read the units of a layer, and how.

Keras has no public access to the calls that make up a model. This file, and no other, relies on
`_keras_history` of the symbolic tensors (operation, node, position) and on `_inbound_nodes` of
layers, whose nodes have `input_tensors` and `output_tensors`. `tests/test_topology.py` holds it
to that, and names the versions of Keras it was run on.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.compatibility import check_is_keras_model
from keras_grow.layers.growable import Growable
from keras_grow.layers.mean_only_batch_normalization import MeanOnlyBatchNormalization

_POOLING = (
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
_ELEMENT_BY_ELEMENT = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Identity,
    keras.layers.ActivityRegularization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
_PLAIN_READERS = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


class UnitsNotFollowed(ValueError):
    """Raised where something reads the units of a layer in a way that is not known."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where units stand in the input of a layer.

    Attributes:
        layer: the layer.
        indices: int64 array of shape `(units, copies)`, for each unit the positions on the last
            axis of the layer's input that come from it. There is one copy, at the unit's own
            position, unless a Flatten laid several positions side by side.
    """

    layer: keras.Layer
    indices: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Consumer(Place):
    """A layer whose weights read the units of another; see `Place`.

    Its kernel's axis -2 is the last axis of its input, so that `indices` are also the rows of a
    dense kernel, and the input channels of a convolution's, that belong to each unit.

    Attributes:
        passed: the layers between the two, in their order, with the places of the units in each.
        inputs: the symbolic tensor that it reads.
    """

    passed: tuple[Place, ...]
    inputs: keras.KerasTensor = dataclasses.field(repr=False)

    @property
    def is_unit_by_unit(self) -> bool:
        """Whether each value of a unit is read once, neither pooled nor flattened with others."""
        is_pooled = any(type(place.layer) in _POOLING for place in self.passed)
        return self.indices.shape[1] == 1 and not is_pooled


def consumers(model: keras.Model, layer: keras.Layer) -> tuple[Consumer, ...]:
    """The layers that read the units of `layer`, the last axis of its output.

    The output is followed through layers that keep units apart: activations, dropout, noise,
    BatchNormalization on the last axis, pooling, Flatten, Identity.

    Args:
        model: a built Sequential or functional model.
        layer: one of its own layers, called once in it.

    Returns:
        A `Consumer` for each layer with a kernel that the output reaches, in the model's order.

    Raises:
        UnitsNotFollowed: a `ValueError` that names the layer in the way: where the units reach an
            output of the model, or a layer that mixes them or is not known to keep them apart
            (Add, Concatenate, Reshape, Softmax, Lambda, PReLU, layers of your own, nested models),
            and for layers that are shared or stand in a nested model or a wrapper.
    """
    calls = _calls(model)
    own = [call for call in calls if call.operation is layer]
    if len(own) != 1:
        where = "is called more than once" if own else "is no layer of the model itself"
        raise UnitsNotFollowed(
            f"Units can be followed from a layer that the model calls once. Received: layer "
            f"{layer.name!r}, which {where}. Layers of the model: "
            f"{[call.operation.name for call in calls]}"
        )
    if isinstance(layer, keras.Model):
        raise _in_the_way(layer, layer, "it is a nested model")
    _check_channels_last(layer, layer)
    (output,) = own[0].outputs
    identity = np.arange(output.shape[-1], dtype=np.int64)[:, None]
    found: list[Consumer] = []
    open_ends: list[tuple[Any, np.ndarray, tuple[Place, ...]]] = [(output, identity, ())]
    while open_ends:
        tensor, indices, passed = open_ends.pop()
        if any(tensor is out for out in model.outputs):
            raise UnitsNotFollowed(
                "The units of an output layer are what the model answers with; they can't come, "
                f"change or go. Received: layer {layer.name!r}, whose units reach an output of the "
                "model"
            )
        for call in calls:
            if not any(tensor is x for x in call.inputs):
                continue
            reader = call.operation
            if sum(other.operation is reader for other in calls) > 1:
                raise _in_the_way(layer, reader, "it is called more than once")
            _check_channels_last(layer, reader)
            if isinstance(reader, Growable) or type(reader) in _PLAIN_READERS:
                if getattr(reader, "groups", 1) != 1:
                    raise _in_the_way(layer, reader, "its input channels are split into groups")
                found.append(Consumer(reader, indices, passed, tensor))
                continue
            behind = _behind(layer, reader, tensor.shape, indices)
            (output,) = call.outputs
            open_ends.append((output, behind, (*passed, Place(reader, indices))))
    if not keeps_units_apart(getattr(layer, "activation", None)):
        raise _in_the_way(layer, layer, "its activation mixes its units")
    order = {id(call.operation): position for position, call in enumerate(calls)}
    return tuple(sorted(found, key=lambda consumer: order[id(consumer.layer)]))


def kernel_shape(layer: keras.Layer) -> tuple[int, ...]:
    """The shape of the kernel of a growable, Dense or convolution layer, inputs and units last."""
    return layer.kernel_shape if isinstance(layer, Growable) else tuple(layer.kernel.shape)


def keeps_units_apart(activation: Any) -> bool:
    """Whether an activation computes each unit from itself alone, as softmax does not."""
    if activation is None:
        return True
    x, moved = tf.constant([[0.3, -0.7, 1.1]]), tf.constant([[0.3, -0.7, 1.6]])
    y, nudged = tf.convert_to_tensor(activation(x)), tf.convert_to_tensor(activation(moved))
    return y.shape == x.shape and bool(tf.reduce_all(y[:, :2] == nudged[:, :2]))


def readers(model: keras.Model, layer: keras.Layer) -> list[Any]:
    """The layers and operations that read the output of `layer`, in the model's order.

    Raises:
        UnitsNotFollowed: for a subclassed or unbuilt model.
    """
    calls = _calls(model)
    outputs = {id(tensor) for call in calls if call.operation is layer for tensor in call.outputs}
    return [call.operation for call in calls if any(id(x) in outputs for x in call.inputs)]


def _behind(layer, reader, shape: tuple[Any, ...], indices: np.ndarray) -> np.ndarray:
    """Where the units stand behind `reader`, whose input has `shape`."""
    # By type: subclasses may do anything.
    if type(reader) is keras.layers.Flatten:
        if None in shape[1:]:
            raise _in_the_way(layer, reader, f"its input shape {shape} is not known")
        positions = np.arange(math.prod(shape[1:-1]), dtype=np.int64) * shape[-1]
        return (positions[None, :, None] + indices[:, None, :]).reshape(len(indices), -1)
    if type(reader) in (keras.layers.BatchNormalization, MeanOnlyBatchNormalization):
        if reader.axis not in (-1, len(shape) - 1):
            raise _in_the_way(layer, reader, f"it normalises axis {reader.axis}, not the last")
        return indices
    if type(reader) is keras.layers.Activation:
        if not keeps_units_apart(reader.activation):
            raise _in_the_way(layer, reader, "its activation mixes units")
        return indices
    if type(reader) in (*_ELEMENT_BY_ELEMENT, *_POOLING):
        return indices
    raise _in_the_way(layer, reader, "it is not known to keep units apart")


def _check_channels_last(layer, reader) -> None:
    if getattr(reader, "data_format", "channels_last") != "channels_last":
        raise _in_the_way(layer, reader, "its units stand on another axis than the last")


def _in_the_way(layer, reader, why: str) -> UnitsNotFollowed:
    return UnitsNotFollowed(
        "Units can be followed through activations, dropout, BatchNormalization, pooling and "
        f"Flatten to Dense, growable and convolution layers. Received: layer {layer.name!r} with "
        f"{reader.name!r} ({type(reader).__name__}) in the way: {why}."
    )


@dataclasses.dataclass(frozen=True)
class _Call:
    operation: Any
    inputs: list[Any]
    outputs: list[Any]


def _calls(model: keras.Model) -> list[_Call]:
    """Every call of a layer or operation that makes the model's outputs, inputs first."""
    check_is_keras_model(model)
    if getattr(model, "outputs", None) is None:
        raise UnitsNotFollowed(
            "Only built Sequential and functional models know which layer reads which. Received: "
            f"{type(model).__name__}, a subclassed or unbuilt model"
        )
    calls: dict[int, _Call] = {}

    def visit(tensor: Any) -> None:
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if id(node) in calls:
            return
        for source in node.input_tensors:
            visit(source)
        calls[id(node)] = _Call(operation, node.input_tensors, node.output_tensors)

    for output in model.outputs:
        visit(output)
    return list(calls.values())
