"""How units flow through a model, and which of them its outputs depend on.

Every tensor has units, the entries of its last axis. Layers that keep units apart, additions and
concatenations tie units of several tensors together: they stay or go as one. Layers with a kernel
read some units and make others. All else is taken to need every unit that it reads, and to make
units that can't go.
"""

from collections.abc import Sequence

import keras
import numpy as np

from keras_grow.structure.calls import operation_type
from keras_grow.structure.constants import Kernel, constants_behind
from keras_grow.structure.graph import Graph, Step, Stream
from keras_grow.structure.kernels import has_kernel, why_not_resizable
from keras_grow.structure.passing import UnitsMixed, keeps_units_apart, passage

_MERGING = {
    keras.layers.Add: np.add,
    keras.layers.Subtract: np.subtract,
    keras.layers.Multiply: np.multiply,
    keras.layers.Average: np.add,
    keras.layers.Maximum: np.maximum,
    keras.layers.Minimum: np.minimum,
    # What `a + b` of two tensors is, and its like.
    operation_type(keras.ops.add): np.add,
    operation_type(keras.ops.subtract): np.subtract,
    operation_type(keras.ops.multiply): np.multiply,
    operation_type(keras.ops.maximum): np.maximum,
    operation_type(keras.ops.minimum): np.minimum,
}
_MULTIPLYING = (keras.layers.Multiply, operation_type(keras.ops.multiply))


class Flow:
    """Which units a model's outputs depend on.

    A unit stays if it is pinned (it is an output, or something that may mix units reads or makes
    it), if a connection leads from it to a unit that stays, or if it is tied to one that stays.
    A unit that is constant, whatever the model is given, need not stay for the sake of layers that
    can take it into their biases.

    Args:
        model: a built Sequential or functional model.
        keeps_inputs: whether all units of the model's inputs stay, read or not.

    Attributes:
        graph: the model's calls.
        reasons: why constant units stay where they do, by layer path.
        used_inputs: for each of the model's inputs, which of its units an output depends on:
            int64, ascending; one where there is none.
    """

    def __init__(self, model: keras.Model, keeps_inputs: bool = True):
        self.graph = Graph(model)
        self.reasons: dict[str, str] = {}
        count = sum(stream.count for stream in self.graph.streams)
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._constants = np.full(count, np.nan)
        self._is_pinned = np.zeros(count, bool)
        self._kernels: dict[int, tuple[Kernel, list[Step]]] = {}
        self._fixed: dict[str, tuple[str, np.ndarray]] = {}
        for earlier, later in self.graph.repeats:
            self._ties.append((earlier.units, later.units))
        for step in self.graph.steps:
            self._pass(step)
        self._tie_shared_layers()
        for stream in self.graph.outputs:
            self._is_pinned[stream.units] = True
        self._groups = _groups(count, self._ties)
        self._is_needed = self._find_needed()
        self.used_inputs = tuple(self.kept(stream) for stream in self.graph.inputs)
        if keeps_inputs:
            for stream in self.graph.inputs:
                self._is_pinned[stream.units] = True
            self._is_needed = self._find_needed()
        self._find_reasons()

    def kept(self, stream: Stream) -> np.ndarray:
        """Which units of a tensor stay: int64, ascending."""
        return np.flatnonzero(self._is_needed[self._groups[stream.units]])

    def left_over(self, stream: Stream) -> np.ndarray:
        """Which units of a tensor stay only because it can't be empty; what they are may change."""
        return np.flatnonzero(self._is_left[self._groups[stream.units]])

    def absorbed(self, layer: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
        """The constant inputs of a layer with a kernel that go into its biases.

        Returns:
            Which of its inputs, int64, and what they add to each of its units, float64 of shape
            `(units,)`.
        """
        kernel, (step, *_) = self._kernels[id(layer)]
        source = step.inputs[0].units
        constants = self._constants[source]
        inputs = np.flatnonzero(~self._is_needed[self._groups[source]] & np.isfinite(constants))
        return inputs, kernel.sums(inputs, constants[inputs])

    def kernel(self, layer: keras.Layer) -> Kernel | None:
        """The connections of a layer whose kernel can have other inputs and units, else `None`."""
        return self._kernels[id(layer)][0] if id(layer) in self._kernels else None

    def _fix(self, step: Step, why: str) -> None:
        """Takes all that a call reads and makes as needed."""
        units = np.concatenate([stream.units for stream in (*step.inputs, *step.outputs)])
        self._is_pinned[units] = True
        self._fixed[step.path] = (why, units)

    def _pass(self, step: Step) -> None:
        """Ties the units on both sides of a call, and finds those that are constant behind it."""
        if any(stream.count == 0 for stream in (*step.inputs, *step.outputs)):
            self._fix(step, "the last axis of its input or output is not known")
        elif has_kernel(step.layer) and len(step.inputs) == 1:
            self._apply_kernel(step)
        elif type(step.layer) in _MERGING and len(step.inputs) > 1:
            self._merge(step)
        elif type(step.layer) is keras.layers.Concatenate:
            self._concatenate(step)
        elif len(step.inputs) == len(step.outputs) == 1:
            self._pass_one(step)
        else:
            self._fix(step, "it is not known to keep units apart")

    def _apply_kernel(self, step: Step) -> None:
        (source,), (output,) = step.inputs, step.outputs
        why_not = why_not_resizable(step.layer)
        if why_not is not None:
            self._fix(step, why_not)
            return
        if id(step.layer) not in self._kernels:
            self._kernels[id(step.layer)] = (Kernel(step.layer), [])
        kernel, steps = self._kernels[id(step.layer)]
        steps.append(step)
        if keeps_units_apart(step.layer.activation):
            self._constants[output.units] = kernel.outputs_of(self._constants[source.units])
        else:
            self._is_pinned[output.units] = True

    def _merge(self, step: Step) -> None:
        (output,) = step.outputs
        if any(stream.count != output.count for stream in step.inputs):
            self._fix(step, "its inputs have different numbers of units")
            return
        for stream in step.inputs:
            self._ties.append((stream.units, output.units))
        constants = [self._constants[stream.units] for stream in step.inputs]
        merged = _MERGING[type(step.layer)].reduce(constants)  # NaN where one is not constant.
        if type(step.layer) is keras.layers.Average:
            merged = merged / len(constants)
        if type(step.layer) in _MULTIPLYING:
            merged = np.where(np.any(np.equal(constants, 0), axis=0), 0.0, merged)
        self._constants[output.units] = merged

    def _concatenate(self, step: Step) -> None:
        (output,) = step.outputs
        if step.layer.axis not in (-1, len(output.shape) - 1):
            self._fix(step, f"it lays its inputs along axis {step.layer.axis}, not the last")
            return
        units = output.units
        for stream in step.inputs:
            own, units = units[: stream.count], units[stream.count :]
            self._ties.append((stream.units, own))
            self._constants[own] = self._constants[stream.units]

    def _pass_one(self, step: Step) -> None:
        (source,), (output,) = step.inputs, step.outputs
        try:
            stands_at = passage(step.layer, source.shape)
        except UnitsMixed as mixed:
            self._fix(step, str(mixed))
            return
        constants = constants_behind(step.layer, len(source.shape), self._constants[source.units])
        units = output.units[stands_at]
        self._constants[units] = constants[:, None]
        self._ties += [(source.units, copy) for copy in units.T]

    def _tie_shared_layers(self) -> None:
        """A layer that is called several times is one layer: its weights can be cut once only."""
        calls: dict[int, list[Step]] = {}
        for step in self.graph.steps:
            if getattr(step.layer, "weights", None):
                calls.setdefault(id(step.layer), []).append(step)
        for first, *others in calls.values():
            streams = [*first.inputs, *first.outputs]
            for other in others:
                for one, another in zip(streams, [*other.inputs, *other.outputs], strict=False):
                    if one.count == another.count:
                        self._ties.append((one.units, another.units))

    def _demanded(self, is_needed: np.ndarray) -> np.ndarray:
        """Which groups are read by connections of units that are needed."""
        demanded = np.zeros_like(is_needed)
        for kernel, steps in self._kernels.values():
            sources = [self._constants[step.inputs[0].units] for step in steps]
            is_read = ~kernel.can_absorb(sources)[kernel.inputs]
            for step in steps:
                source, output = step.inputs[0].units, step.outputs[0].units
                of_needed = is_needed[self._groups[output]][kernel.units]
                demanded[self._groups[source[kernel.inputs[is_read & of_needed]]]] = True
        return demanded

    def _find_needed(self) -> np.ndarray:
        """Which groups stay: those that are pinned, and what they depend on."""
        is_needed = np.zeros(len(self._groups), bool)
        is_needed[self._groups[self._is_pinned]] = True
        is_left = np.zeros_like(is_needed)
        while True:
            grown = is_needed | self._demanded(is_needed)
            if not np.array_equal(grown, is_needed):
                is_needed = grown
                continue
            # A tensor can't be empty: one unit is left, best one that is not constant: as no unit
            # that stays reads it, it may lose all that it reads.
            empty = [
                stream.units
                for stream in self.graph.streams
                if stream.count and not (is_needed | is_left)[self._groups[stream.units]].any()
            ]
            if not empty:
                self._is_left = is_left & ~is_needed
                return is_needed | is_left
            varies = np.isnan(self._constants[empty[0]])
            one = self._groups[empty[0][np.argmax(varies)]]
            (is_left if varies.any() else is_needed)[one] = True

    def _find_reasons(self) -> None:
        nothing_goes = bool(np.all(self._is_needed[self._groups]))
        for name, (why, units) in self._fixed.items():
            num_idle = np.isfinite(self._constants[units]).sum()
            if num_idle:
                self.reasons[name] = f"{num_idle} constant units stay, since {why}"
            elif nothing_goes and len(units):
                self.reasons[name] = f"all units it reads and makes stay, since {why}"
        for kernel, steps in self._kernels.values():
            sources = [step.inputs[0].units for step in steps]
            constants = [self._constants[source] for source in sources]
            is_idle = np.all(np.isfinite(constants), axis=0)
            is_idle &= np.isin(np.arange(len(is_idle)), kernel.inputs)
            stays = self._is_needed[self._groups[sources[0]]]
            is_idle &= stays
            fits = kernel.can_absorb(constants)
            parts = []
            if (is_idle & ~fits).any():
                parts.append(f"{(is_idle & ~fits).sum()} constant inputs stay: {kernel.obstacle}")
            if (is_idle & fits).any() and stays.sum() > 1:
                parts.append(
                    f"{(is_idle & fits).sum()} stay: units that are needed are tied to them"
                )
            if parts:
                self.reasons[steps[0].path] = "; ".join(parts)


def _groups(count: int, ties: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For each unit the lowest number of those it is tied to, directly or through others."""
    groups = np.arange(count)
    while True:
        before = groups.copy()
        for one, other in (*ties, *reversed(ties)):
            lowest = np.minimum(groups[one], groups[other])
            np.minimum.at(groups, one, lowest)
            np.minimum.at(groups, other, lowest)
        groups = groups[groups]
        if np.array_equal(groups, before):
            return groups
