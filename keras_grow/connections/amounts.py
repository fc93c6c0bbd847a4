"""How many connections to change, among which layers, and the best that many."""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of
from keras_grow.policies.densities import (
    DensityDistribution,
    check_density,
    exact_count,
    exact_counts,
)
from keras_grow.search import selection


class NothingToChange(ValueError):
    """Raised where the model already has what was asked for."""


class CapacityUsedUp(NothingToChange):
    """Raised by growth where no layer has a slot left for another connection."""


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

    Pruning leaves every layer a connection, unless a distribution asks for a density of 0 there;
    and an atom where connections come and go together. Of atoms, these counts are at most.

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
    sizes_of_atoms = [x.atom_size for x in layers]
    if grows:
        limits = [x.num_free for x in layers]
    else:
        limits = [max(0, n - least) for n, least in zip(active, sizes_of_atoms, strict=True)]
    is_separate = per_layer or isinstance(density, DensityDistribution)
    if count is not None:
        count = checked_integer(count, "count")
        spare = min(limits) if is_separate else sum(limits)
        if not grows and count > spare:
            raise ValueError(
                "Pruning must leave active connections, at least one in each layer"
                f"{_or_groups_of(sizes_of_atoms)}. Received: "
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
    _check_room_for_atoms(model, groups, verb)
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


def _or_groups_of(sizes: Sequence[int]) -> str:
    """What to add to "a connection" where layers have them in groups of some sizes."""
    of_atoms = sorted({size for size in sizes if size > 1})
    return f", or a group of {' or '.join(map(str, of_atoms))}" if of_atoms else ""


def _check_room_for_atoms(model: keras.Model, groups: Sequence[Group], verb: str) -> None:
    """Raises `NothingToChange` where counts are below the connections that change together."""
    least = [
        (layer.atom_size, group.count)
        for group in groups
        for layer, limit in zip(group.layers, group.limits, strict=True)
        if min(group.count, limit) > 0
    ]
    if least and all(count < size for size, count in least):
        layers = [layer for group in groups for layer in group.layers]
        raise NothingToChange(
            f"There is nothing to {verb}: connections come and go in groups, which are larger. "
            f"Received: {max(count for _, count in least)} connections to {verb}, expected at "
            f"least {min(size for size, _ in least)}, the `group_size` of "
            f"{paths_of(model, layers)}."
        )


def num_asked(groups: Sequence[Group]) -> int:
    """How many connections change, where they can one by one."""
    return sum(group.count for group in groups)


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
