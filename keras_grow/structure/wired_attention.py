"""How attention is wired: heads, and the dimensions of keys and of values that all heads have."""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_grow.keras_private import ATTENTION
from keras_grow.structure.constants import Kernel
from keras_grow.structure.wirings import (
    OUTPUT,
    Axis,
    Between,
    Layout,
    Product,
    Tie,
    Wiring,
    num_biases,
    num_positions,
    shape_of,
    zeros_of,
)

_QUERY, _KEY, _VALUE, _OUTPUT = (
    f"{ATTENTION[name]}.kernel" for name in ("query", "key", "value", "output")
)


class Attention(Wiring):
    """Heads that read queries, keys and values, and are mixed to the output.

    Heads come and go whole; the dimensions of a head, those that queries and keys share and those
    of values, come and go alike in all heads.
    """

    _HEADS: Axis = ("heads",)
    _KEY_HEADS: Axis = ("heads",)
    _KEY_SIZE = "key_size"
    _VALUE_SIZE = "value_size"

    def why_not(self, layer):
        if len(shape_of(layer, _OUTPUT)) != 3:
            return "its output has several axes of its own"
        return None

    def inputs(self, layer, names, options):
        found = {name: n for n, name in enumerate(names) if name in ("query", "value", "key")}
        if not {"query", "value"} <= set(found):
            return {}
        return {"key": found["value"], **found}

    def kernels(self, layer):
        heads, key_heads = self._HEADS, self._KEY_HEADS
        key_size, value_size = (self._KEY_SIZE,), (self._VALUE_SIZE,)

        def reading(name: str, side: str, heads: Axis, size: Axis) -> Between:
            sublayer = ATTENTION[name]
            biases = num_biases(getattr(layer, sublayer))
            layout: Layout = ((side,), heads, size)
            return Between(
                f"{sublayer}.kernel",
                (side,),
                (*heads, *size),
                layout,
                read_at=sublayer,
                made_at=sublayer,
                positions=side,
                biases=biases,
            )

        found = [
            reading("query", "query", heads, key_size),
            reading("key", "key", key_heads, key_size),
            reading("value", "value", key_heads, value_size),
        ]
        if getattr(layer, ATTENTION["gate"], None) is not None:
            found.append(reading("gate", "query", heads, value_size))
        layout = (heads, value_size, (OUTPUT,))
        read = (*heads, *value_size)
        output = ATTENTION["output"]
        biases = num_biases(getattr(layer, output))
        return [
            *found,
            Between(
                f"{output}.kernel",
                read,
                (OUTPUT,),
                layout,
                read_at=output,
                made_at=output,
                biases=biases,
            ),
        ]

    def products(self, layer, shapes):
        # Each query meets each key, and weighs each value.
        positions = num_positions(shapes["query"]) * num_positions(shapes["key"])
        query, *_, output = self.kernels(layer)
        return [Product(positions, 1, axis) for axis in (query.makes, output.reads)]

    def others(self, layer):
        found: dict[str, Layout] = {}
        for between in self.kernels(layer):
            sublayer = between.attribute.partition(".")[0]
            if getattr(layer, sublayer).bias is not None:
                found[f"{sublayer}.bias"] = (
                    between.layout[1:] if sublayer != ATTENTION["output"] else ((OUTPUT,),)
                )
        return found

    def changes(self, layer, counts):
        arguments = {"heads": "num_heads", "key_size": "key_dim", "value_size": "value_dim"}
        changes: dict[str, Any] = {
            argument: counts[side] for side, argument in arguments.items() if side in counts
        }
        if "key_size" in counts and "value_size" not in counts:
            changes["value_dim"] = layer.value_dim
        # By default the output is as wide as the query.
        return {**changes, "output_shape": counts.get(OUTPUT, shape_of(layer, _OUTPUT)[-1])}

    def scales(self, layer, copy):
        scale = math.sqrt(self._key_dim(copy) / self._key_dim(layer))
        return {_QUERY: scale, f"{ATTENTION['query']}.bias": scale} if scale != 1 else {}

    def constants(self, layer, kernels, given):
        value = zeros_of(kernels[_VALUE].outputs_of(given["value"]))
        read = self._of_heads(layer, value)
        return {
            OUTPUT: kernels["_output_dense.kernel"].outputs_of(read),
            "_output_dense.kernel": read,
        }

    def needs(self, layer, kernels):
        query, key = kernels[_QUERY], kernels[_KEY]
        is_used = [_is_made(kernel) for kernel in (query, key)]
        is_used[1] = self._of_heads(layer, is_used[1])
        size = self._key_dim(layer)
        heads, sizes = np.nonzero(np.reshape(is_used[0] & is_used[1], (-1, size)))
        return [(self._KEY_SIZE, sizes, "heads", heads // self._repeats(layer))]

    def _key_dim(self, layer: Any) -> int:
        return layer.key_dim

    def _repeats(self, layer: Any) -> int:
        """How many heads of queries share one of keys and values."""
        return 1

    def _of_heads(self, layer: Any, of_key_heads: np.ndarray) -> np.ndarray:
        rows = of_key_heads.reshape(-1, self._size_of_rows(layer, of_key_heads))
        return np.repeat(rows, self._repeats(layer), axis=0).reshape(-1)

    def _size_of_rows(self, layer: Any, of_key_heads: np.ndarray) -> int:
        return len(of_key_heads) // shape_of(layer, _VALUE)[-2]


class GroupedQueryAttention(Attention):
    """Several heads of queries share one of keys and values, and come and go with it."""

    _KEY_SIZE = _VALUE_SIZE = "size"

    def ties(self, layer):
        # Queries and values must be as wide as each other, and so is the output.
        units = np.arange(shape_of(layer, _OUTPUT)[-1])
        return [Tie("query", units, OUTPUT, units), Tie("query", units, "value", units)]

    def kernels(self, layer):
        repeats = self._repeats(layer)
        found = []
        for each in super().kernels(layer):
            is_of_queries = each.attribute not in (_KEY, _VALUE)
            found.append(_with_repeats(each, repeats) if is_of_queries else each)
        return found

    def changes(self, layer, counts):
        changes = {"head_dim": counts["size"]} if "size" in counts else {}
        if "heads" in counts:
            changes["num_key_value_heads"] = counts["heads"]
            changes["num_query_heads"] = counts["heads"] * self._repeats(layer)
        return changes

    def _key_dim(self, layer):
        return layer.head_dim

    def _repeats(self, layer):
        return layer.num_query_heads // layer.num_key_value_heads


def _with_repeats(between: Between, repeats: int) -> Between:
    def repeated(axis: Axis) -> Axis:
        return tuple(
            part for side in axis for part in ((side, repeats) if side == "heads" else (side,))
        )

    return dataclasses.replace(
        between,
        reads=repeated(between.reads),
        makes=repeated(between.makes),
        layout=tuple(map(repeated, between.layout)),
    )


def _is_made(kernel: Kernel) -> np.ndarray:
    """Which units of a kernel may be other than 0: bool."""
    made = np.zeros(kernel.axes.num_units, bool)
    made[kernel.units] = True
    if kernel.bias is not None:
        made |= kernel.bias.numpy().reshape(-1) != 0
    return made
