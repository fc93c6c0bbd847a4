"""Pruning of connections by NeST's Policy 4, on a whole model."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.amounts import (
    Group,
    NothingToChange,
    choose,
    counts_to_change,
    num_asked,
)
from keras_grow.connections.cut_off import CutOffWarning
from keras_grow.connections.measured import measure_statistics
from keras_grow.connections.patterned import Placed, place
from keras_grow.connections.record import ChangeRecord, record
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import reset_slots
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.scores import Magnitude, Score
from keras_grow.search.atoms import connections_of
from keras_grow.search.flat_arrays import in_place, num_true, taken, true_positions
from keras_grow.search.selection import Candidates

_ADVICE_TOGETHER = (
    "Connections of all layers were ranked together: `per_layer=True` leaves each layer its share, "
    "`density=keras_grow.densities.ErdosRenyi(...)` leaves small ones more."
)
_ADVICE_PER_LAYER = (
    "Keep more connections, or leave small layers more: "
    "`density=keras_grow.densities.ErdosRenyi(...)`."
)


def prune(
    model: keras.Model,
    *,
    count: int | None = None,
    density: float | DensityDistribution | None = None,
    threshold: float | None = None,
    pattern: Pattern | None = None,
    per_layer: bool = False,
    layers: Sequence[str | Growable] | None = None,
    score: Score | None = None,
    data: Any = None,
    meter: GradientMeter | None = None,
    optimizer: keras.Optimizer | None = None,
) -> ChangeRecord:
    """Makes the active connections that matter least dormant.

    Ranks the active connections by score and prunes exactly the smallest. Among equals the earlier
    layer's are pruned first, then the lower index. Every layer keeps its last connection, the one
    of largest score, and the others give the difference; only a distribution that says 0 of a layer
    empties it. Pruning is all or nothing: where it raises, the model is as it was.

    Args:
        model: a built model with growable layers.
        count: positive integer, how many connections to prune, of all layers together or of each
            layer with `per_layer`. Of layers with a `group_size`, whole groups go, and so at most
            `count` connections, however they are asked for; the record says how many fewer.
        density: instead of `count`, the density to reach, in (0, 1], of all layers together or of
            each layer with `per_layer`; or a distribution such as
            `keras_grow.densities.ErdosRenyi`. Counts are the nearest integers, but where that is
            0, a layer keeps one, and with `per_layer` the largest layer gives one for it. Layers
            that are sparser already stay.
        threshold: instead of these, the score below which connections are pruned, in all layers; a
            layer all of whose scores are below it keeps its best.
        pattern: instead of these, what each layer's connections must lie in, such as
            `keras_grow.patterns.NM(2, 4)` or `keras_grow.patterns.Blocks(4, 4, density=0.3)`: those
            go whose going costs least.
        per_layer: whether connections compete within each layer only.
        layers: growable layers, or their paths or names; by default every trainable growable layer.
        score: what ranks connections, by default `keras_grow.scores.Magnitude()`.
        data: data for a score that measures something, in the forms that `grow` takes.
        meter: the settings of the measurement, by default `keras_grow.GradientMeter()`.
        optimizer: the optimizer of a custom loop, whose slots of pruned connections start afresh;
            by default the one the model was compiled with, if any.

    Returns:
        A `ChangeRecord`: which connections were pruned, and how many are active.

    Raises:
        TypeError, ValueError: for a model without growable layers, targets out of range or reached
            already, data that is missing or does not fit, and numbers that are not finite.

    Warns:
        UserWarning: where units that the model answers with come to depend on no input, as far as
            a Sequential or functional model tells; and where layers that compete, as without
            `per_layer`, are left with a single connection.

    Example:

    ```python
    keras_grow.prune(model, density=0.1)
    model.fit(x, y, epochs=5)  # Retrain what is left.
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4.
    """
    started = time.perf_counter()
    chosen_layers = changeable_layers(model, layers)
    score = Magnitude() if score is None else score
    check_policy(score, Score, "score")
    groups: list[Group] = []
    placed = place(pattern, model, chosen_layers)
    if pattern is not None:
        _check_sole(pattern, count, density, threshold)
    elif threshold is not None:
        _check_threshold(threshold, count, density)
    else:
        groups = counts_to_change(model, chosen_layers, count, density, per_layer, grows=False)
    optimizer = optimizer_of(model, optimizer, chosen_layers)
    measured, loss = measure_statistics(
        model, data, chosen_layers, [score], meter=meter, optimizer=optimizer
    )

    def candidates_of(layer: Growable, count: int) -> Candidates:
        return layer.pruning_candidates(count, score, measured[layer])

    if pattern is not None:
        chosen = _beyond(pattern, placed, candidates_of)
    elif threshold is not None:
        chosen = _below(threshold, chosen_layers, candidates_of)
    else:
        chosen, _ = choose(groups, candidates_of)
    compete = threshold is not None or len(groups) == 1 < len(chosen_layers)
    cut_off = CutOffWarning(model, chosen_layers if compete else [])
    for layer, indices in zip(chosen_layers, chosen, strict=True):
        reset_slots(optimizer, layer.prune_connections(indices))
    cut_off.warn(_ADVICE_TOGETHER if compete else _ADVICE_PER_LAYER, stacklevel=2)
    seconds = time.perf_counter() - started
    return record(model, chosen_layers, chosen, seconds, loss, num_asked=num_asked(groups))


def _check_sole(pattern: Pattern, *amounts: Any) -> None:
    if any(amount is not None for amount in amounts):
        raise ValueError(
            "Pass exactly one of `count`, `density`, `threshold` and `pattern`. Received: pattern "
            f"and count, density, threshold = {amounts}"
        )


def _beyond(
    pattern: Pattern,
    placed: Placed,
    candidates_of: Callable[[Growable, int], Candidates],
) -> list[tf.Tensor]:
    """The active connections of each layer that have no place in a pattern."""
    chosen = []
    for layer, in_pattern in placed.items():
        found = candidates_of(layer, layer.num_active)
        indices = found.indices.numpy()
        goes = in_pattern.surplus(indices, -found.scores.numpy())
        chosen.append(tf.constant(indices[goes], tf.int64))
    if not any(map(len, chosen)):
        raise NothingToChange(
            f"There is nothing to prune: all active connections lie in the pattern. Received: "
            f"pattern={pattern!r} for layers {[layer.name for layer in placed]}"
        )
    return chosen


def _check_threshold(threshold: float, count: Any, density: Any) -> None:
    if count is not None or density is not None:
        raise ValueError(
            "Pass exactly one of `count` (connections to prune), `density` (to reach) and "
            "`threshold` (of the score). "
            f"Received: count={count}, density={density}, threshold={threshold}"
        )
    is_number = isinstance(threshold, (int, float, np.integer, np.floating))
    if isinstance(threshold, bool) or not is_number or not math.isfinite(threshold):
        raise ValueError(f"`threshold` must be a finite number. Received: threshold={threshold!r}")


def _below(
    threshold: float,
    layers: Sequence[Growable],
    candidates_of: Callable[[Growable, int], Candidates],
) -> list[tf.Tensor]:
    """The active connections of each layer whose score is below the threshold, but its best."""
    chosen, num_below, num_active = [], 0, 0
    for layer in layers:
        candidates = candidates_of(layer, layer.num_active)
        # The scores of candidates for pruning are negated.
        is_below = in_place(-candidates.scores < threshold)
        size, below, count = layer.atom_size, num_true(is_below), len(candidates.indices)
        if below == count > 0:
            chosen.append(candidates_of(layer, (count - 1) * size).connections())
        else:
            atoms = taken(candidates.indices, true_positions(is_below))
            chosen.append(connections_of(atoms, size))
        num_below, num_active = num_below + below * size, num_active + count * size
    if num_below == num_active > 0:
        raise ValueError(
            "Pruning must leave active connections. Received: "
            f"threshold={threshold!r}, above the scores of all {num_active}"
        )
    if not any(map(len, chosen)):
        raise NothingToChange(
            "There is nothing to prune: no active connection scores below the threshold, or only "
            "the last ones of layers, which stay. "
            f"Received: threshold={threshold!r}, {num_active} active connections"
        )
    return chosen
