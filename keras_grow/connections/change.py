"""What growing and pruning share: how many, which, and the record of what was done."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable, check_finite, growable_layers
from keras_grow.layers.paths import find_layers, paths_of
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import check_is_elementwise, check_resettable, steps_made
from keras_grow.policies.densities import (
    DensityDistribution,
    check_density,
    exact_count,
    exact_counts,
)
from keras_grow.policies.scores import Score
from keras_grow.policies.start_values import StartValue
from keras_grow.policies.statistics import ModelStatistic, Statistic
from keras_grow.search import selection
from keras_grow.search.measurements import Measurements
from keras_grow.search.tiled_array import Values
from keras_grow.search.tiled_search import TiledSearch
from keras_grow.structure.graph import Graph


class NothingToChange(ValueError):
    """Raised where the model already has what was asked for."""


class CapacityUsedUp(NothingToChange):
    """Raised by growth where no layer has a slot left for another connection."""


@dataclasses.dataclass(frozen=True)
class LayerChange:
    """What growth or pruning did to one layer.

    Attributes:
        name: the layer's path in the model.
        indices: int64 tensor, the flat indices of the changed connections, ascending.
        num_active: how many connections of the layer are active now.
    """

    name: str
    indices: tf.Tensor = dataclasses.field(repr=False)
    num_active: int

    @property
    def count(self) -> int:
        """How many connections changed."""
        return len(self.indices)


@dataclasses.dataclass(frozen=True)
class ChangeRecord:
    """What a call of `grow` or `prune` did; its `str` says it in a line.

    Attributes:
        layers: a `LayerChange` for each layer that took part, in the model's order.
        num_active: active connections of these layers, now.
        num_connections: all their connections.
        seconds: how long it took.
        loss: the mean loss on the growth data before the change, or `None` if it was not measured.
        is_complete: whether all connections were ranked; False where the time given to the search
            in a sparse layer ran out, and the best found until then were taken.
    """

    layers: tuple[LayerChange, ...]
    num_active: int
    num_connections: int
    seconds: float
    loss: float | None
    is_complete: bool = True

    @property
    def count(self) -> int:
        """How many connections changed."""
        return sum(layer.count for layer in self.layers)

    @property
    def density(self) -> float:
        """Active connections over all connections, now."""
        return self.num_active / self.num_connections

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        loss += "" if self.is_complete else ", search incomplete"
        return (
            f"{self.count:,} connections changed, {self.num_active:,} of "
            f"{self.num_connections:,} active ({self.density:.2%}){loss}, {self.seconds:.2f} s"
        )


def changeable_layers(
    model: keras.Model, layers: Sequence[str | Growable] | None
) -> list[Growable]:
    """The layers to change: those asked for, or every trainable growable layer of `model`.

    Raises:
        ValueError: for a layer that the model does not have or that is frozen.
    """
    of_model = growable_layers(model)
    if layers is None:
        chosen = [layer for layer in of_model if layer.trainable]
        if not chosen:
            raise ValueError(
                "The model has no trainable growable layer. Received: growable layers "
                f"{paths_of(model, of_model)}, all with trainable=False"
            )
        return chosen
    need = "`layers` must list growable layers of the model, or their paths or names."
    chosen = find_layers(model, layers, of_model, need)
    frozen = paths_of(model, [layer for layer in chosen if not layer.trainable])
    if frozen:
        raise ValueError(
            "A frozen layer's connections can't change: they would never be trained. Received: "
            f"layers {frozen} with trainable=False. Set `layer.trainable = True` first."
        )
    return chosen


@dataclasses.dataclass(frozen=True)
class Group:
    """Layers whose connections compete.

    Attributes:
        layers: the layers.
        count: how many of their connections change.
        limits: how many of each layer may.
    """

    layers: list[Growable]
    count: int
    limits: list[int]


def counts_to_change(
    model: keras.Model,
    layers: Sequence[Growable],
    count: int | None,
    density: float | DensityDistribution | None,
    per_layer: bool,
    grows: bool,
) -> list[Group]:
    """How many connections to change, in groups of layers whose connections compete.

    Pruning leaves every layer a connection, unless a distribution asks for a density of 0 there.

    Returns:
        A group for each layer with `per_layer` or a distribution of densities, else one group of
        all layers.

    Raises:
        ValueError: unless exactly one of `count` and `density` is given and in range.
        NothingToChange: if every count is 0.
        CapacityUsedUp: if that is because sparse layers hold as many as they can.
    """
    verb = "grow" if grows else "prune"
    if (count is None) == (density is None):
        raise ValueError(
            f"Pass exactly one of `count` (connections to {verb}) and `density` (to reach)"
            f"{'' if grows else ', or `threshold` (of the score)'}. "
            f"Received: count={count}, density={density}"
        )
    sizes, active = [x.num_connections for x in layers], [x.num_active for x in layers]
    limits = [x.num_free for x in layers] if grows else [max(0, n - 1) for n in active]
    is_separate = per_layer or isinstance(density, DensityDistribution)
    if count is not None:
        count = checked_integer(count, "count")
        spare = min(limits) if is_separate else sum(limits)
        if not grows and count > spare:
            raise ValueError(
                f"Pruning must leave active connections, at least one in each layer. Received: "
                f"count={count}, expected at most {spare}, with {active} active connections in "
                f"{paths_of(model, layers)}"
            )
        counts = [count] * (len(layers) if is_separate else 1)
    elif density is not None:
        if isinstance(density, DensityDistribution):
            targets = density([layer.kernel_shape for layer in layers])
        else:
            check_density(density)
            targets = [density] * len(layers)
        if sum(targets) == 0:
            raise ValueError(f"A density of 0 leaves no connection. Received: density={density!r}")
        if is_separate:
            bounds = {"least": active} if grows else {"most": active}
            reached = exact_counts(targets, sizes, **bounds)
            counts = [abs(r - a) for r, a in zip(reached, active)]
            if not grows:
                limits = counts
        else:
            change = exact_count(targets[0], sum(sizes)) - sum(active)
            counts = [max(0, change) if grows else max(0, min(-change, sum(limits)))]
    if is_separate:
        groups = [Group([x], n, [most]) for x, n, most in zip(layers, counts, limits, strict=True)]
    else:
        groups = [Group(list(layers), counts[0], limits)]
    if grows:
        # More than there is room for takes all of it.
        groups = [
            dataclasses.replace(group, count=min(group.count, sum(group.limits)))
            for group in groups
        ]
        if any(counts) and not any(group.count for group in groups) and sum(active) < sum(sizes):
            raise CapacityUsedUp(
                f"No slot is free for another connection. Received: {sum(active)} of {sum(sizes)} "
                f"connections active in {paths_of(model, layers)}, which hold no more. "
                "Make a copy with more slots: `keras_grow.make_sparse(model, capacity=...)`."
            )
    if not any(group.count for group in groups):
        raise NothingToChange(
            f"There is nothing to {verb}. Received: "
            f"{f'count={count}' if density is None else f'density={density!r}'}, with "
            f"{sum(active)} of {sum(sizes)} connections active (density "
            f"{sum(active) / sum(sizes):.6g}) in {paths_of(model, layers)}. "
            + (
                "Growing needs dormant connections below the density to reach."
                if grows
                else "Pruning reaches lower densities, and leaves every layer a connection."
            )
        )
    return groups


def choose(
    groups: Sequence[Group],
    candidates_of: Callable[[Growable, int], selection.Candidates],
) -> tuple[list[tf.Tensor], bool]:
    """The flat indices to change in each layer.

    Args:
        groups: layers whose connections compete.
        candidates_of: called with a layer and a count, gives that many of its best.

    Returns:
        The indices, and whether all candidates were ranked.
    """
    chosen, is_complete = [], True
    for group in groups:
        candidates = [
            candidates_of(layer, min(group.count, limit))
            for layer, limit in zip(group.layers, group.limits, strict=True)
        ]
        is_complete &= all(of_layer.is_complete for of_layer in candidates)
        chosen += selection.merge(candidates, group.count)
    return chosen, is_complete


def record(
    model: keras.Model,
    layers: Sequence[Growable],
    chosen: Sequence[tf.Tensor],
    seconds: float,
    loss: float | None,
    is_complete: bool = True,
) -> ChangeRecord:
    """The record of a change that has been made."""
    changes = tuple(
        LayerChange(path, indices, layer.num_active)
        for path, layer, indices in zip(paths_of(model, layers), layers, chosen, strict=True)
    )
    return ChangeRecord(
        changes,
        sum(change.num_active for change in changes),
        sum(layer.num_connections for layer in layers),
        seconds,
        loss,
        is_complete,
    )


def optimizer_of(model: keras.Model, optimizer: Any, layers: Sequence[Growable]) -> Any:
    """The optimizer whose slots must follow: the one given, or the model's, if it has one.

    Raises:
        ValueError: for an optimizer that cannot go with a change of `layers`.
    """
    if optimizer is None and model.compiled:
        optimizer = model.optimizer
    check_resettable(optimizer)
    for layer, path in zip(layers, paths_of(model, layers), strict=True):
        if layer.is_sparse:
            check_is_elementwise(optimizer, path, layer.kernel_variables[0])
    return optimizer


def check_policy(policy: Any, kind: type, name: str) -> None:
    """Raises `TypeError` unless `policy` is an instance of the base class `kind`."""
    if not isinstance(policy, kind):
        raise TypeError(
            f"`{name}` must be an object of a subclass of {kind.__module__}.{kind.__qualname__}. "
            f"Received: {policy!r}"
        )


def measure_statistics(
    model: keras.Model,
    data: Any,
    layers: Sequence[Growable],
    policies: Iterable[Score | StartValue],
    *,
    meter: GradientMeter | None,
    optimizer: Any,
    search: TiledSearch | None = None,
) -> tuple[dict[Growable, Measurements], float | None]:
    """Measures the statistics that policies name, and the loss where one of them hangs on it.

    Raises:
        TypeError: for policies that name something else.
        ValueError: if something must be measured and there is no data, and for stored weights or
            measured numbers that are not finite.
    """
    check_finite(model, layers)
    statistics = list(dict.fromkeys(each for policy in policies for each in policy.statistics))
    for statistic in statistics:
        check_policy(statistic, Statistic, "statistics")
    of_model = [each for each in statistics if isinstance(each, ModelStatistic)]
    of_data = [each for each in statistics if each not in of_model]
    if data is None and of_data:
        raise ValueError(
            "This score, or start value, is measured on data. Received: data=None. Pass "
            "`data=(x, y)`, a dataset or an iterable of batches."
        )
    meter = GradientMeter() if meter is None else meter
    search = TiledSearch() if search is None else search
    values: dict[Growable, dict[Statistic, Values]] = {layer: {} for layer in layers}
    loss = None
    if of_data:
        found = meter.measure(model, data, layers, optimizer, search, of_data)
        values, loss = found.values, found.loss
    for statistic in of_model:
        for layer, known in statistic.look_up(model, layers, Graph).items():
            values[layer][statistic] = known
    num_sparse = sum(layer.is_sparse for layer in layers)
    if search.max_seconds is not None and num_sparse:
        # Sparse layers are searched one after the other; each gets an equal part of the time.
        search = dataclasses.replace(search, max_seconds=search.max_seconds / num_sparse)
    step = steps_made(optimizer)
    measured = {
        layer: Measurements(index, step, values[layer], search)
        for index, layer in enumerate(layers)
    }
    return measured, loss
