"""Growth of connections by NeST's Policy 1, on a whole model."""

import time
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.amounts import (
    NothingToChange,
    choose,
    counts_to_change,
    num_asked,
)
from keras_grow.connections.candidates import growth_candidates
from keras_grow.connections.measured import measure_statistics
from keras_grow.connections.patterned import check_can_grow, place
from keras_grow.connections.record import ChangeRecord, record
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import reset_slots
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.scores import GradientMagnitude, Score
from keras_grow.policies.start_values import StartValue, Zero
from keras_grow.policies.statistics import Gradient
from keras_grow.policies.view import Connections
from keras_grow.search.flat_arrays import taken
from keras_grow.search.tiled_search import TiledSearch


def grow(
    model: keras.Model,
    data: Any = None,
    *,
    count: int | None = None,
    density: float | DensityDistribution | None = None,
    pattern: Pattern | None = None,
    per_layer: bool = False,
    layers: Sequence[str | Growable] | None = None,
    score: Score | None = None,
    start_value: StartValue | None = None,
    meter: GradientMeter | None = None,
    search: TiledSearch | None = None,
    optimizer: keras.Optimizer | None = None,
) -> ChangeRecord:
    """Wakes the dormant connections that promise most to lower the loss.

    Measures the growth gradient of every connection over the growth data, ranks the dormant ones
    by score, and makes exactly the best active. With the default start value of 0 the function of
    the model stays as it was. Ties go to the earlier layer, then the lower index. Growth is all
    or nothing: where it raises, the model is as it was.

    Args:
        model: a built model with growable layers.
        data: growth data, a large part of the training set or all of it: `(x, y)`,
            `(x, y, sample_weight)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or an iterable
            of batches. Not needed by a score that measures nothing.
        count: positive integer, how many connections to grow, of all layers together or of each
            layer with `per_layer`. More than there are dormant, or sparse layers have room for,
            takes all. Of layers with a `group_size`, whole groups grow, and so at most `count`
            connections; the record says how many fewer.
        density: instead of `count`, the density to reach, in (0, 1], of all layers together or of
            each layer with `per_layer`; or a distribution such as
            `keras_grow.densities.ErdosRenyi`. Layers that are denser already stay.
        pattern: what the active connections of each layer lie in, before and after, such as
            `keras_grow.patterns.NM(2, 4)`; at most as many grow as it has room for. Without `count`
            and `density`, each layer grows all of them. Where it has little room, all dormant
            connections may be ranked, of sparse layers too: about 50 bytes for each. Of a sample
            (`keras_grow.SampledSearch`) those grow that have room.
        per_layer: whether connections compete within each layer only.
        layers: growable layers, or their paths or names; by default every trainable growable layer.
        score: what ranks connections, by default `keras_grow.scores.GradientMagnitude()`.
        start_value: what grown connections start with, by default
            `keras_grow.start_values.Zero()`.
        meter: the settings of the measurement (loss, mode, batch size, progress), by default
            `keras_grow.GradientMeter()`. In a loop, pass one meter to all calls: it traces once.
        search: how the best connections of sparse layers are found: the memory and time it may
            take; by default `keras_grow.TiledSearch()`. `keras_grow.SampledSearch()` judges
            a random sample, of masked layers too.
        optimizer: the optimizer of a custom loop, whose slots of grown connections start afresh;
            by default the one the model was compiled with, if any.

    Returns:
        A `ChangeRecord`: which connections grew, how many are active, the loss before, whether
        the search was complete.

    Raises:
        TypeError, ValueError: for a model without growable layers or loss, targets out of range or
            reached already, growth data that does not fit, and numbers that are not finite; for
            sparse layers that are full, and optimizers that don't suit them.

    Warns:
        UserWarning: when a sparse layer has used up its capacity; it then takes part no more.

    Example:

    ```python
    for epoch in range(10):
        train_one_epoch(model, optimizer)
        keras_grow.grow(model, (x, y), count=1000, optimizer=optimizer)
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1.
    """
    started = time.perf_counter()
    chosen_layers = changeable_layers(model, layers)
    score = GradientMagnitude() if score is None else score
    start_value = Zero() if start_value is None else start_value
    check_policy(score, Score, "score")
    check_policy(start_value, StartValue, "start_value")
    placed = place(pattern, model, chosen_layers)
    check_can_grow(placed, model, search)
    if pattern is not None and count is None and density is None:
        groups, asked = counts_to_change(model, chosen_layers, None, 1.0, True, grows=True), 0
    else:
        groups = counts_to_change(model, chosen_layers, count, density, per_layer, grows=True)
        asked = num_asked(groups)
    optimizer = optimizer_of(model, optimizer, chosen_layers)
    measured, loss = measure_statistics(
        model,
        data,
        chosen_layers,
        [score, start_value],
        meter=meter,
        optimizer=optimizer,
        search=search,
    )
    chosen, is_complete = choose(
        groups,
        lambda layer, count: growth_candidates(
            layer, count, score, measured[layer], pattern=placed.get(layer)
        ),
    )
    if pattern is not None and is_complete and not any(map(len, chosen)):
        raise NothingToChange(
            "There is nothing to grow: the pattern has room for no more, or its blocks are larger "
            f"than the count. Received: pattern={pattern!r}, count={count}, density={density}, for "
            f"layers {paths_of(model, chosen_layers)}"
        )
    grown = [
        layer.view(measured[layer].seen_by(start_value), indices)
        for layer, indices in zip(chosen_layers, chosen, strict=True)
    ]
    # All values are made and checked before the first layer changes.
    values = [checked_values(start_value(connections), connections) for connections in grown]
    for layer, indices, value in zip(chosen_layers, chosen, values, strict=True):
        layer.check_can_wake(indices, value)
    for layer, indices, value in zip(chosen_layers, chosen, values, strict=True):
        gradient = measured[layer].statistics.get(Gradient())
        at_grown = None if gradient is None or layer.is_sparse else taken(gradient, indices)
        changes = layer.grow_connections(indices, value, at_grown)
        reset_slots(optimizer, changes, start_value.second_moment_starts_at_mean)
    _warn_of_full_layers(model, chosen_layers, chosen)
    seconds = time.perf_counter() - started
    return record(model, chosen_layers, chosen, seconds, loss, is_complete, num_asked=asked)


def _warn_of_full_layers(
    model: keras.Model, layers: Sequence[Growable], grown: Sequence[tf.Tensor]
) -> None:
    full = [
        layer
        for layer, indices in zip(layers, grown, strict=True)
        if len(indices) and layer.num_free == 0 and layer.num_active < layer.num_connections
    ]
    if full:
        warnings.warn(
            f"Layers {paths_of(model, full)} have used up their capacity and can't grow further. "
            "Make a copy with more slots: `keras_grow.make_sparse(model, capacity=...)`.",
            stacklevel=3,
        )


def checked_values(values: Any, connections: Connections) -> tf.Tensor:
    """Start values as a tensor; raises `ValueError` unless finite, one for each connection."""
    values = tf.convert_to_tensor(values, connections.weight.dtype)
    is_finite = bool(tf.reduce_all(tf.math.is_finite(values)))
    if values.shape != connections.weight.shape or not is_finite:
        raise ValueError(
            "A start value must return one finite weight per connection. Received: shape "
            f"{values.shape}{'' if is_finite else ' with NaN or infinite entries'}, expected "
            f"{connections.weight.shape}"
        )
    return values
