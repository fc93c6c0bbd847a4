"""A model as a list of calls and the tensors between them, nested models opened up."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_grow.compatibility import check_is_keras_model
from keras_grow.keras_private import call_that_made
from keras_grow.layers.paths import layer_paths
from keras_grow.structure.cloning import is_graph


class UnitsNotFollowed(ValueError):
    """Raised where something reads the units of a layer in a way that is not known."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation: the symbolic tensors that it took and made, flattened."""

    operation: Any
    inputs: Sequence[Any]
    outputs: Sequence[Any]


def calls_of(model: keras.Model) -> list[Call]:
    """Every call of a layer or operation that makes the model's outputs, inputs first.

    Raises:
        UnitsNotFollowed: for a subclassed or unbuilt model.
    """
    check_is_keras_model(model)
    if getattr(model, "outputs", None) is None:
        raise UnitsNotFollowed(
            "Only built Sequential and functional models know which layer reads which. Received: "
            f"{type(model).__name__}, a subclassed or unbuilt model"
        )
    calls: dict[int, Call] = {}

    def visit(tensor: Any) -> None:
        call = Call(*call_that_made(tensor))
        key = id(call.outputs[0])
        if key in calls:
            return
        for source in call.inputs:
            visit(source)
        calls[key] = call

    for output in model.outputs:
        visit(output)
    return list(calls.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A tensor that flows from one call to others.

    Attributes:
        shape: its shape, with the batch.
        first: the number of its first unit, counted over all tensors of the model.
        count: how many units it has; 0 where its last axis is not known, or is the batch.
    """

    shape: tuple[int | None, ...]
    first: int
    count: int

    @property
    def units(self) -> np.ndarray:
        """The numbers of its units: int64, ascending."""
        return np.arange(self.first, self.first + self.count)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One call of a layer or operation, those inside nested models included.

    Attributes:
        layer: the layer or operation.
        path: what it is called, see `layer_paths`; of an operation likewise.
        inputs, outputs: what it takes and gives.
    """

    layer: Any
    path: str
    inputs: list[Stream]
    outputs: list[Stream]


class Graph:
    """The calls of a Sequential or functional model, nested models opened up.

    Attributes:
        steps: the calls, inputs first.
        streams: all tensors.
        inputs, outputs: those that the model takes and gives.
        inputs_of_nested: the tensors that a nested model takes in its first call, by its `id`.
        repeats: pairs of tensors that stand for the same one in two calls of a nested model.
    """

    def __init__(self, model: keras.Model):
        self.steps: list[Step] = []
        self.streams: list[Stream] = []
        self.inputs_of_nested: dict[int, list[Stream]] = {}
        self.repeats: list[tuple[Stream, Stream]] = []
        self._insides: dict[int, list[Stream]] = {}
        self._num_units = 0
        calls_of(model)  # Raises for a model that knows no inputs.
        self._paths: dict[Any, str] = {**layer_paths(model)}
        self.inputs = [self._stream(tensor) for tensor in model.inputs]
        self.outputs, _ = self._open(model, self.inputs)

    def _stream(self, tensor: Any) -> Stream:
        shape = tuple(tensor.shape)
        count = shape[-1] if len(shape) > 1 and shape[-1] is not None else 0
        stream = Stream(shape, self._num_units, count)
        self._num_units += count
        self.streams.append(stream)
        return stream

    def _path(self, call: Call, model: keras.Model) -> str:
        if call.operation in self._paths:
            return self._paths[call.operation]
        return "/".join(filter(None, (self._paths[model], call.operation.name)))

    def _open(self, model: keras.Model, inputs: list[Stream]) -> tuple[list[Stream], list[Stream]]:
        """The tensors that a model gives when called on some, and all those inside it."""
        found = {id(tensor): stream for tensor, stream in zip(model.inputs, inputs, strict=True)}
        inside = [*inputs]
        for call in calls_of(model):
            if isinstance(call.operation, keras.layers.InputLayer):
                continue
            sources = [found[id(tensor)] for tensor in call.inputs]
            if is_graph(call.operation):
                made, nested = self._open(call.operation, sources)
                self.inputs_of_nested.setdefault(id(call.operation), sources)
                earlier = self._insides.setdefault(id(call.operation), nested)
                if earlier is not nested:
                    self.repeats += zip(earlier, nested, strict=True)
                inside += nested
            else:
                made = [self._stream(tensor) for tensor in call.outputs]
                self.steps.append(Step(call.operation, self._path(call, model), sources, made))
                inside += made
            found |= {id(tensor): stream for tensor, stream in zip(call.outputs, made, strict=True)}
        return [found[id(tensor)] for tensor in model.outputs], inside
