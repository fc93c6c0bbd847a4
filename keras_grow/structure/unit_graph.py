"""The one graph of units: which units of a model are one and the same, and which can't change.

Every tensor has units, the entries of its last axis. Layers that keep units apart, additions and
concatenations tie units of several tensors together: they come and go as one, a group. Layers with
a kernel read some units and make others. All else is taken to need every unit that it reads, and to
make units that can't go.

    x ── Dense a ──┬────────────── Add ── ReLU ── Dense c ── y
                   └── Dense b ────┘

Here unit 3 of `a`, unit 3 of `b`, and the weights of `c` that read number 3 are one group.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import keras
import numpy as np

from keras_grow.structure.graph import Graph, Step, Stream, UnitsNotFollowed
from keras_grow.structure.kernels import has_kernel, why_not_followed
from keras_grow.structure.rules import (
    UnitsMixed,
    keeps_units_apart,
    places_behind,
    rule_for,
)


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """Where the units of a group stand in a layer.

    Attributes:
        layer: the layer.
        path: its path in the model.
        indices: int64 array of shape `(units, copies)`: for each unit its positions on the last
            axis of the layer's output; for a layer that reads the group, of its input. There is one
            copy, unless a Flatten laid several positions side by side or the like.
    """

    layer: keras.Layer
    path: str
    indices: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Units that stand alike in the same layers; each can only come and go in all of them at once.

    Attributes:
        count: how many units, each of which may go without the others.
        made_by: the layers with a kernel that make the units: one, or all ends of additions.
        read_by: the layers with a kernel that read them.
        passed: the other layers with weights that they pass, such as normalizations.
        why_fixed: what is in the way of a change, `None` if nothing is.
        moves: whether a unit is pooled, repeated or moved on its way to a reader.
        adds: whether its makers are added up, and not multiplied or compared.
        roots: int64 array of shape `(units,)`, what the `UnitGraph` calls them.
    """

    count: int
    made_by: tuple[End, ...]
    read_by: tuple[End, ...]
    passed: tuple[End, ...]
    why_fixed: str | None
    moves: bool
    adds: bool
    roots: np.ndarray = dataclasses.field(repr=False)

    def __str__(self) -> str:
        makers, readers, passed = (
            ", ".join(repr(end.path) for end in ends) or "nothing"
            for ends in (self.made_by, self.read_by, self.passed)
        )
        through = f", through {passed}" if self.passed else ""
        fixed = f"; they can't change: {self.why_fixed}" if self.why_fixed else ""
        return f"{self.count} units of {makers}{through}, read by {readers}{fixed}"


class UnitGraph:
    """Which units of a model are tied together.

    Args:
        model: a built Sequential or functional model.

    Attributes:
        graph: the model's calls, those inside nested models included.
        kernels: the calls of each layer with a kernel that can be followed, by the layer's `id`.
        fixed: for each call that may mix units, or makes them in an unknown way: why, and the
            numbers of all units that it reads and makes.
        mixed: for each call of a layer with a kernel whose activation mixes units: their numbers.
        roots: for each unit the lowest number of those it is tied to: int64.

    Raises:
        UnitsNotFollowed: for a subclassed or unbuilt model.
    """

    def __init__(self, model: keras.Model):
        self.graph = Graph(model)
        self.num_units = sum(stream.count for stream in self.graph.streams)
        self.kernels: dict[int, list[Step]] = {}
        self.fixed: dict[Step, tuple[str, np.ndarray]] = {}
        self.mixed: dict[Step, np.ndarray] = {}
        self._ties: list[tuple[np.ndarray, np.ndarray]] = [
            (earlier.units, later.units) for earlier, later in self.graph.repeats
        ]
        self._all_apart: dict[int, bool] = {}
        for step in self.graph.steps:
            self._pass(step)
        self._tie_shared_layers()
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
        if any(stream.count == 0 for stream in (*step.inputs, *step.outputs)):
            self._fix(step, "the last axis of its input or output is not known")
        elif has_kernel(step.layer) and len(step.inputs) == 1:
            why_not = why_not_followed(step.layer)
            if why_not is not None:
                self._fix(step, why_not)
                return
            self.kernels.setdefault(id(step.layer), []).append(step)
            if not self.keeps_apart(step.layer):
                self.mixed[step] = step.outputs[0].units
        elif len(step.outputs) != 1:
            self._fix(step, "it is not known to keep units apart")
        else:
            try:
                places = places_behind(step.layer, [stream.shape for stream in step.inputs])
            except UnitsMixed as mixed:
                self._fix(step, str(mixed))
                return
            output = step.outputs[0].units
            for stream, at in zip(step.inputs, places, strict=True):
                self._ties += [(stream.units, output[copy]) for copy in at.T]

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

        def ends(stream: Stream, step: Step) -> list[tuple[int, End]]:
            of_stream, found = of_unit[stream.units], []
            for kind in dict.fromkeys(of_stream.tolist()):
                at = np.flatnonzero(of_stream == kind)
                at = at[np.argsort(rank[stream.units[at]], kind="stable")]
                indices = at.reshape(counts[kind], -1)
                found.append((kind, End(step.layer, step.path, indices)))
            return found

        made: dict[int, list[End]] = {}
        read: dict[int, list[End]] = {}
        passed: dict[int, list[End]] = {}
        moved, not_added, seen = set(), set(), set()
        for step in self.graph.steps:
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
            if id(step.layer) in self.kernels:
                sides = [(output, made), (step.inputs[0], read)]
            elif getattr(step.layer, "weights", None):
                sides = [(output, passed)]
            else:
                continue
            for stream, to in sides:
                for kind, end in ends(stream, step):
                    to.setdefault(kind, []).append(end)
        why_fixed = self._reasons(of_unit)
        return tuple(
            Group(
                int(counts[kind]),
                tuple(made[kind]),
                tuple(read.get(kind, ())),
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
            reasons = [why for step, (why, _) in self.fixed.items() if step.layer is layer]
            (why, *_) = reasons or ["it is no layer of the model itself or of a model in it"]
            raise UnitsNotFollowed(
                "Units can be followed from Dense, growable and convolution layers of a model and "
                f"of models nested in it. Received: layer {layer.name!r}: {why}"
            )
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
            *((f"the activation of {step.path!r} mixes them", x) for step, x in self.mixed.items()),
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


def groups(model: keras.Model) -> tuple[Group, ...]:
    """The groups of units of a model: what can only come and go together.

    Units are followed through activations, dropout, normalization, pooling, Flatten, additions,
    products, concatenations, depthwise convolutions, shared layers and nested models; through
    layers of your own once `keras_grow.unit_rules.register` says how.

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
