"""How convolutions of other kinds, and EinsumDense, are wired."""

import math
from typing import Any, ClassVar

import numpy as np

from keras_grow.structure.rules import keeps_units_apart
from keras_grow.structure.wirings import (
    INPUT,
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


class Filtered(Wiring):
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


class Held(Filtered):
    """A Dense layer or convolution in a wrapper that has its growable kernel."""

    def kernels(self, layer):
        window = [(size,) for size in getattr(layer, "kernel_size", ())]
        layout: Layout = (*window, (INPUT,), (OUTPUT,))
        biases = num_biases(layer)
        return [Between("kernel", (INPUT,), (OUTPUT,), layout, read_at="", biases=biases)]

    def others(self, layer):
        return {"bias": ((OUTPUT,),)}

    def changes(self, layer, counts):
        name = "filters" if hasattr(layer, "filters") else "units"
        return {name: counts[OUTPUT]} if OUTPUT in counts else {}


class Transposed(Filtered):
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
                biases=num_biases(layer),
            )
        ]

    def others(self, layer):
        return {"bias": ((OUTPUT,),)}


class Separable(Filtered):
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
                biases=num_biases(layer),
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
        filtered = np.repeat(zeros_of(given[INPUT]), layer.depth_multiplier)
        weights = np.abs(layer.depthwise_kernel.numpy())
        filtered[weights.reshape(-1, len(filtered)).sum(axis=0) == 0] = 0
        made = super().constants(layer, kernels, {"filtered": filtered})
        return {"filtered": filtered, **made}


class Grouped(Filtered):
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
        biases = num_biases(layer)
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


class Einsum(Filtered):
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
                biases=num_biases(layer),
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
