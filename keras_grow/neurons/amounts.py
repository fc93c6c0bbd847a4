"""How many units to remove, and which: of all groups together, or of each by itself."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from keras_grow.connections.acted_on import check_policy
from keras_grow.connections.amounts import NothingToChange
from keras_grow.neurons.budgets import Budget, units_within
from keras_grow.neurons.units import Units, checked_count
from keras_grow.policies.densities import check_density, exact_count
from keras_grow.structure.unit_graph import UnitGraph


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much to remove: exactly one of four, the others are `None`.

    Attributes:
        count, density, threshold, budget, per_group, multiple_of: as in `prune_neurons`.

    Raises:
        TypeError, ValueError: unless one is given, and in range.
    """

    count: int | None = None
    density: float | None = None
    threshold: float | None = None
    budget: Budget | None = None
    per_group: bool = False
    multiple_of: int = 1

    def __post_init__(self):
        amounts = (self.count, self.density, self.threshold, self.budget)
        if sum(each is not None for each in amounts) != 1:
            raise ValueError(
                "Pass exactly one of `count` (units to remove), `density` (the share of units that "
                "stay), `threshold` (the score below which they are removed) and `budget` (what "
                f"may be left). Received: count={self.count}, density={self.density}, "
                f"threshold={self.threshold}, budget={self.budget}"
            )
        if self.count is not None:
            checked_count(self.count)
        if self.density is not None:
            check_density(self.density)
            if self.density == 0:
                raise ValueError("A density of 0 leaves no unit. Received: density=0")
        if self.budget is not None:
            check_policy(self.budget, Budget, "budget")
            if callable(self.budget.share):
                raise ValueError(
                    "A single call needs a budget of one share; a schedule of them is for "
                    f"`keras_grow.NeuronPruningCallback`. Received: share={self.budget.share!r}"
                )
        if checked_count(self.multiple_of, "multiple_of") > 1 and self.budget is None:
            raise ValueError(
                "Units are left in multiples of a number within a budget, which says how many may "
                f"stay. Received: multiple_of={self.multiple_of}, budget=None"
            )


def choose(
    groups: Sequence[Units], scores: Sequence[np.ndarray], amount: Amount, graph: UnitGraph
) -> list[np.ndarray]:
    """The units to remove of each group, ascending: those of smallest score.

    Every group keeps its best unit, of equals the last.

    Raises:
        NothingToChange: if no unit is to go.
        ValueError: for more units than may go, and a budget that can't be reached.
    """
    connected = [units.connected() for units in groups]
    removable = []
    for is_connected, values in zip(connected, scores, strict=True):
        is_removable = is_connected.copy()
        if np.any(is_removable):
            # Among equals the first go, and so the last is it that stays.
            best = np.argmax(np.where(is_removable, values, -np.inf)[::-1])
            is_removable[::-1][best] = False
        removable.append(is_removable)
    if amount.budget is not None:
        return units_within(
            [units.group.roots for units in groups],
            [_in_turn(x, ok) for x, ok in zip(scores, removable, strict=True)]
            if amount.per_group
            else scores,
            removable,
            connected,
            graph,
            amount.budget,
            amount.multiple_of,
        )
    if amount.threshold is not None:
        return _below(amount.threshold, scores, removable)
    if amount.per_group:
        counts = _counts_per_group(groups, connected, removable, amount)
        return [
            _smallest(values, ok, number)
            for values, ok, number in zip(scores, removable, counts, strict=True)
        ]
    together = _smallest(
        np.concatenate(scores),
        np.concatenate(removable),
        _count_together(groups, connected, removable, amount),
    )
    ends = np.cumsum([0, *(units.count for units in groups)])
    return [
        together[(together >= start) & (together < end)] - start
        for start, end in itertools.pairwise(ends)
    ]


def _count_together(
    groups: Sequence[Units],
    connected: Sequence[np.ndarray],
    removable: Sequence[np.ndarray],
    amount: Amount,
) -> int:
    spare = int(sum(ok.sum() for ok in removable))
    if amount.count is not None:
        if amount.count > spare:
            raise ValueError(
                f"Each layer keeps at least one of its units. Received: count={amount.count}, with "
                f"{spare} units to spare in {[units.path for units in groups]}"
            )
        return amount.count
    num_units, num_connected = sum(map(len, connected)), int(sum(map(np.sum, connected)))
    left = exact_count(amount.density or 0.0, num_units)
    number = min(num_connected - left, spare)
    if number <= 0:
        raise _nothing_above(amount.density, num_connected, num_units)
    return number


def _counts_per_group(
    groups: Sequence[Units],
    connected: Sequence[np.ndarray],
    removable: Sequence[np.ndarray],
    amount: Amount,
) -> list[int]:
    spares = [int(ok.sum()) for ok in removable]
    if amount.count is not None:
        if amount.count > min(spares):
            raise ValueError(
                "Each layer keeps at least one of its units. Received: "
                f"count={amount.count} of each group, with {spares} units to spare in "
                f"{[units.path for units in groups]}"
            )
        return [amount.count] * len(groups)
    left = [exact_count(amount.density or 0.0, len(each)) for each in connected]
    counts = [
        max(0, min(int(each.sum()) - stay, spare))
        for each, stay, spare in zip(connected, left, spares, strict=True)
    ]
    if not any(counts):
        num_connected = int(sum(map(np.sum, connected)))
        raise _nothing_above(amount.density, num_connected, sum(map(len, connected)))
    return counts


def _below(
    threshold: float, scores: Sequence[np.ndarray], removable: Sequence[np.ndarray]
) -> list[np.ndarray]:
    chosen = [
        np.flatnonzero(ok & (values < threshold))
        for ok, values in zip(removable, scores, strict=True)
    ]
    if not any(map(len, chosen)):
        raise NothingToChange(
            f"No unit scores below the threshold. Received: threshold={threshold}, with scores "
            f"from {min(map(np.min, scores)):.4g} to {max(map(np.max, scores)):.4g}"
        )
    return chosen


def _smallest(values: np.ndarray, may_go: np.ndarray, number: int) -> np.ndarray:
    """The units of smallest score that may go, ascending; among equals the first."""
    order = np.argsort(np.where(may_go, values, np.inf), kind="stable")
    return np.sort(order[:number])


def _in_turn(values: np.ndarray, may_go: np.ndarray) -> np.ndarray:
    """Scores by which groups, ranked together, lose equal shares: from 0 to 1 by rank."""
    ranks = np.argsort(np.argsort(np.where(may_go, values, np.inf), kind="stable"))
    return (ranks + 0.5) / max(1, int(may_go.sum()))


def _nothing_above(density: float | None, num_connected: int, num_units: int) -> NothingToChange:
    return NothingToChange(
        f"There is no unit to remove. Received: density={density}, with {num_connected} of "
        f"{num_units} units connected, and each layer keeps at least one"
    )
