"""Pruning of neurons by NeST's Policy 4."""

import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.cut_off import CutOffWarning
from keras_grow.layers.growable import Growable, check_finite, growable_layers
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.amounts import Amount, choose
from keras_grow.neurons.budgets import Budget
from keras_grow.neurons.scores import NeuronScore, OutputMagnitude
from keras_grow.neurons.scoring import scores_of
from keras_grow.neurons.units import NeuronRecord, followed
from keras_grow.structure.graph import UnitsNotFollowed
from keras_grow.structure.unit_graph import UnitGraph


def prune_neurons(
    model: keras.Model,
    *,
    count: int | None = None,
    density: float | None = None,
    threshold: float | None = None,
    budget: Budget | None = None,
    per_group: bool = False,
    multiple_of: int = 1,
    through_normalization: bool = False,
    layers: Sequence[str | Growable] | None = None,
    score: NeuronScore | None = None,
    data: Any = None,
    meter: GradientMeter | None = None,
    optimizer: keras.Optimizer | None = None,
) -> NeuronRecord:
    """Removes the neurons whose output matters least.

    Ranks the connected units of all layers by score, and makes every connection into and out of the
    smallest dormant; where a plain Dense reads them, their weights become 0. Their biases become
    0. Units that are tied together, as at the ends of an addition (`keras_grow.groups` shows them),
    count as one and go together. Among equals the earlier layer's go first, then the lower index.
    Each layer keeps at least its best unit, of equals the last, and the units of output layers
    never go. All of it is done or, where it raises, nothing. A removed unit is a dormant one, in
    which `grow_neurons` may let another be born; `remove_dead_neurons` then clears what it leaves
    behind in other layers.

    Args:
        model: a built Sequential or functional model.
        count: positive integer, how many units to remove, of all layers together or of each group
            with `per_group`.
        density: instead of `count`, the share of units to leave, in (0, 1], of all that the layers
            looked at have, dormant ones counted as gone; of each group with `per_group`.
        threshold: instead of these, the score below which units are removed, in all layers.
        budget: instead of these, how much of the network may be left, such as
            `keras_grow.budgets.FLOPs(0.5)`: as few units are removed as will do. It is a share of
            the network with all its units; dormant ones are gone already.
        per_group: whether units compete within each group only: each loses `count`, keeps the
            share `density`, or, for a budget, loses the same share as the others.
        multiple_of: with a budget, what the number of units that a layer keeps is a multiple of:
            processors work on eight channels or so at once.
        through_normalization: whether units are followed through LayerNormalization too, as those
            of the residual stream of most transformers. What is left of it is then computed with
            zeros among the units; `compact(model, through_normalization=True, verify=x)` removes
            them, and says how far that changes the function.
        layers: growable layers, or their paths or names; by default every trainable growable layer
            whose units can be followed to other layers with weights.
        score: what ranks units, by default `keras_grow.neuron_scores.OutputMagnitude()`.
        data: data to measure outputs on, in the forms that `grow` takes; only `x` is used, unless
            the score takes the loss.
        meter: the batch size and progress of the measurement, which is made in inference mode, by
            default `keras_grow.GradientMeter()`.
        optimizer: the optimizer of a custom loop, whose slots of pruned connections start afresh;
            by default the one the model was compiled with, if any.

    Returns:
        A `NeuronRecord`: which units, and how many connections.

    Raises:
        TypeError, ValueError: for a model without hidden growable layers, layers whose units can't
            be followed, more units than there are to remove, data that does not fit, and scores
            that are not finite.
        NothingToChange: if no unit's score is below `threshold`, or as few are left already.

    Warns:
        UserWarning: where units that the model answers with come to depend on no input.

    Example:

    ```python
    keras_grow.prune_neurons(model, count=50, data=(x,))
    model.fit(x, y, epochs=5)  # Retrain what is left.
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4.
    """
    started = time.perf_counter()
    amount = Amount(count, density, threshold, budget, per_group, multiple_of)
    score = OutputMagnitude() if score is None else score
    check_policy(score, NeuronScore, "score")
    if data is None:
        raise ValueError(
            "The outputs of neurons are measured on data. Received: data=None. Pass `data=(x,)`, a "
            "dataset or an iterable of batches."
        )
    candidates = changeable_layers(model, layers)
    graph = UnitGraph(model, through_normalization)
    groups, not_followed = followed(model, candidates, graph)
    if layers is not None and not_followed:
        raise UnitsNotFollowed("; ".join(not_followed.values()))
    if not groups:
        raise ValueError(
            "The model has no hidden growable layer whose units could go. Received: "
            + "; ".join(f"{path}: {why}" for path, why in not_followed.items())
        )
    makers = [end.layer for units in groups for end in units.group.made_by]
    optimizer = optimizer_of(model, optimizer, makers)
    check_finite(model, growable_layers(model))
    meter = GradientMeter() if meter is None else meter
    scores = scores_of(model, groups, score, data, meter)
    chosen = choose(groups, scores, amount, graph)
    cut_off = CutOffWarning(model, layers=[])
    counts = [
        (units.cut_incoming(removed, optimizer), units.cut_outgoing(removed, optimizer))
        for units, removed in zip(groups, chosen, strict=True)
    ]
    cut_off.warn("Remove fewer units, or none of some `layers`.", stacklevel=2)
    # Counted last: a unit that is cut may have been all that fed or read another.
    changes = [
        units.change(removed, *numbers)
        for units, removed, numbers in zip(groups, chosen, counts, strict=True)
    ]
    return NeuronRecord(tuple(changes), not_followed, time.perf_counter() - started)
