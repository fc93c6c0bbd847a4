"""Which layers read the units of a layer, and how."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_grow.structure.calls import UnitsNotFollowed, calls_of
from keras_grow.structure.kernels import has_kernel
from keras_grow.structure.passing import (
    POOLING,
    RESIZING,
    UnitsMixed,
    keeps_units_apart,
    passage,
)


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
        """Whether each value of a unit is read once, neither pooled, repeated nor flattened."""
        is_moved = any(type(place.layer) in (*POOLING, *RESIZING) for place in self.passed)
        return self.indices.shape[1] == 1 and not is_moved


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
    calls = calls_of(model)
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
            if has_kernel(reader):
                if getattr(reader, "groups", 1) != 1:
                    raise _in_the_way(layer, reader, "its input channels are split into groups")
                found.append(Consumer(reader, indices, passed, tensor))
                continue
            try:
                stands_at = passage(reader, tensor.shape)
            except UnitsMixed as mixed:
                raise _in_the_way(layer, reader, str(mixed)) from mixed
            (output,) = call.outputs
            behind = stands_at[indices].reshape(len(indices), -1)
            open_ends.append((output, behind, (*passed, Place(reader, indices))))
    if not keeps_units_apart(getattr(layer, "activation", None)):
        raise _in_the_way(layer, layer, "its activation mixes its units")
    order = {id(call.operation): position for position, call in enumerate(calls)}
    return tuple(sorted(found, key=lambda consumer: order[id(consumer.layer)]))


def readers(model: keras.Model, layer: keras.Layer) -> list[Any]:
    """The layers and operations that read the output of `layer`, in the model's order.

    Raises:
        UnitsNotFollowed: for a subclassed or unbuilt model.
    """
    calls = calls_of(model)
    outputs = {id(tensor) for call in calls if call.operation is layer for tensor in call.outputs}
    return [call.operation for call in calls if any(id(x) in outputs for x in call.inputs)]


def _check_channels_last(layer, reader) -> None:
    if getattr(reader, "data_format", "channels_last") != "channels_last":
        raise _in_the_way(layer, reader, "its units stand on another axis than the last")


def _in_the_way(layer, reader, why: str) -> UnitsNotFollowed:
    return UnitsNotFollowed(
        "Units can be followed through activations, dropout, BatchNormalization, pooling and "
        f"Flatten to Dense, growable and convolution layers. Received: layer {layer.name!r} with "
        f"{reader.name!r} ({type(reader).__name__}) in the way: {why}."
    )
