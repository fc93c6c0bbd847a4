"""Growth of feature maps by NeST's Policy 3."""

import dataclasses
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.as_it_was import as_it_was_on_error
from keras_grow.connections.acted_on import changeable_layers, optimizer_of
from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.dormancy import Dormancy, connections_of_unit, growable_of
from keras_grow.neurons.filters import filters_of
from keras_grow.neurons.newborn_weights import check_room, draw, filter_of, sleep, wake
from keras_grow.neurons.silent_births import SilentBirths
from keras_grow.neurons.units import (
    NeuronChange,
    Units,
    check_can_change,
    checked_count,
    sole_units,
)
from keras_grow.optimizer_slots import reset_slots, steps_made
from keras_grow.structure.unit_graph import UnitGraph


@dataclasses.dataclass(frozen=True)
class FeatureMapRecord:
    """What growth of feature maps did; its `str` says it in a line.

    Attributes:
        layer: what became of the layer's maps.
        loss_before: the mean loss on the growth data before.
        losses: for each map that was born, the losses with each of its candidates; none where maps
            are born silent.
        loss: the mean loss with the maps that were born.
        seconds: how long it took.
        promises: for each map that was born silent, the norms of the gradients of the weights out
            of each of its candidates.
    """

    layer: NeuronChange
    loss_before: float
    losses: tuple[tuple[float, ...], ...]
    loss: float
    seconds: float
    promises: tuple[tuple[float, ...], ...] = ()

    @property
    def count(self) -> int:
        """How many maps were born."""
        return self.layer.count

    def __str__(self) -> str:
        return (
            f"{self.count} feature maps and {self.layer.num_incoming + self.layer.num_outgoing:,} "
            f"connections born, {self.layer.num_connected} connected in {self.layer.name!r}, loss "
            f"{self.loss_before:.4g} before, {self.loss:.4g} now, {self.seconds:.2f} s"
        )


def grow_feature_maps(
    model: keras.Model,
    data: Any,
    layer: str | Growable,
    count: int = 1,
    *,
    candidates: int = 10,
    birth_strength: float = 1.0,
    is_silent: bool = False,
    seed: int = 0,
    meter: GradientMeter | None = None,
    optimizer: keras.Optimizer | None = None,
) -> FeatureMapRecord:
    r"""Gives birth to feature maps in a convolution: of several random candidates, the best.

    For each new map, draws several sets of kernels, into the map and out of it, tries each on the
    growth data by a forward pass, and keeps the one with the smallest loss; the next map is tried
    beside those already born. Maps are born into dormant ones, without connections in or out, so
    that no compiled step is traced again; `keras_grow.widen` makes a copy of the model with more
    of them.

    A new map stands wherever its group does (`keras_grow.groups` shows it): in all ends of an
    addition, as the convolutions that make a residual stream, and in all that read it, through
    concatenations too. All its connections wake but those from and to other dormant maps, which
    stay free to be born. A depthwise filter on the way, alone or in a separable convolution, is
    drawn with the candidate, for behind one of zeros the map would be dead. Its biases are 0, its
    entries of a BatchNormalization on the way, and the optimizer slots of all that is new, start
    afresh. Growth is all or nothing: where it raises, the model is as it was.

    The function of the network changes, unless maps are born silent: then all weights out of them
    are 0, and training goes on where it stands. Of the candidates the one is kept whose weights out
    of the map get the largest gradient, by its norm over all that read the map: the steepest way
    down, at first. Silent maps don't disturb each other, so that a pass over the growth data tries
    a candidate for all of them.

    It serves in the same way what else a group is of, where no bridging gradient can be measured
    for `keras_grow.grow_neurons`: units of recurrent layers, heads of an attention, the width of
    an embedding.

    Args:
        model: a built Sequential or functional model.
        data: growth data, in the forms that `grow` takes.
        layer: a growable layer of the model, or its path or name, all of whose units are tied
            alike and read by growable layers; or what `keras_grow.groups` calls the units, such as
            "attention/heads".
        count: positive integer, how many maps.
        candidates: positive integer, how many random ones are tried for each.
        birth_strength: positive float: the weights of a map are normal numbers whose mean |w| is
            this, over that of the layer's other weights; out of the map, and in its filters,
            likewise.
        is_silent: whether the weights out of new maps start at 0.
        seed: non-negative integer; candidates are a function of it and the optimizer's step.
        meter: the settings of the measurement (loss, mode, batch size, progress); by default the
            model runs at inference; in training where maps are born silent, since the statistics
            of normalizations know nothing yet of what a newborn makes.
        optimizer: the optimizer of a custom loop; by default the one the model was compiled with.

    Returns:
        A `FeatureMapRecord`, with the losses of all candidates. Weights of filters on the way are
        not among its connections.

    Raises:
        TypeError, ValueError: for a layer whose maps can't be followed or are read by a layer that
            can't grow, for more maps than there are dormant ones, for silent ones that would change
            the function all the same, and data that does not fit.
        CapacityUsedUp: if a sparse layer has too few free slots for the connections.

    Example:

    ```python
    print(keras_grow.grow_feature_maps(model, (x, y), "convolution", count=2))
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 3. How candidates are drawn is this
    package's choice. The gradient of weights that start at 0 is what GradMax makes large (Evci et
    al., arXiv:2201.05125), by singular vectors; here by the best of random candidates.
    """
    started = time.perf_counter()
    count, candidates = checked_count(count), checked_count(candidates, "candidates")
    seed = checked_integer(seed, "seed", least=0)
    if not birth_strength > 0:
        raise ValueError(
            f"`birth_strength` must be positive. Received: birth_strength={birth_strength}"
        )
    graph = UnitGraph(model)
    units = _units_called(model, graph, layer)
    readers = [growable_of(end.layer) for end in units.group.read_by]
    plain = [end.path for end in units.group.read_by if growable_of(end.layer) is None]
    if plain:
        raise ValueError(
            "The layers that read the maps must be growable, so that their connections can wake. "
            f"Received: layer {units.path!r}, read by plain layers {plain}. Convert them with "
            "`keras_grow.make_growable(model)`."
        )
    filters = filters_of(units.group)
    makers = [end.layer for end in units.group.made_by]
    changed = dict.fromkeys(
        each
        for each in (*makers, *readers, *(filtering.layer for filtering in filters))
        if isinstance(each, Growable)
    )
    changeable_layers(model, list(changed))
    newborn = units.dormant(count)
    optimizer = optimizer_of(model, optimizer, list(changed))
    dormancy = Dormancy(graph)
    sides = []
    for unit in newborn:
        dormancy.wakes(units.group, np.array([unit]))
        sides.append(connections_of_unit(units, unit, dormancy))
    check_room([(*into, *out_of) for into, out_of in sides])
    of_maps = [
        [*into, *out_of, *(filter_of(each, unit) for each in filters)]
        for unit, (into, out_of) in zip(newborn, sides, strict=True)
    ]
    silent = SilentBirths(units, newborn, of_maps) if is_silent else None
    meter = GradientMeter(training=is_silent) if meter is None else meter
    owners = [model] if optimizer is None else [model, optimizer]
    with as_it_was_on_error([v for owner in owners for v in owner.variables]):
        loss_before = meter.mean_loss(model, data, optimizer)
        units.clear_bias(newborn, optimizer)
        units.start_statistics_afresh(newborn, optimizer)
        for filtering in filters:
            filtering.clear(newborn, optimizer)
        step = steps_made(optimizer)

        def candidates_of(position: int) -> list[list[tf.Tensor]]:
            keys = [(seed, step, position, trial) for trial in range(candidates)]
            return [draw(of_maps[position], birth_strength, key) for key in keys]

        losses: list[tuple[float, ...]] = []
        promises: tuple[tuple[float, ...], ...] = ()
        if silent is not None:
            promises = silent.be_born(
                model,
                data,
                [candidates_of(position) for position in range(count)],
                lambda: meter.measure(model, data, silent.readers, optimizer).gradients,
                optimizer,
            )
            loss = meter.mean_loss(model, data, optimizer)
        else:
            for position, of_map in enumerate(of_maps):
                trials, found = candidates_of(position), []
                for weights in trials:
                    wake(of_map, weights)
                    found.append(meter.mean_loss(model, data, optimizer))
                    sleep(of_map)
                if not np.isfinite(found).all():
                    raise ValueError(
                        "Losses on the growth data must be finite. Received: NaN or infinite ones "
                        f"with candidates for layer {units.path!r}. Look for NaN in the data, or "
                        "lower `birth_strength`."
                    )
                losses.append(tuple(found))
                for changes in wake(of_map, trials[int(np.argmin(found))]):
                    reset_slots(optimizer, changes)
            loss = min(losses[-1])
    num_incoming, num_outgoing = (
        sum(len(indices) for of_map in sides for _, indices in of_map[side]) for side in (0, 1)
    )
    return FeatureMapRecord(
        units.change(newborn, num_incoming, num_outgoing),
        loss_before,
        tuple(losses),
        loss,
        time.perf_counter() - started,
        promises,
    )


def _units_called(model: keras.Model, graph: UnitGraph, asked: Any) -> Units:
    """The units of a layer, or those that `keras_grow.groups` calls so, if they can change."""
    changeable = changeable_layers(model, None)
    named = [group for group in graph.groups if asked in [end.units for end in group.made_by]]
    if isinstance(asked, str) and len(named) == 1:
        check_can_change(named[0], changeable)
        (end, *_) = [end for end in named[0].made_by if end.units == asked]
        return Units(named[0], end.layer)
    (grown,) = changeable_layers(model, [asked])
    return sole_units(graph, grown, changeable)
