"""Connections that go and as many that come, at a constant count."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.amounts import NothingToChange, choose, counts_to_change
from keras_grow.connections.candidates import growth_candidates, pruning_candidates
from keras_grow.connections.growing import checked_values
from keras_grow.connections.measured import measure_statistics, topologies
from keras_grow.connections.patterned import Placed, check_can_exchange, check_can_grow, place
from keras_grow.connections.record import ExchangeRecord, LayerChange
from keras_grow.connections.shares import shared_counts
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import reset_slots
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.sparse_training import Method, RigL
from keras_grow.policies.statistics import Gradient
from keras_grow.search.flat_arrays import taken
from keras_grow.search.in_pattern import InPattern
from keras_grow.search.measurements import Measurements
from keras_grow.search.selection import Candidates
from keras_grow.search.tiled_search import TiledSearch


def drop_and_grow(
    model: keras.Model,
    data: Any = None,
    *,
    fraction: float = 0.3,
    method: Method | None = None,
    density: float | DensityDistribution | None = None,
    pattern: Pattern | None = None,
    per_layer: bool = False,
    layers: Sequence[str | Growable] | None = None,
    meter: GradientMeter | None = None,
    search: TiledSearch | None = None,
    optimizer: keras.Optimizer | None = None,
) -> ExchangeRecord:
    """Drops a fraction of each layer's active connections and grows as many in their place.

    The count stays what it is. What is dropped may come back at once, if it is among the best of
    all that is dormant then; it keeps its weight and the optimizer's state, as if nothing had been.
    Ties go to the lower index. The change is all or nothing, over both halves: where it raises, the
    model is as it was.

    Args:
        model: a built model with growable layers.
        data: growth data, in the forms that `keras_grow.grow` takes. Methods that measure nothing
            (`SET`, `CannistraciHebb`) need none.
        fraction: from 0 to 1, how many of a layer's active connections are dropped; rounded down,
            of layers with a `group_size` to whole groups, in a pattern to whole blocks.
        method: by which scores connections go and come, by default
            `keras_grow.sparse_training.RigL()`.
        density: the density to prune to before, as in `keras_grow.prune`; a network that is as
            sparse already stays at its count.
        pattern: what the active connections of each layer lie in, before and after, such as
            `keras_grow.patterns.NM(2, 4)`, or, as in SRigL, `ConstantFanIn(32)`. Blocks go and
            come as a whole. Of few that have room, see `keras_grow.grow`.
        per_layer: whether each layer is pruned to `density` by itself.
        layers: growable layers, or their paths or names; by default every trainable growable layer.
        meter: the settings of the measurement, by default `keras_grow.GradientMeter()`. In a loop,
            pass one meter to all calls: it traces once.
        search: how the best dormant connections are found, by default `keras_grow.TiledSearch()`;
            `keras_grow.SampledSearch()` judges a random sample.
        optimizer: the optimizer of a custom loop, whose slots of changed connections start afresh;
            by default the one the model was compiled with, if any.

    Returns:
        An `ExchangeRecord`: which connections went and came, layer by layer.

    Raises:
        TypeError, ValueError: for fractions, densities and policies out of range, for data that is
            missing or does not fit, and for numbers that are not finite.
        NothingToChange: if no layer has enough connections for the fraction to hold one, or none of
            them is dormant.

    Example:

    ```python
    for epoch in range(100):
        train_one_epoch(model, optimizer)
        keras_grow.drop_and_grow(model, (x, y), fraction=0.3, optimizer=optimizer)
    ```

    Reference: Evci et al., "Rigging the Lottery: Making All Tickets Winners", arXiv:1911.11134;
    for other methods see `keras_grow.sparse_training`.
    """
    started = time.perf_counter()
    chosen_layers = changeable_layers(model, layers)
    method = RigL() if method is None else method
    check_policy(method, Method, "method")
    _check_fraction(fraction)
    placed = place(pattern, model, chosen_layers)
    check_can_grow(placed, model, search)
    check_can_exchange(placed, model, method)
    optimizer = optimizer_of(model, optimizer, chosen_layers)
    measured, loss = measure_statistics(
        model,
        data,
        chosen_layers,
        method.policies,
        meter=meter,
        optimizer=optimizer,
        search=search,
    )
    surplus = _surplus(model, chosen_layers, density, per_layer, method, measured, placed)
    going, counts = [], []
    for layer, num_less in zip(chosen_layers, surplus, strict=True):
        # Where all are active, nothing can come but what goes.
        has_room = layer.num_active - num_less < layer.num_connections
        count = int(fraction * (layer.num_active - num_less)) if has_room else 0
        in_pattern = placed.get(layer)
        size = layer.atom_size if in_pattern is None else in_pattern.atom_size
        counts.append(count - count % size)
        num_going = num_less + counts[-1]
        going.append(pruning_candidates(layer, num_going, method.drop, measured[layer], in_pattern))
    dropped = [worst.connections() for worst in going]
    if not any(map(len, dropped)):
        raise NothingToChange(
            f"There is nothing to drop and grow. Received: fraction={fraction!r} of "
            f"{[layer.num_active for layer in chosen_layers]} active connections in "
            f"{paths_of(model, chosen_layers)}, of {[x.num_connections for x in chosen_layers]}"
        )
    counts = shared_counts(counts, chosen_layers, dropped, method, measured)
    grown, is_complete = [], True
    for layer, worst, freed, count in zip(chosen_layers, going, dropped, counts, strict=True):
        remaining = np.setdiff1d(layer.active_connections()[0], freed, assume_unique=True)
        behind = _behind(measured[layer], layer, method, remaining)
        in_pattern = placed.get(layer)
        found = growth_candidates(layer, count, method.grow, behind, freed, in_pattern)
        grown.append(_filled_up(found, worst, count, remaining, in_pattern))
        is_complete &= found.is_complete
    pruned = [np.setdiff1d(a, b, assume_unique=True) for a, b in zip(dropped, grown, strict=True)]
    grown = [np.setdiff1d(b, a, assume_unique=True) for a, b in zip(dropped, grown, strict=True)]
    # All values are made and checked before the first layer changes.
    values = []
    for layer, indices in zip(chosen_layers, grown, strict=True):
        seen = layer.view(measured[layer].seen_by(method.start_value), tf.constant(indices))
        values.append(checked_values(method.start_value(seen), seen))
        layer.check_can_wake(tf.constant(indices), values[-1])
    at_mean = method.start_value.second_moment_starts_at_mean
    for layer, gone, coming, value in zip(chosen_layers, pruned, grown, values, strict=True):
        gradient = measured[layer].statistics.get(Gradient())
        at_grown = None if gradient is None or layer.is_sparse else taken(gradient, coming)
        reset_slots(optimizer, layer.prune_connections(gone))
        reset_slots(optimizer, layer.grow_connections(coming, value, at_grown), at_mean)
    return _record(model, chosen_layers, (pruned, grown), started, loss, is_complete)


def _check_fraction(fraction: float) -> None:
    is_number = isinstance(fraction, (int, float, np.integer, np.floating))
    if isinstance(fraction, bool) or not is_number or not 0 < fraction <= 1:
        raise ValueError(
            "`fraction` must be a number above 0, at most 1: the share of active connections that "
            f"are dropped. Received: fraction={fraction!r}"
        )


def _surplus(
    model: keras.Model,
    layers: Sequence[Growable],
    density: float | DensityDistribution | None,
    per_layer: bool,
    method: Method,
    measured: dict[Growable, Measurements],
    placed: Placed,
) -> list[int]:
    """How many connections more than at `density` each layer has."""
    if density is None:
        return [0] * len(layers)
    try:
        groups = counts_to_change(model, layers, None, density, per_layer, grows=False)
    except NothingToChange:
        return [0] * len(layers)
    worst, _ = choose(
        groups,
        lambda layer, count: pruning_candidates(
            layer, count, method.drop, measured[layer], placed.get(layer)
        ),
    )
    return list(map(len, worst))


def _behind(
    measured: Measurements, layer: Growable, method: Method, remaining: np.ndarray
) -> Measurements:
    """What growth sees of a layer once connections are dropped: its topology is what remains."""
    topology = topologies(method.grow.statistics, layer, remaining)
    return dataclasses.replace(measured, statistics={**measured.statistics, **topology})


def _filled_up(
    found: Candidates,
    worst: Candidates,
    count: int,
    remaining: np.ndarray,
    in_pattern: InPattern | None,
) -> np.ndarray:
    """What grows of a layer; where a search found too little, the best of what was dropped stays.

    Args:
        found: what the search found, `count` connections or less.
        worst: what was dropped, the scores negated.
        count: how many connections are to grow.
        remaining: int64, flat indices of those that were not dropped.
        in_pattern: what those that grow lie in, with these.
    """
    come = found.connections().numpy()
    missing = count - len(come)
    if missing <= 0:
        return come
    back, scores = worst.connections().numpy(), worst.connection_scores()
    is_back = ~np.isin(back, come)
    back, scores = back[is_back], -scores[is_back]
    if in_pattern is None:
        # Those of an atom are neighbors of the same score.
        best = back[np.lexsort((back, -scores))[:missing]]
    else:
        best = in_pattern.best(np.union1d(remaining, come), back, scores, missing).connections()
    return np.union1d(come, best)


def _record(
    model: keras.Model,
    layers: Sequence[Growable],
    changes: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    started: float,
    loss: float | None,
    is_complete: bool,
) -> ExchangeRecord:
    paths = paths_of(model, layers)
    pruned, grown = (
        tuple(
            LayerChange(path, tf.constant(indices, tf.int64), layer.num_active)
            for path, indices, layer in zip(paths, of_layers, layers, strict=True)
        )
        for of_layers in changes
    )
    return ExchangeRecord(
        pruned,
        grown,
        sum(layer.num_active for layer in layers),
        sum(layer.num_connections for layer in layers),
        time.perf_counter() - started,
        loss,
        is_complete,
    )
