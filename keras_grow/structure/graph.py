"""A model as a list of calls and the tensors between them, nested models opened up."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.compatibility import check_is_keras_model
from keras_grow.keras_private import Call, call_that_made
from keras_grow.layers.paths import layer_paths
from keras_grow.structure.cloning import is_graph


class UnitsNotFollowed(ValueError):
    """Raised where something reads the units of a layer in a way that is not known."""


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
        call = call_that_made(tensor)
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
        names: as which argument each of the inputs is given, "" where that can't be told.
        options: the other arguments of the call, by their names.
    """

    layer: Any
    path: str
    inputs: list[Stream]
    outputs: list[Stream]
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Graph:
    """The calls of a Sequential or functional model, nested models opened up.

    Attributes:
        steps: the calls, inputs first.
        streams: all tensors.
        paths: the layers' paths, see `layer_paths`.
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
        self.paths: dict[Any, str] = {**layer_paths(model)}
        self.inputs = [self._stream(tensor) for tensor in model.inputs]
        self.outputs, _ = self._open(model, self.inputs)

    def add_stream(self, count: int) -> Stream:
        """A tensor of some units that stands inside a layer, such as the heads of an attention."""
        return self._stream(keras.KerasTensor((None, count)))

    def _stream(self, tensor: Any) -> Stream:
        shape = tuple(tensor.shape)
        count = shape[-1] if len(shape) > 1 and shape[-1] is not None else 0
        stream = Stream(shape, self._num_units, count)
        self._num_units += count
        self.streams.append(stream)
        return stream

    def _path(self, call: Call, model: keras.Model) -> str:
        if call.operation in self.paths:
            return self.paths[call.operation]
        return "/".join(filter(None, (self.paths[model], call.operation.name)))

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
                names, options = _arguments(call)
                path = self._path(call, model)
                self.steps.append(Step(call.operation, path, sources, made, names, options))
                inside += made
            found |= {id(tensor): stream for tensor, stream in zip(call.outputs, made, strict=True)}
        return [found[id(tensor)] for tensor in model.outputs], inside


def _arguments(call: Call) -> tuple[tuple[str, ...], dict[str, Any]]:
    """As which argument each tensor of a call is given, and the arguments that are none."""
    try:
        parameters = [*inspect.signature(call.operation.call).parameters.values()]
    except (TypeError, ValueError):  # An operation without a signature of its own.
        parameters = []
    positional = [each.name for each in parameters if each.kind == each.POSITIONAL_OR_KEYWORD]
    positional += [""] * (len(call.args) - len(positional))
    given = [
        *zip(positional, call.args, strict=False),
        *((key, call.kwargs[key]) for key in sorted(call.kwargs)),
    ]
    names: list[str] = []
    options: dict[str, Any] = {}
    for name, value in given:
        flat = keras.tree.flatten(value)
        num_tensors = sum(isinstance(each, keras.KerasTensor) for each in flat)
        names += [name] * num_tensors
        if not num_tensors:
            options[name] = value
    return tuple(names), options
