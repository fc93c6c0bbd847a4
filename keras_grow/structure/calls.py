"""The calls that make up a Sequential or functional model.

Keras has no public access to them. This file, and no other, relies on `_keras_history` of the
symbolic tensors (operation, node, position) and on `_inbound_nodes` of layers, whose nodes have
`input_tensors` and `output_tensors`. `tests/structure/test_topology.py` holds it to that, and
names the versions of Keras it was run on.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_grow.compatibility import check_is_keras_model


class UnitsNotFollowed(ValueError):
    """Raised where something reads the units of a layer in a way that is not known."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation: the symbolic tensors that it took and made, flattened."""

    operation: Any
    inputs: list[Any]
    outputs: list[Any]


def calls_of(model: keras.Model) -> list[Call]:
    """Every call of a layer or operation that makes the model's outputs, inputs first."""
    check_is_keras_model(model)
    if getattr(model, "outputs", None) is None:
        raise UnitsNotFollowed(
            "Only built Sequential and functional models know which layer reads which. Received: "
            f"{type(model).__name__}, a subclassed or unbuilt model"
        )
    calls: dict[int, Call] = {}

    def visit(tensor: Any) -> None:
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if id(node) in calls:
            return
        for source in node.input_tensors:
            visit(source)
        calls[id(node)] = Call(operation, node.input_tensors, node.output_tensors)

    for output in model.outputs:
        visit(output)
    return list(calls.values())


def operation_type(function: Callable) -> type:
    """The class of the operation that a function of two tensors leaves in a model's graph."""
    tensors = keras.KerasTensor((1, 1)), keras.KerasTensor((1, 1))
    return type(function(*tensors)._keras_history.operation)
