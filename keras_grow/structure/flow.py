"""Which units of a model its outputs depend on, and which are constant.

A worked example, where `-` leads out of a unit to those that read it, and `a.1` is not fed:

    x.0 - a.0 - b.0 - y.0      a.0 and b.0 are needed, for y.0 is an output
    x.1 - a.2 - b.1            nothing reads b.1, so that nothing needs a.2, or x.1
          a.1 - b.0            a.1 is relu(its bias) = 3 whatever x is; 3 times its weight goes into
                               the bias of b.0, and then nothing reads a.1
"""

from collections.abc import Mapping

import keras
import numpy as np

from keras_grow.structure.constants import Kernel
from keras_grow.structure.graph import Step, Stream
from keras_grow.structure.kernels import attribute_of, why_not_resizable
from keras_grow.structure.rules import computing, rule_for
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import KernelCall


class Flow:
    """Which units a model's outputs depend on.

    A unit stays if it is pinned (it is an output, or something that may mix units reads or makes
    it), if a connection leads from it to a unit that stays, or if it is tied to one that stays.
    A unit that is constant, whatever the model is given, need not stay for the sake of layers that
    can take it into their biases.

    Args:
        units: the graph of the model's units.
        keeps_inputs: whether all units of the model's inputs stay, read or not.
        keeps_one: whether one unit of every tensor stays, as a tensor can't be empty.

    Attributes:
        graph: the model's calls.
        reasons: why constant units stay where they do, by layer path.
        used_inputs: for each of the model's inputs, which of its units an output depends on:
            int64, ascending; one where there is none.
    """

    def __init__(self, units: UnitGraph, keeps_inputs: bool = True, keeps_one: bool = True):
        self.graph = units.graph
        self.reasons: dict[str, str] = {}
        self._keeps_one = keeps_one
        self._units = units
        self._fixed = dict(units.fixed)
        self._constants = np.full(units.num_units, np.nan)
        self._is_pinned = np.zeros(units.num_units, bool)
        self._kernels: dict[int, tuple[Kernel, list[Step]]] = {}
        self._wired: dict[KernelCall, Kernel] = {}
        self._values: dict[KernelCall, np.ndarray] = {}
        self._needs: list[tuple[np.ndarray, np.ndarray]] = []
        for steps in units.kernels.values():
            self._add_kernel(steps)
        for step in self.graph.steps:
            self._find_constants(step)
        for _, fixed in self._fixed.values():
            self._is_pinned[fixed] = True
        for mixed in (*units.mixed.values(), *units.taken.values()):
            self._is_pinned[mixed] = True
        for stream in self.graph.outputs:
            self._is_pinned[stream.units] = True
        self._groups = units.roots
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

    def kept_along(self, units: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        """Which of some entries stay: those all of whose units do, see `KernelCall`."""
        stays = np.ones(count, bool)
        for each in units.values():
            stays &= self._is_needed[self._groups[each]]
        return np.flatnonzero(stays)

    @property
    def kernel_calls(self) -> list[KernelCall]:
        """For each kernel that is followed the first call, in the model's order."""
        found: dict[tuple[int, bool], KernelCall] = {}
        for step in self.graph.steps:
            for call in () if step in self._fixed else self._units.calls.get(step, ()):
                found.setdefault((id(call.layer), call.between.is_reversed), call)
        return list(found.values())

    def sides(self, step: Step) -> Mapping[str, Stream] | None:
        """The sides of a layer with kernels that are followed, `None` for others."""
        if step not in self._units.calls or step in self._fixed:
            return None
        return self._units.sides[id(computing(step.layer))]

    def makes_others(self, step: Step) -> bool:
        """Whether a call of a layer with kernels makes something else than its units."""
        if self.sides(step) is None:
            return False
        layer = computing(step.layer)
        wiring = self._units.wirings[id(layer)]
        return None in wiring.outputs(layer, step.options, len(step.outputs))

    def is_needed(self, roots: np.ndarray) -> np.ndarray:
        """Which of some groups, by their numbers in the graph of units, stay: bool."""
        return self._is_needed[roots]

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

    def _add_kernel(self, steps: list[Step]) -> None:
        layer = steps[0].layer
        why_not = why_not_resizable(layer)
        if why_not is None:
            self._kernels[id(layer)] = (Kernel(layer, layer), steps)
            return
        for step in steps:
            units = np.concatenate([step.inputs[0].units, step.outputs[0].units])
            self._fixed[step] = (why_not, units)

    def _find_constants(self, step: Step) -> None:
        """Finds which units are constant behind a call, given those before it."""
        if step in self._fixed:  # What it makes varies, for all that is known.
            return
        if step in self._units.calls and id(step.layer) not in self._kernels:
            self._find_constants_of_wired(step)
            return
        (output,) = step.outputs
        constants = [self._constants[stream.units] for stream in step.inputs]
        if id(step.layer) in self._kernels:
            if self._units.keeps_apart(step.layer):
                kernel, _ = self._kernels[id(step.layer)]
                self._constants[output.units] = kernel.outputs_of(constants[0])
            return
        rule = rule_for(step.layer)
        if rule is not None:
            shapes = [stream.shape for stream in step.inputs]
            self._constants[output.units] = rule.constants(computing(step.layer), constants, shapes)

    def _find_constants_of_wired(self, step: Step) -> None:
        """The same of a layer of another kind, whose kernels' connections are noted."""
        layer, calls = computing(step.layer), self._units.calls[step]
        wiring, sides = self._units.wirings[id(layer)], self._units.sides[id(layer)]
        kernels = {}
        for call in calls:
            holding = attribute_of(layer, call.between.attribute.rpartition(".")[0])
            behind = holding if call.between.is_affine else None
            kernel = Kernel(call.layer, behind, absorbs=False)
            self._wired[call] = kernels[call.between.attribute] = kernel
        inputs = wiring.inputs(layer, step.names, step.options)
        given = {side: self._constants[step.inputs[n].units] for side, n in inputs.items()}
        found = wiring.constants(layer, kernels, given)
        for side, values in found.items():
            if side in sides:
                self._constants[sides[side].units] = values
        outputs = wiring.outputs(layer, step.options, len(step.outputs))
        for made, stream in zip(outputs, step.outputs, strict=True):
            if made in found:
                self._constants[stream.units] = found[made]
        for call in calls:
            values = np.full(kernels[call.between.attribute].axes.num_inputs, np.nan)
            if call.between.attribute in found:
                values = found[call.between.attribute]
            elif len(call.between.reads) == 1 and call.reads:
                ((side, units),) = call.reads.items()
                values = given[side] if side in given else self._constants[units]
            self._values[call] = values
        for side, entries, other, others in wiring.needs(layer, kernels):
            pair = sides[side].units[entries], sides[other].units[others]
            self._needs.append((self._units.roots[pair[0]], self._units.roots[pair[1]]))

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
        for call, kernel in self._wired.items():
            is_read = ~kernel.can_absorb([self._values[call]])[kernel.inputs]
            for units in call.makes.values():
                is_read &= is_needed[self._groups[units]][kernel.units]
            for units in call.reads.values():
                demanded[self._groups[units[kernel.inputs[is_read]]]] = True
        for units in self._units.together:
            roots = self._groups[units]
            if is_needed[roots].any():
                demanded[roots[self._constants[units] != 0]] = True
        for needed, those in self._needs:
            demanded[needed[is_needed[those]]] = True
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
                for stream in self._onward()
                if stream.count and not (is_needed | is_left)[self._groups[stream.units]].any()
            ]
            if not (empty and self._keeps_one):
                self._is_left = is_left & ~is_needed
                return is_needed | is_left
            # Of the last such tensor, as what it reads is no longer empty then.
            varies = np.isnan(self._constants[empty[-1]])
            one = self._groups[empty[-1][np.argmax(varies)]]
            (is_left if varies.any() else is_needed)[one] = True

    def _onward(self) -> list[Stream]:
        """All tensors, each behind those that it is computed of."""
        found = dict.fromkeys(self.graph.inputs)
        for step in self.graph.steps:
            if step in self._units.calls:
                sides = self._units.sides[id(computing(step.layer))].values()
                found |= dict.fromkeys(each for each in sides if each not in step.outputs)
            found |= dict.fromkeys(step.outputs)
        return [*found]

    def _find_reasons(self) -> None:
        nothing_goes = bool(np.all(self._is_needed[self._groups]))
        for step, (why, units) in self._fixed.items():
            num_idle = np.isfinite(self._constants[units]).sum()
            if num_idle:
                self.reasons[step.path] = f"{num_idle} constant units stay, since {why}"
            elif nothing_goes and len(units):
                self.reasons[step.path] = f"all units it reads and makes stay, since {why}"
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
