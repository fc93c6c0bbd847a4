"""How recurrent layers are wired: their gates read what comes in, and their own output."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_grow.structure.rules import keeps_units_apart
from keras_grow.structure.wirings import INPUT, OUTPUT, Axis, Between, Tie, Wiring, num_biases


class Recurrent(Wiring):
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
                biases=num_biases(layer.cell),
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


RECURRENT: dict[type, Wiring] = {
    keras.layers.SimpleRNN: Recurrent(1, 0),
    keras.layers.LSTM: Recurrent(4, 2),
    keras.layers.GRU: Recurrent(3, 2),
}


class Bidirectional(Wiring):
    """Two recurrent layers, whose outputs are laid side by side or combined one by one."""

    def why_not(self, layer):
        for each in self._directions(layer).values():
            wiring = RECURRENT.get(type(each))
            if wiring is None:
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
        return RECURRENT[type(direction)]


def _renamed(axis: Axis, output: str) -> Axis:
    """An axis of a layer that stands in another, its output a side of that."""
    return tuple(output if side == OUTPUT else side for side in axis)
