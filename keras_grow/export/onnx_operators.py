"""TensorFlow's operators that tf2onnx does not know: as ONNX's, or the layer that they are of."""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_grow.layers.paths import layer_paths


def complementary_error_function(graph: Any, node: Any, name: str, args: Any) -> None:
    """Erfc, of which `keras.activations.gelu` is made, as 1 - Erf."""
    replaced = _Replaced(graph, node)
    replaced.by("Sub", [replaced.constant(1), replaced.made("Erf", node.input)])


def exponential_minus_one(graph: Any, node: Any, name: str, args: Any) -> None:
    """Expm1, of which `keras.activations.celu` is made, as Exp - 1."""
    replaced = _Replaced(graph, node)
    replaced.by("Sub", [replaced.made("Exp", node.input), replaced.constant(1)])


def bucketize(graph: Any, node: Any, name: str, args: Any) -> None:
    """Bucketize, of which a `Discretization` is made: how many boundaries are not above a value."""
    types = importlib.import_module("onnx").TensorProto
    is_double = graph.get_dtype(node.input[0]) == types.DOUBLE  # Rounded, it might reach one.
    dtype, kind = (types.DOUBLE, np.float64) if is_double else (types.FLOAT, np.float32)
    replaced = _Replaced(graph, node)
    boundaries = np.array(node.get_attr("boundaries").floats, np.float32).astype(kind)
    builder = importlib.import_module("tf2onnx.graph_builder").GraphBuilder(graph)
    values = replaced.made("Cast", node.input, dtype, to=dtype)
    rank = len(replaced.shape)
    values = builder.make_unsqueeze({"data": values, "axes": [rank]})
    is_below = replaced.made("Less", [values, replaced.constant(boundaries)], types.BOOL)
    is_reached = replaced.made("Not", [is_below], types.BOOL)
    counted = replaced.made("Cast", [is_reached], types.INT32, to=types.INT32)
    total = builder.make_reduce_sum({"data": counted, "axes": [rank], "keepdims": 0})
    replaced.by("Identity", [total])


HANDLERS: Mapping[str, tuple[Any, list]] = {
    "Erfc": (complementary_error_function, []),
    "Expm1": (exponential_minus_one, []),
    "Bucketize": (bucketize, []),
}
"""What tf2onnx is given as `custom_op_handlers`."""


class _Replaced:
    """A node that was taken out of tf2onnx's graph, and what comes in its place."""

    def __init__(self, graph: Any, node: Any):
        self._graph, self._node = graph, node
        self._utils = importlib.import_module("tf2onnx.utils")
        self._dtype = graph.get_dtype(node.output[0])
        self.shape = graph.get_shape(node.output[0])
        graph.remove_node(node.name)

    def constant(self, value: Any) -> str:
        """A constant; a plain number in the type of what the node makes."""
        if not isinstance(value, np.ndarray):
            value = np.array(value, self._utils.map_onnx_to_numpy_type(self._dtype))
        name = self._utils.make_name(self._node.name)
        return self._graph.make_const(name, value).output[0]

    def made(
        self, operator: str, inputs: Sequence[str], dtype: int | None = None, **attributes: Any
    ) -> str:
        """What an operator makes; `dtype` is by default that of what the node makes."""
        return self._graph.make_node(
            operator,
            list(inputs),
            attr=attributes,
            dtypes=[self._dtype if dtype is None else dtype],
        ).output[0]

    def by(self, operator: str, inputs: Sequence[str]) -> None:
        """Makes what the node made by another operator."""
        self._graph.make_node(
            operator,
            list(inputs),
            outputs=self._node.output,
            name=self._node.name,
            shapes=[self.shape],
            dtypes=[self._dtype],
        )


def check_operators(converted: Any, model: Any) -> None:
    """Raises `ValueError` for operators that ONNX does not have, naming the layers they are of.

    Args:
        converted: the `onnx.ModelProto`.
        model: the Keras model that it was made of.
    """
    definitions = importlib.import_module("onnx").defs
    (opset,) = (each.version for each in converted.opset_import if each.domain in ("", "ai.onnx"))
    missing: dict[str, list[str]] = {}
    for node in _nodes(converted.graph):
        if node.domain in ("", "ai.onnx"):
            try:
                definitions.get_schema(node.op_type, max_inclusive_version=opset)
            except definitions.SchemaError:
                missing.setdefault(node.op_type, []).append(node.name)
    if missing:
        found = "; ".join(
            f"{operator} in {', '.join(dict.fromkeys(_layer_of(name, model) for name in names))}"
            for operator, names in missing.items()
        )
        raise ValueError(
            "ONNX can't express the model: it has no operator for some of TensorFlow's. Received: "
            f"{found}. Put what prepares the inputs before the model that is exported, write the "
            "layer with other operations, or use `keras_grow.export_saved_model`."
        )


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of those inside it: bodies of loops, branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _layer_of(name: str, model: Any) -> str:
    """The layers that an operator may be of, by its name: scopes, to which TensorFlow adds "_1"."""
    named: dict[str, list[str]] = {}
    for layer, path in layer_paths(model).items():
        named.setdefault(layer.name, []).append(f"layer {path!r} ({type(layer).__name__})")
    for scope in reversed(name.split("/")[:-1]):
        names = dict.fromkeys([scope, re.sub(r"_\d+$", "", scope)])
        found = [words for each in names for words in named.get(each, [])]
        if found:
            return " or ".join(found)
    return f"what is called {name!r}"
