"""The one graph of units: which units of a model are one and the same, and which can't change.

Every tensor has units, the entries of its last axis. Layers that keep units apart, additions and
concatenations tie units of several tensors together: they come and go as one, a group. Kernels read
some units and make others, see `wirings`. All else is taken to need every unit that it reads, and
to make units that can't go.

    x ── Dense a ──┬────────────── Add ── ReLU ── Dense c ── y
                   └── Dense b ────┘

Here unit 3 of `a`, unit 3 of `b`, and the weights of `c` that read number 3 are one group.
"""

import operator
from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from typing import Any

import keras
import numpy as np

from keras_grow.layers.growable import Growable
from keras_grow.layers.kernel_types import inner_kernels
from keras_grow.structure.graph import Graph, Step, Stream, UnitsNotFollowed
from keras_grow.structure.kernels import attribute_of, has_kernel, holders_of, reversed_of
from keras_grow.structure.rules import (
    UnitsMixed,
    computing,
    keeps_units_apart,
    places_behind,
    rule_for,
)
from keras_grow.structure.unit_groups import End, Entries, Group, KernelCall
from keras_grow.structure.wired_layers import OneKernel, wiring_for
from keras_grow.structure.wirings import (
    INPUT,
    OUTPUT,
    Axis,
    Between,
    Wiring,
    num_positions,
)

_UNKNOWN_SIZE = "the last axis of its input or output is not known"


class UnitGraph:
    """Which units of a model are tied together.

    Args:
        model: a built Sequential or functional model.
        over_units: whether units are followed through layers that compute something over all of
            them, as the mean of a LayerNormalization: without one, it is another.

    Attributes:
        graph: the model's calls, those inside nested models included.
        kernels: the calls of each layer of one kernel that can be followed, by the layer's `id`.
        calls: for each call of a layer with kernels that can be followed, those of its kernels.
        wirings: how these kernels are wired, by the `id` of the layer that computes.
        sides: the tensors of each such layer by its sides, by the `id` of the layer that computes.
        together: units that are needed, where they are not 0, as long as one of them is.
        taken: for each call the units that it needs as they are, beside those that it follows.
        fixed: for each call that may mix units, or makes them in an unknown way: why, and the
            numbers of all units that it reads and makes.
        mixed: for each call of a layer with a kernel whose units can't come and go one by one, as
            its activation mixes them or they share their inputs: their numbers.
        roots: for each unit the lowest number of those it is tied to: int64.

    Raises:
        UnitsNotFollowed: for a subclassed or unbuilt model.
    """

    def __init__(self, model: keras.Model, over_units: bool = False):
        self.graph = Graph(model)
        self._over_units = over_units
        self.together: list[np.ndarray] = []
        self.kernels: dict[int, list[Step]] = {}
        self.calls: dict[Step, list[KernelCall]] = {}
        self.wirings: dict[int, Wiring] = {}
        self.sides: dict[int, dict[str, Stream]] = {}
        self.taken: dict[Step, np.ndarray] = {}
        self.fixed: dict[Step, tuple[str, np.ndarray]] = {}
        self.mixed: dict[Step, np.ndarray] = {}
        self._ties: list[tuple[np.ndarray, np.ndarray]] = [
            (earlier.units, later.units) for earlier, later in self.graph.repeats
        ]
        self._all_apart: dict[int, bool] = {}
        self._holders: dict[tuple[int, bool], Any] = {}
        for step in self.graph.steps:
            self._pass(step)
        self._fix_whole_layers()
        self._tie_shared_layers()
        self.num_units = sum(stream.count for stream in self.graph.streams)
        self.roots = _roots(self.num_units, self._ties)

    def keeps_apart(self, layer: keras.Layer) -> bool:
        """Whether the activation of a layer keeps its units apart."""
        if id(layer) not in self._all_apart:
            self._all_apart[id(layer)] = keeps_units_apart(getattr(layer, "activation", None))
        return self._all_apart[id(layer)]

    def _fix(self, step: Step, why: str) -> None:
        """Takes all that a call reads and makes as needed."""
        streams = [*step.inputs, *step.outputs]
        self.fixed[step] = (why, np.concatenate([stream.units for stream in streams]))

    def _pass(self, step: Step) -> None:
        """Ties the units on both sides of a call."""
        wiring = wiring_for(step.layer)
        if wiring is not None:
            try:
                self._wire(step, wiring)
            except UnitsMixed as mixed:
                self._fix(step, str(mixed))
        elif any(stream.count == 0 for stream in (*step.inputs, *step.outputs)):
            self._fix(step, _UNKNOWN_SIZE)
        elif len(step.outputs) != 1:
            self._fix(step, "it is not known to keep units apart")
        else:
            try:
                shapes = [stream.shape for stream in step.inputs]
                places = places_behind(step.layer, shapes, self._over_units)
            except UnitsMixed as mixed:
                self._fix(step, str(mixed))
                return
            output, rule = step.outputs[0].units, rule_for(step.layer)
            if rule is not None and rule.takes_all and not self._over_units:
                self.together += [stream.units for stream in step.inputs]
            for stream, at in zip(step.inputs, places, strict=True):
                self._ties += [(stream.units, output[copy]) for copy in at.T]

    def _wire(self, step: Step, wiring: Wiring) -> None:
        """Finds between which units the kernels of a layer stand in a call."""
        layer = computing(step.layer)
        kernels = () if has_kernel(step.layer) else inner_kernels(layer)
        reasons = (wiring.why_not(layer), *(kernel.why_not_growable() for kernel in kernels))
        for why_not in filter(None, reasons):
            raise UnitsMixed(why_not)
        inputs = wiring.inputs(layer, step.names, step.options)
        outputs = wiring.outputs(layer, step.options, len(step.outputs))
        here = {side: step.inputs[number] for side, number in inputs.items()}
        here |= {side: stream for side, stream in zip(outputs, step.outputs, strict=True) if side}
        if any(stream.count == 0 for stream in here.values()):
            raise UnitsMixed(_UNKNOWN_SIZE)
        # A layer that is called several times is one layer: its weights can be cut once only.
        self.wirings[id(layer)] = wiring
        sides = self.sides.setdefault(id(layer), {})
        for side, stream in here.items():
            if sides.setdefault(side, stream).count != stream.count:
                raise UnitsMixed("it is called on tensors of different sizes")
            self._ties.append((sides[side].units, stream.units))
        for made, stream in zip(outputs, step.outputs, strict=True):
            if made:  # Several outputs may be one side, as a recurrent layer's states are.
                self._ties.append((sides[made].units, stream.units))
        for side, count in wiring.sides(layer).items():
            if side not in sides:
                sides[side] = self.graph.add_stream(count)
        for tie in wiring.ties(layer):
            if tie.one in sides and tie.other in sides:
                one, other = sides[tie.one].units, sides[tie.other].units
                self._ties.append((one[tie.units], other[tie.others]))
        known = {*inputs.values()}
        taken = [stream.units for n, stream in enumerate(step.inputs) if n not in known]
        taken += [x.units for x, side in zip(step.outputs, outputs, strict=True) if not side]
        self.taken[step] = np.concatenate([np.zeros(0, np.int64), *taken])
        if isinstance(wiring, OneKernel):
            self.kernels.setdefault(id(step.layer), []).append(step)
            if not self.keeps_apart(step.layer) or _atom_size(step.layer) > 1:
                self.mixed[step] = step.outputs[0].units
        streams = {**sides, **here}
        self.calls[step] = [
            KernelCall(
                *self._holder(step, between),
                between,
                units_along(between.reads, streams),
                units_along(between.makes, streams),
                streams,
                0 if between.positions is None else num_positions(streams[between.positions].shape),
            )
            for between in wiring.in_call(layer, step.options)
        ]

    def _fix_whole_layers(self) -> None:
        """What a layer is in one call, as when it gives its scores too, it must be in all."""
        whys = {id(step.layer): why for step, (why, _) in self.fixed.items()}
        for step in [*self.calls]:
            if id(step.layer) in whys:
                self.kernels.pop(id(step.layer), None)
                del self.calls[step], self.taken[step]
                self.mixed.pop(step, None)
                self._fix(step, whys[id(step.layer)])

    def _holder(self, step: Step, between: Between) -> tuple[Any, str]:
        """What stands for a kernel, and its path."""
        if has_kernel(step.layer):
            return step.layer, step.path
        layer = computing(step.layer)
        variable = attribute_of(layer, between.attribute)
        key = id(variable), between.is_reversed
        if key not in self._holders:
            holder = holders_of(step.layer)[id(variable)]
            self._holders[key] = reversed_of(holder) if between.is_reversed else holder
        name = between.attribute.replace("cell.", "").removeprefix("_")
        return self._holders[key], self.graph.paths.get(
            self._holders[key], f"{step.path}/{name.replace('_dense.', '/').replace('.', '/')}"
        )

    def _tie_shared_layers(self) -> None:
        """A layer that is called several times is one layer: its weights can be cut once only."""
        calls: dict[int, list[Step]] = {}
        for step in self.graph.steps:
            if getattr(step.layer, "weights", None) and step not in self.calls:
                calls.setdefault(id(step.layer), []).append(step)
        for first, *others in calls.values():
            streams = [*first.inputs, *first.outputs]
            for other in others:
                for one, another in zip(streams, [*other.inputs, *other.outputs], strict=False):
                    if one.count == another.count:
                        self._ties.append((one.units, another.units))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups of units that layers with a kernel make, in the model's order."""
        kinds = self._kinds()
        of_unit = kinds[self.roots]
        # The number of each unit's root among the roots of its kind.
        roots = np.flatnonzero(self.roots == np.arange(self.num_units))
        order = np.argsort(kinds[roots], kind="stable")
        counts = np.bincount(kinds[roots], minlength=kinds.max(initial=-1) + 1)
        first = np.cumsum(counts) - counts
        rank = np.empty(self.num_units, np.int64)
        rank[roots[order]] = np.arange(len(roots)) - first[kinds[roots[order]]]
        rank = rank[self.roots]

        def places(units: np.ndarray) -> list[tuple[int, np.ndarray]]:
            """Of each kind, where its units stand among some: `(units, copies)`."""
            of_these, found = of_unit[units], []
            for kind in dict.fromkeys(of_these.tolist()):
                at = np.flatnonzero(of_these == kind)
                at = at[np.argsort(rank[units[at]], kind="stable")]
                found.append((kind, at.reshape(counts[kind], -1)))
            return found

        made: dict[int, list[End]] = {}
        read: dict[int, list[End]] = {}
        biases: dict[int, list[Entries]] = {}
        passed: dict[int, list[End]] = {}
        moved, not_added = set(), set()
        seen: set[Any] = set()
        for step in self.graph.steps:
            for call in self.calls.get(step, ()):
                if (id(call.layer), call.between.is_reversed) in seen:
                    continue
                seen.add((id(call.layer), call.between.is_reversed))
                for sides, to in ((call.makes, made), (call.reads, read)):
                    for side, units in sides.items():
                        name = step.path if side in (INPUT, OUTPUT) else f"{step.path}/{side}"
                        for kind, at in places(units):
                            end = End(call.layer, call.path, at, call.between, step.layer, name)
                            to.setdefault(kind, []).append(end)
            if step in self.calls:
                if id(step.layer) not in seen:
                    for variable, sides in self._biases(step.layer):
                        for units in sides.values():
                            for kind, at in places(units):
                                biases.setdefault(kind, []).append(Entries(variable, at))
                seen.add(id(step.layer))
                continue
            if len(step.outputs) != 1:
                continue
            output, rule = step.outputs[0], rule_for(step.layer)
            if rule is not None and step not in self.fixed:
                kinds_behind = set(of_unit[output.units].tolist())
                moved |= kinds_behind if rule.moves else set()
                not_added |= set() if rule.adds else kinds_behind
            if id(step.layer) in seen or step in self.fixed:
                continue
            seen.add(id(step.layer))
            if getattr(step.layer, "weights", None):
                for kind, at in places(output.units):
                    passed.setdefault(kind, []).append(End(step.layer, step.path, at))
        why_fixed = self._reasons(of_unit)
        return tuple(
            Group(
                int(counts[kind]),
                tuple(made[kind]),
                tuple(read.get(kind, ())),
                tuple(biases.get(kind, ())),
                tuple(passed.get(kind, ())),
                why_fixed.get(kind),
                kind in moved,
                kind not in not_added,
                roots[kinds[roots] == kind],
            )
            for kind in made
        )

    def groups_of(self, layer: keras.Layer) -> list[Group]:
        """The groups that the units of a layer with a kernel belong to.

        Raises:
            UnitsNotFollowed: if the units of the layer can't be followed at all, saying why.
        """
        found = [group for group in self.groups if any(end.layer is layer for end in group.made_by)]
        if not found:
            reasons = [
                why
                for step, (why, _) in self.fixed.items()
                if step.layer is layer or layer in getattr(step.layer, "masked_kernels", ())
            ]
            (why, *_) = reasons or ["it is no layer of the model itself or of a model in it"]
            raise UnitsNotFollowed(
                "Units can be followed from Dense, growable and convolution layers of a model and "
                f"of models nested in it. Received: layer {layer.name!r}: {why}"
            )
        return found

    def _biases(self, layer: Any) -> list[tuple[keras.Variable, dict[str, np.ndarray]]]:
        """The biases of a layer, and the units that each of their entries belongs to."""
        layer = computing(layer)
        wiring = self.wirings[id(layer)]
        layouts, found = wiring.others(layer), []
        for name in wiring.biases(layer):
            variable = attribute_of(layer, name)
            if variable is not None:
                axis: Axis = reduce(operator.add, layouts[name])
                found.append((variable, units_along(axis, self.sides[id(layer)])))
        return found

    def _kinds(self) -> np.ndarray:
        """A number for each root: the same for those that stand equally often in each tensor."""
        kinds, next_kind = np.zeros(self.num_units, np.int64), 1
        for stream in self.graph.streams:
            roots, counts = np.unique(self.roots[stream.units], return_counts=True)
            pairs = np.stack([kinds[roots], counts], axis=1)
            found, which = np.unique(pairs, axis=0, return_inverse=True)
            kinds[roots] = next_kind + which.reshape(-1)
            next_kind += len(found)
        return kinds

    def _reasons(self, of_unit: np.ndarray) -> dict[int, str]:
        """Why the groups of some kinds can't change."""
        answers, given = self.graph.outputs, self.graph.inputs
        found = [
            *(("units of an output layer are the model's answer", each.units) for each in answers),
            *(("units of an input are what the model is given", each.units) for each in given),
            *((self._why_mixed(step), units) for step, units in self.mixed.items()),
            *((f"{step.path!r} needs them as they are", x) for step, x in self.taken.items()),
            *(
                (f"{step.path!r} ({type(step.layer).__name__}) in the way: {why}", units)
                for step, (why, units) in self.fixed.items()
            ),
        ]
        reasons: dict[int, str] = {}
        for why, units in found:
            for kind in np.unique(of_unit[units]).tolist():
                reasons.setdefault(kind, why)
        return reasons

    def _why_mixed(self, step: Step) -> str:
        if self.keeps_apart(step.layer):
            return f"those of {step.path!r} share their inputs in groups of {step.layer.atom_size}"
        return f"the activation of {step.path!r} mixes them"


def _atom_size(layer: keras.Layer) -> int:
    """How many connections of a layer with a kernel can only come and go together."""
    return layer.atom_size if isinstance(layer, Growable) else 1


def groups(model: keras.Model) -> tuple[Group, ...]:
    """The groups of units of a model: what can only come and go together.

    Units are followed through activations, dropout, normalization, pooling, Flatten, additions,
    products, concatenations, convolutions of all kinds, recurrent layers, attention, embeddings,
    shared layers and nested models; through layers of your own once
    `keras_grow.unit_rules.register` says how. Inside an attention, heads are units, and so are the
    dimensions that all heads have alike.

    Args:
        model: a built Sequential or functional model.

    Returns:
        A `Group` for all units that stand alike in the same layers, in the model's order. What
        can't change is listed too, and says why.

    Raises:
        UnitsNotFollowed: a `ValueError`, for a subclassed or unbuilt model.

    Example:

    ```python
    for group in keras_grow.groups(model):
        print(group)
    ```

    Reference: Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning",
    arXiv:2301.12900.
    """
    return UnitGraph(model).groups


def units_along(axis: Axis, sides: Mapping[str, Stream]) -> dict[str, np.ndarray]:
    """The numbers of the units that each entry of an axis belongs to, for each of its sides."""
    sizes = [sides[side].count if isinstance(side, str) else side for side in axis]
    places = np.indices(sizes).reshape(len(sizes), -1)
    return {
        side: sides[side].units[at]
        for side, at in zip(axis, places, strict=True)
        if isinstance(side, str)
    }


def _roots(count: int, ties: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For each unit the lowest number of those it is tied to, directly or through others."""
    roots = np.arange(count)
    while True:
        before = roots.copy()
        for one, other in (*ties, *reversed(ties)):
            lowest = np.minimum(roots[one], roots[other])
            np.minimum.at(roots, one, lowest)
            np.minimum.at(roots, other, lowest)
        roots = roots[roots]
        if np.array_equal(roots, before):
            return roots
