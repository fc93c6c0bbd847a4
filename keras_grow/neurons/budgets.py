"""Budgets: how small a network becomes when units are pruned, and what that is counted in."""

import abc
import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_grow.connections.amounts import NothingToChange
from keras_grow.neurons.latency_table import LatencyTable
from keras_grow.structure.graph import Step, Stream
from keras_grow.structure.kernels import axes_of
from keras_grow.structure.rules import Depthwise, computing, rule_for
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import KernelCall
from keras_grow.structure.wirings import Axis, Product, num_positions


@dataclasses.dataclass(frozen=True)
class LayerSize:
    """What a call of a layer costs hangs on this.

    Attributes:
        path: the layer's path.
        positions: at how many places of one sample its kernel is applied.
        window: how many places of the input each of them sees.
        inputs, units: how many are left, of those that a kernel mixes. In a depthwise convolution,
            which mixes none, `inputs` is 1.
        biases: how many biases each unit has.
        is_first_call: whether there are weights that no earlier call has.
    """

    path: str
    positions: int
    window: int
    inputs: int
    units: int
    biases: int = 1
    is_first_call: bool = True


class Budget(abc.ABC):
    """What is to be left of a network; write your own by overriding `cost`.

    Args:
        share: from 0 to 1, how much of what the network costs may be left; in
            `keras_grow.NeuronPruningCallback` also a callable of the epoch or step that says so,
            such as a `keras.optimizers.schedules.LearningRateSchedule`.
    """

    def __init__(self, share: float | Callable[[int], float]):
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not callable(share) and not (is_number and 0 < share < 1):
            raise ValueError(
                "A budget is a share of what the network costs, between 0 and 1. "
                f"Received: share={share!r}"
            )
        self.share = share

    def at(self, moment: int) -> "Budget":
        """The budget of an epoch or step, for a share that is a schedule; else the budget itself.

        Raises:
            ValueError: if the schedule says 0 or less.
        """
        if not callable(self.share):
            return self
        share = float(self.share(moment))
        if not share > 0:
            raise ValueError(
                "A schedule of shares must stay above 0. Received: "
                f"share({moment}) = {share} of {self.share!r}"
            )
        budget = copy.copy(self)
        budget.share = min(share, 1.0)
        return budget

    @abc.abstractmethod
    def cost(self, layer: LayerSize) -> float:
        """What a call of a layer costs, once it is compact; it grows with inputs and units."""


class FLOPs(Budget):
    """A share of the FLOPs of the compact network: 2 for each weight at each position.

    Of layers that are not followed, such as attention, none are counted.
    """

    def cost(self, layer: LayerSize) -> float:
        return 2.0 * layer.positions * layer.window * layer.inputs * layer.units


class Parameters(Budget):
    """A share of the weights and biases of the compact network."""

    def cost(self, layer: LayerSize) -> float:
        weights = layer.window * layer.inputs * layer.units + layer.biases * layer.units
        return float(weights if layer.is_first_call else 0)


class Milliseconds(Budget):
    """A share of the time of the compact network, by a table of what layers of some sizes take.

    The choice then does not hang on the clock: a table is measured once, kept, and passed in.

    Args:
        share: as of `Budget`.
        table: what `keras_grow.measure_latencies` measured, or any mapping from layer paths to
            pairs of `(inputs, units)` and milliseconds; between them it is interpolated by the
            number of products. Layers that it lacks are not counted.
    """

    def __init__(
        self,
        share: float | Callable[[int], float],
        table: LatencyTable | Mapping[str, Mapping[tuple[int, int], float]],
    ):
        super().__init__(share)
        self._table = {
            path: sorted((inputs * units, time) for (inputs, units), time in times.items())
            for path, times in table.items()
        }

    def cost(self, layer: LayerSize) -> float:
        known = self._table.get(layer.path)
        if not known:
            return 0.0
        products, times = zip(*known, strict=True)
        return float(np.interp(layer.inputs * layer.units, products, times))


class Sizes:
    """How large the layers of a model are once some of its units are gone.

    Args:
        graph: the graph of the model's units.
    """

    def __init__(self, graph: UnitGraph):
        self._graph = graph
        self._sized: list[Callable[[np.ndarray], LayerSize]] = []
        seen: set[Any] = set()
        for step in graph.graph.steps:
            is_first = step.layer not in seen
            for call in graph.calls.get(step, ()):
                kernel = step.layer, call.between.attribute
                self._sized.append(self._of_kernel(call, kernel not in seen))
                seen.add(kernel)
            if step in graph.calls:
                self._sized += self._beside_kernels(step, is_first)
            elif isinstance(rule_for(step.layer), Depthwise) and step not in graph.fixed:
                self._sized.append(self._of_depthwise(step, is_first))
            seen.add(step.layer)

    def cost(self, is_left: np.ndarray, budget: Budget) -> float:
        """What all calls cost.

        Args:
            is_left: bool, which of the graph's roots are left.
            budget: what it is counted in.
        """
        return sum(budget.cost(sized(is_left)) for sized in self._sized)

    def _of_kernel(
        self, call: KernelCall, is_first_call: bool
    ) -> Callable[[np.ndarray], LayerSize]:
        axes, between, streams = axes_of(call.layer), call.between, call.streams
        window = axes.num_positions
        # Each group of units of a convolution may read inputs of its own.
        reads = between.reads if axes.num_groups == 1 else between.layout[-2]

        def size(is_left: np.ndarray) -> LayerSize:
            inputs, units = (self._left(axis, streams, is_left) for axis in (reads, between.makes))
            return LayerSize(
                call.path, call.positions, window, inputs, units, between.biases, is_first_call
            )

        return size

    def _beside_kernels(
        self, step: Step, is_first_call: bool
    ) -> list[Callable[[np.ndarray], LayerSize]]:
        streams, layer = self._graph.calls[step][0].streams, computing(step.layer)
        shapes = {side: stream.shape for side, stream in streams.items()}

        def sized(product: Product) -> Callable[[np.ndarray], LayerSize]:
            def size(is_left: np.ndarray) -> LayerSize:
                units = self._left(product.axis, streams, is_left)
                has_weights = product.has_weights and is_first_call
                return LayerSize(
                    step.path, product.positions, product.window, 1, units, 0, has_weights
                )

            return size

        wiring = self._graph.wirings[id(layer)]
        return [sized(product) for product in wiring.products(layer, shapes)]

    def _of_depthwise(self, step: Step, is_first_call: bool) -> Callable[[np.ndarray], LayerSize]:
        layer, (output,) = computing(step.layer), step.outputs
        window, biases = math.prod(layer.kernel_size), int(layer.bias is not None)

        def size(is_left: np.ndarray) -> LayerSize:
            units = int(is_left[self._graph.roots[output.units]].sum())
            positions = num_positions(output.shape)
            return LayerSize(step.path, positions, window, 1, units, biases, is_first_call)

        return size

    def _left(self, axis: Axis, streams: Mapping[str, Stream], is_left: np.ndarray) -> int:
        """How many entries are left on an axis that counts those of some sides."""
        roots = self._graph.roots
        return math.prod(
            int(is_left[roots[streams[side].units]].sum()) if isinstance(side, str) else side
            for side in axis
        )


def units_within(
    roots: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    is_removable: Sequence[np.ndarray],
    is_connected: Sequence[np.ndarray],
    graph: UnitGraph,
    budget: Budget,
    multiple_of: int,
) -> list[np.ndarray]:
    """The units of each group to remove so that a network is within a budget.

    They are as few as will do, those of lowest score first; where the number that a group keeps
    must be a multiple of some number, the best of them stay. The budget is a share of the network
    with all its units; those without a connection are gone already.

    Args:
        roots: of each group, the numbers of its units in the graph.
        scores: of its units.
        is_removable: which of them may go.
        is_connected: which of them are there.
        graph: the graph of the model's units.
        budget: the budget.
        multiple_of: what the number of units that a group keeps is a multiple of, as far as it had
            as many.

    Raises:
        NothingToChange: if the network is within the budget.
        ValueError: for a budget that is not reached with all that may go removed.
    """
    sizes = Sizes(graph)
    order = np.argsort(
        np.concatenate(
            [np.where(ok, values, np.inf) for ok, values in zip(is_removable, scores, strict=True)]
        ),
        kind="stable",
    )
    group_of = np.repeat(np.arange(len(roots)), [len(each) for each in roots])
    ranks = [
        np.argsort(np.where(ok, values, np.inf), kind="stable")
        for ok, values in zip(is_removable, scores, strict=True)
    ]
    num_there = [int(there.sum()) for there in is_connected]
    num_spare = [int(ok.sum()) for ok in is_removable]

    def removed(number: int) -> list[np.ndarray]:
        counts = np.bincount(group_of[order[:number]], minlength=len(roots))
        chosen = []
        for rank, there, spare, count in zip(ranks, num_there, num_spare, counts, strict=True):
            kept = -(-(there - count) // multiple_of) * multiple_of
            chosen.append(np.sort(rank[: min(max(0, there - kept), spare)]))
        return chosen

    def cost(number: int) -> float:
        is_left = np.ones(graph.num_units, bool)
        for of_group, there, units in zip(roots, is_connected, removed(number), strict=True):
            is_left[of_group[~there]] = False
            is_left[of_group[units]] = False
        return sizes.cost(is_left, budget)

    whole = sizes.cost(np.ones(graph.num_units, bool), budget)
    low, high = 0, sum(num_spare)
    share: Any = budget.share  # A number: `Budget.at` has asked a schedule.
    goal = share * whole
    if cost(low) <= goal:
        raise NothingToChange(
            "The network is within the budget. Received: a share of "
            f"{share}, with {cost(low) / whole if whole else 0:.3f} left already"
        )
    if cost(high) > goal:
        raise ValueError(
            "The budget is below what is left with every unit gone that may go. Received: a share "
            f"of {share}, expected at least {cost(high) / whole:.3f}"
        )
    while low < high:
        middle = (low + high) // 2
        if cost(middle) <= goal:
            high = middle
        else:
            low = middle + 1
    return removed(low)
