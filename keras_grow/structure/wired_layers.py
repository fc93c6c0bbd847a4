"""The table of wirings: recurrent layers, attention, convolutions of other kinds, embeddings."""

import dataclasses
import math
from typing import Any, ClassVar

import keras
import numpy as np

from keras_grow.keras_private import ATTENTION
from keras_grow.structure.constants import Kernel
from keras_grow.structure.kernels import has_kernel, why_not_followed
from keras_grow.structure.rules import computing, keeps_units_apart
from keras_grow.structure.wirings import (
    INPUT,
    OUTPUT,
    Axis,
    Between,
    Layout,
    Product,
    Tie,
    Wiring,
    num_positions,
    shape_of,
)

_layers = keras.layers


class OneKernel(Wiring):
    """A kernel that reads what the layer is given and makes its output, as Dense has."""

    def why_not(self, layer):
        return why_not_followed(layer)

    def kernels(self, layer):
        return [Between("kernel", (INPUT,), (OUTPUT,), (), read_at="", biases=_num_biases(layer))]

    def sides(self, layer):
        return {}

    def others(self, layer):
        return {"bias": ((OUTPUT,),)}

    def changes(self, layer, counts):
        name = "filters" if hasattr(layer, "filters") else "units"
        return {name: counts[OUTPUT]} if OUTPUT in counts else {}


class _Filtered(Wiring):
    """Layers whose weights need not stand still for what is cut: they say what mixes units."""

    def why_not(self, layer):
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return "its units stand on another axis than the last"
        if not keeps_units_apart(getattr(layer, "activation", None)):
            return "its activation mixes units"
        return None

    def changes(self, layer, counts):
        return {"filters": counts[OUTPUT]} if OUTPUT in counts else {}

    def constants(self, layer, kernels, given):
        (between,) = self.kernels(layer)
        side = between.reads[0]
        values = given.get(side if isinstance(side, str) else INPUT)
        if values is None:
            return {}
        return {OUTPUT: kernels[between.attribute].outputs_of(values)}


class _Transposed(_Filtered):
    """A transposed convolution, whose kernel has its units before its inputs."""

    def kernels(self, layer):
        window = tuple((size,) for size in layer.kernel_size)
        layout = (*window, (OUTPUT,), (INPUT,))
        return [
            Between(
                "kernel",
                (INPUT,),
                (OUTPUT,),
                layout,
                "",
                positions=INPUT,
                biases=_num_biases(layer),
            )
        ]

    def others(self, layer):
        return {"bias": ((OUTPUT,),)}


class _Separable(_Filtered):
    """Each map is filtered by itself, then what comes out is mixed."""

    filters: ClassVar = {"depthwise_kernel": "depthwise_initializer"}

    def ties(self, layer):
        filtered = np.arange(layer.pointwise_kernel.shape[-2])
        return [Tie(INPUT, filtered // layer.depth_multiplier, "filtered", filtered)]

    def kernels(self, layer):
        rank = len(layer.pointwise_kernel.shape) - 2
        layout = (*[(1,)] * rank, ("filtered",), (OUTPUT,))
        repeats = layer.depth_multiplier
        return [
            Between(
                "pointwise_kernel",
                ("filtered",),
                (OUTPUT,),
                layout,
                read_at="",
                biases=_num_biases(layer),
                read_repeats=repeats,
            )
        ]

    def others(self, layer):
        window = tuple((size,) for size in layer.depthwise_kernel.shape[:-2])
        layout = (*window, (INPUT,), (layer.depth_multiplier,))
        return {"depthwise_kernel": layout, "bias": ((OUTPUT,),)}

    def products(self, layer, shapes):
        window = math.prod(layer.kernel_size)
        return [Product(num_positions(shapes[OUTPUT]), window, ("filtered",), has_weights=True)]

    def constants(self, layer, kernels, given):
        filtered = np.repeat(_zeros_of(given[INPUT]), layer.depth_multiplier)
        weights = np.abs(layer.depthwise_kernel.numpy())
        filtered[weights.reshape(-1, len(filtered)).sum(axis=0) == 0] = 0
        made = super().constants(layer, kernels, {"filtered": filtered})
        return {"filtered": filtered, **made}


class _Grouped(_Filtered):
    """A convolution whose units are split into groups that read inputs of their own.

    Its kernel stays a full array where whole groups go, or where the same units go of each. What is
    finer decides: whole groups where these are many and small, as in a ResNeXt.
    """

    def ties(self, layer):
        num_inputs, num_units = shape_of(layer, "kernel")[-2], self._made(layer)
        inputs = np.arange(layer.groups * num_inputs)
        units = np.arange(layer.groups * num_units)
        if self._goes_whole(layer):
            return [
                Tie(INPUT, inputs, "groups", inputs // num_inputs),
                Tie(OUTPUT, units, "groups", units // num_units),
            ]
        return [
            Tie(INPUT, inputs, "input_of_group", inputs % num_inputs),
            Tie(OUTPUT, units, "output_of_group", units % num_units),
        ]

    def kernels(self, layer):
        window, units = [(size,) for size in layer.kernel_size], self._units(layer)
        num_inputs = shape_of(layer, "kernel")[-2]
        inputs: Axis = (layer.groups, "input_of_group")
        layout: Layout = (*window, ("input_of_group",), units)
        if self._goes_whole(layer):
            inputs, layout = ("groups", num_inputs), (*window, (num_inputs,), units)
        biases = _num_biases(layer)
        return [Between("kernel", inputs, units, layout, read_at="", biases=biases)]

    def others(self, layer):
        return {"bias": (self._units(layer),)}

    def changes(self, layer, counts):
        changes = super().changes(layer, counts)
        return {**changes, "groups": counts["groups"]} if "groups" in counts else changes

    def constants(self, layer, kernels, given):
        (kernel,) = kernels.values()
        return {OUTPUT: kernel.outputs_of(given[INPUT])}

    def _units(self, layer: Any) -> Axis:
        if self._goes_whole(layer):
            return ("groups", self._made(layer))
        return (layer.groups, "output_of_group")

    def _made(self, layer: Any) -> int:
        return layer.filters // layer.groups

    def _goes_whole(self, layer: Any) -> bool:
        return layer.groups >= max(shape_of(layer, "kernel")[-2], self._made(layer))


class _Einsum(_Filtered):
    """A kernel from the last axis of the input to the last axis of the output."""

    def why_not(self, layer):
        read, kernel, made = self._letters(layer)
        is_plain = read[-1:] in kernel and made[-1:] in kernel and read[-1:] not in made
        if not is_plain or "." in kernel or made[-1:] in read:
            return "its equation does not lead from the last axis to the last"
        return super().why_not(layer)

    def kernels(self, layer):
        read, kernel, made = self._letters(layer)
        sides = {read[-1]: INPUT, made[-1]: OUTPUT}
        sizes = dict(zip(kernel, shape_of(layer, "kernel"), strict=True))
        layout = tuple((sides.get(letter, size),) for letter, size in sizes.items())
        inputs = [axis for letter, axis in zip(kernel, layout, strict=True) if letter in read]
        units = [axis for letter, axis in zip(kernel, layout, strict=True) if letter in made]
        read_last = read.endswith("".join(letter for letter in kernel if letter in read))
        read_at = "" if read_last else None
        return [
            Between(
                "kernel",
                sum(inputs, ()),
                sum(units, ()),
                layout,
                read_at,
                biases=_num_biases(layer),
            )
        ]

    def others(self, layer):
        if layer.bias is None:
            return {}
        return {"bias": (*[(size,) for size in layer.bias.shape[:-1]], (OUTPUT,))}

    def changes(self, layer, counts):
        if OUTPUT not in counts:
            return {}
        shape = layer.partial_output_shape
        return {"output_shape": (*shape[:-1], counts[OUTPUT])}

    def constants(self, layer, kernels, given):
        return {}

    def _letters(self, layer: Any) -> list[str]:
        read, _, made = layer.equation.replace(" ", "").partition("->")
        read, _, kernel = read.partition(",")
        return [read, kernel, made]


class _Embedding(Wiring):
    """A table whose rows are looked up."""

    def inputs(self, layer, names, options):
        return {}

    def kernels(self, layer):
        layout: Layout = ((layer.input_dim,), (OUTPUT,))
        return [Between("embeddings", (layer.input_dim,), (OUTPUT,), layout, positions=None)]

    def changes(self, layer, counts):
        return {"output_dim": counts[OUTPUT]} if OUTPUT in counts else {}

    def constants(self, layer, kernels, given):
        (kernel,) = kernels.values()
        return {OUTPUT: kernel.outputs_of(np.full(layer.input_dim, np.nan))}


class _ReversibleEmbedding(_Embedding):
    """A table whose rows are looked up and, with `reverse=True`, multiply what a call is given."""

    def inputs(self, layer, names, options):
        return {OUTPUT: 0} if options.get("reverse") else {}

    def outputs(self, layer, options, count):
        return [None] if options.get("reverse") else [OUTPUT]

    def kernels(self, layer):
        (table,) = super().kernels(layer)
        words: Axis = (layer.input_dim,)
        if layer.tie_weights:
            return [
                table,
                dataclasses.replace(
                    table, reads=(OUTPUT,), makes=words, is_reversed=True, positions=OUTPUT
                ),
            ]
        return [table, Between("reverse_embeddings", (OUTPUT,), words, ((OUTPUT,), words))]

    def in_call(self, layer, options):
        table, reverse = self.kernels(layer)
        return [reverse] if options.get("reverse") else [table]

    def constants(self, layer, kernels, given):
        table = kernels.get("embeddings")
        return (
            {}
            if table is None or OUTPUT in given
            else super().constants(layer, {"embeddings": table}, given)
        )


class _Recurrent(Wiring):
    """Gates that are computed of what comes in and of the layer's own output.

    Args:
        num_gates: how many gates there are.
        candidate: the number of that which becomes the output: 0 where nothing leads into it.
    """

    def __init__(self, num_gates: int, candidate: int):
        self._num_gates = num_gates
        self._candidate = candidate

    def why_not(self, layer):
        if layer.stateful:
            return "it keeps its state from batch to batch"
        activations = layer.activation, getattr(layer, "recurrent_activation", None)
        return None if all(map(keeps_units_apart, activations)) else "an activation mixes units"

    def outputs(self, layer, options, count):
        return [OUTPUT] * count  # Those of states too.

    def inputs(self, layer, names, options):
        states = {f"state {n}": n for n, name in enumerate(names) if name == "initial_state"}
        return {INPUT: 0, **states}

    def ties(self, layer):
        # Of states there may be two; a call without them leaves these sides without a tensor.
        units = np.arange(layer.units)
        return [Tie(f"state {n}", units, OUTPUT, units) for n in (1, 2, 3)]

    def kernels(self, layer):
        gates = (self._num_gates, OUTPUT)
        return [
            Between(
                "cell.kernel",
                (INPUT,),
                gates,
                ((INPUT,), gates),
                read_at="",
                positions=INPUT,
                biases=_num_biases(layer.cell),
                is_affine=False,
            ),
            Between(
                "cell.recurrent_kernel",
                (OUTPUT,),
                gates,
                ((OUTPUT,), gates),
                positions=INPUT,
                is_affine=False,
            ),
        ]

    def others(self, layer):
        bias = layer.cell.bias
        if bias is None:
            return {}
        # Of a GRU those of both kernels are apart.
        rows = [(size,) for size in bias.shape[:-1]]
        return {"cell.bias": (*rows, (self._num_gates, OUTPUT))}

    def changes(self, layer, counts):
        return {"units": counts[OUTPUT]} if OUTPUT in counts else {}

    def constants(self, layer, kernels, given):
        is_fed = np.zeros(self._num_gates * layer.units, bool)
        kernel, recurrent = kernels["cell.kernel"], kernels["cell.recurrent_kernel"]
        is_fed[kernel.units[given[INPUT][kernel.inputs] != 0]] = True
        is_fed[recurrent.units] = True
        if layer.cell.bias is not None:
            is_fed |= np.any(layer.cell.bias.numpy().reshape(-1, is_fed.size) != 0, axis=0)
        is_zero = ~is_fed.reshape(self._num_gates, -1)[self._candidate]
        is_zero &= float(layer.activation(keras.ops.zeros((1, 1)))[0, 0]) == 0
        for side, values in given.items():
            if side != INPUT:  # A state that it starts from.
                is_zero &= values == 0
        return {OUTPUT: np.where(is_zero, 0.0, np.nan)}


_QUERY, _KEY, _VALUE, _OUTPUT = (
    f"{ATTENTION[name]}.kernel" for name in ("query", "key", "value", "output")
)


class _Bidirectional(Wiring):
    """Two recurrent layers, whose outputs are laid side by side or combined one by one."""

    def why_not(self, layer):
        for each in self._directions(layer).values():
            wiring = _WIRINGS.get(type(each))
            if not isinstance(wiring, _Recurrent):
                return f"a {type(each).__name__} is not known to keep units apart"
            why_not = wiring.why_not(each)
            if why_not is not None:
                return why_not
        if layer.forward_layer.units != layer.backward_layer.units:
            return "its two directions have different numbers of units"
        return None if layer.merge_mode is not None else "it makes more than its output"

    def inputs(self, layer, names, options):
        return {INPUT: 0} if len(names) == 1 else {}

    def ties(self, layer):
        # Keras takes the output to be twice as wide as one of them: they shrink alike.
        units = np.arange(layer.forward_layer.units)
        first = len(units) if layer.merge_mode == "concat" else 0
        return [
            Tie("forward", units, "backward", units),
            Tie("forward", units, OUTPUT, units),
            Tie("backward", units, OUTPUT, first + units),
        ]

    def kernels(self, layer):
        found = []
        for side, direction in self._directions(layer).items():
            for each in self._wiring(direction).kernels(direction):
                found.append(
                    dataclasses.replace(
                        each,
                        attribute=f"{side}_layer.{each.attribute}",
                        reads=_renamed(each.reads, side),
                        makes=_renamed(each.makes, side),
                        layout=tuple(_renamed(axis, side) for axis in each.layout),
                    )
                )
        return found

    def others(self, layer):
        return {
            f"{side}_layer.{name}": tuple(_renamed(axis, side) for axis in layout)
            for side, direction in self._directions(layer).items()
            for name, layout in self._wiring(direction).others(direction).items()
        }

    def inside(self, layer, counts):
        return {
            f"{side}_layer": {"units": counts[side]} if side in counts else {}
            for side in self._directions(layer)
        }

    def constants(self, layer, kernels, given):
        found = {}
        for side, direction in self._directions(layer).items():
            of_direction = {
                name.removeprefix(f"{side}_layer."): kernel
                for name, kernel in kernels.items()
                if name.startswith(f"{side}_layer.")
            }
            made = self._wiring(direction).constants(direction, of_direction, given)
            found[side] = made[OUTPUT]
        if layer.merge_mode == "concat":
            return {**found, OUTPUT: np.concatenate([*found.values()])}
        is_zero = np.logical_and(*[values == 0 for values in found.values()])
        return {**found, OUTPUT: np.where(is_zero, 0.0, np.nan)}

    def _directions(self, layer: Any) -> dict[str, Any]:
        return {"forward": layer.forward_layer, "backward": layer.backward_layer}

    def _wiring(self, direction: Any) -> Wiring:
        return _WIRINGS[type(direction)]


def _renamed(axis: Axis, output: str) -> Axis:
    """An axis of a layer that stands in another, its output a side of that."""
    return tuple(output if side == OUTPUT else side for side in axis)


class _Attention(Wiring):
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
            biases = _num_biases(getattr(layer, sublayer))
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
        biases = _num_biases(getattr(layer, output))
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
        value = _zeros_of(kernels[_VALUE].outputs_of(given["value"]))
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


class _GroupedQueryAttention(_Attention):
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


def _num_biases(layer: Any) -> int:
    """How many biases each unit of a layer has: two in a GRU's cell, else one or none."""
    bias = getattr(layer, "bias", None)
    return 0 if bias is None else 2 if len(bias.shape) == 2 and hasattr(layer, "reset_after") else 1


def _zeros_of(constants: np.ndarray) -> np.ndarray:
    """0 where a unit is 0 whatever the model is given, NaN elsewhere."""
    return np.where(constants == 0, 0.0, np.nan)


def _is_made(kernel: Kernel) -> np.ndarray:
    """Which units of a kernel may be other than 0: bool."""
    made = np.zeros(kernel.axes.num_units, bool)
    made[kernel.units] = True
    if kernel.bias is not None:
        made |= kernel.bias.numpy().reshape(-1) != 0
    return made


_WIRINGS: dict[type, Wiring] = {
    _layers.Conv1DTranspose: _Transposed(),
    _layers.Conv2DTranspose: _Transposed(),
    _layers.Conv3DTranspose: _Transposed(),
    _layers.SeparableConv1D: _Separable(),
    _layers.SeparableConv2D: _Separable(),
    _layers.EinsumDense: _Einsum(),
    _layers.Embedding: _Embedding(),
    _layers.SimpleRNN: _Recurrent(1, 0),
    _layers.LSTM: _Recurrent(4, 2),
    _layers.GRU: _Recurrent(3, 2),
    _layers.Bidirectional: _Bidirectional(),
    _layers.MultiHeadAttention: _Attention(),
    _layers.GroupQueryAttention: _GroupedQueryAttention(),
}
if hasattr(_layers, "ReversibleEmbedding"):  # Since Keras 3.13 or so.
    _WIRINGS[_layers.ReversibleEmbedding] = _ReversibleEmbedding()


def wiring_for(layer: Any) -> Wiring | None:
    """How the kernels of a layer are wired; `None` where it has none, or none is known."""
    if has_kernel(layer):
        return _Grouped() if getattr(layer, "groups", 1) > 1 else OneKernel()
    return _WIRINGS.get(type(computing(layer)))
