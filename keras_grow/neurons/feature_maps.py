"""Growth of feature maps by NeST's Policy 3."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.as_it_was import as_it_was_on_error
from keras_grow.connections.acted_on import changeable_layers, optimizer_of
from keras_grow.connections.amounts import CapacityUsedUp
from keras_grow.integers import checked_integer
from keras_grow.layers.conv_like import ConvLike
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.units import NeuronChange, Units, checked_count, mean_weight, sole_units
from keras_grow.optimizer_slots import reset_slots, steps_made
from keras_grow.structure.kernels import axes_of, counts_of
from keras_grow.structure.unit_graph import End, UnitGraph


@dataclasses.dataclass(frozen=True)
class FeatureMapRecord:
    """What growth of feature maps did; its `str` says it in a line.

    Attributes:
        layer: what became of the layer's maps.
        loss_before: the mean loss on the growth data before.
        losses: for each map that was born, the losses with each of its candidates.
        loss: the mean loss with the maps that were born.
        seconds: how long it took.
    """

    layer: NeuronChange
    loss_before: float
    losses: tuple[tuple[float, ...], ...]
    loss: float
    seconds: float

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
    seed: int = 0,
    meter: GradientMeter | None = None,
    optimizer: keras.Optimizer | None = None,
) -> FeatureMapRecord:
    r"""Gives birth to feature maps in a convolution: of several random candidates, the best.

    For each new map, draws several sets of kernels, into the map and out of it, tries each on the
    growth data by a forward pass, and keeps the one with the smallest loss; the next map is tried
    beside those already born. Maps are born into dormant ones, without connections in or out, so
    that no compiled step is traced again; `keras_grow.widen` makes a copy of the model with more
    of them. All connections of a new map to others that have connections wake. Its bias is 0, its
    entries of a BatchNormalization on the way, and the optimizer slots of all that wakes, start
    afresh; what filters maps one by one keeps what it has for it. Growth is all or nothing: where
    it raises, the model is as it was.

    Args:
        model: a built Sequential or functional model.
        data: growth data, in the forms that `grow` takes.
        layer: a growable convolution of the model, or its path or name, whose maps are read by
            growable layers. Where its maps are tied to those of others, as the ends of an addition
            are, a new one is born in all of them.
        count: positive integer, how many maps.
        candidates: positive integer, how many random ones are tried for each.
        birth_strength: positive float: the weights of a map are normal numbers whose mean |w| is
            this, over that of the layer's other weights; out of the map likewise.
        seed: non-negative integer; candidates are a function of it and the optimizer's step.
        meter: the settings of the measurement (loss, mode, batch size, progress); by default the
            model runs at inference.
        optimizer: the optimizer of a custom loop; by default the one the model was compiled with.

    Returns:
        A `FeatureMapRecord`, with the losses of all candidates.

    Raises:
        TypeError, ValueError: for a layer that is no growable convolution, whose maps can't be
            followed or are read by a layer that can't grow, for more maps than there are dormant
            ones, and data that does not fit.
        CapacityUsedUp: if a sparse layer has too few free slots for the connections.

    Example:

    ```python
    print(keras_grow.grow_feature_maps(model, (x, y), "convolution", count=2))
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 3. How candidates are drawn is this
    package's choice.
    """
    started = time.perf_counter()
    count, candidates = checked_count(count), checked_count(candidates, "candidates")
    seed = checked_integer(seed, "seed", least=0)
    if not birth_strength > 0:
        raise ValueError(
            f"`birth_strength` must be positive. Received: birth_strength={birth_strength}"
        )
    (grown,) = changeable_layers(model, [layer])
    changeable = changeable_layers(model, None)
    if not isinstance(grown, ConvLike):
        raise ValueError(
            "Feature maps grow in convolutions. Received: layer "
            f"{grown.name!r} of class {type(grown).__name__}. Neurons of dense layers grow by "
            "`keras_grow.grow_neurons`."
        )
    units = sole_units(UnitGraph(model), grown, changeable)
    readers = [end.layer for end in units.group.read_by]
    plain = [reader.name for reader in readers if not isinstance(reader, Growable)]
    if plain:
        raise ValueError(
            "The layers that read the maps must be growable, so that their connections can wake. "
            f"Received: layer {grown.name!r}, read by plain layers {plain}. Convert them with "
            "`keras_grow.make_growable(model)`."
        )
    changeable_layers(model, readers)
    newborn = units.dormant(count)
    optimizer = optimizer_of(
        model, optimizer, [*(end.layer for end in units.group.made_by), *readers]
    )
    sides = [_connections_of_map(units, unit) for unit in newborn]
    _check_room(sides)
    meter = GradientMeter(training=False) if meter is None else meter
    owners = [model] if optimizer is None else [model, optimizer]
    with as_it_was_on_error([v for owner in owners for v in owner.variables]):
        loss_before = meter.mean_loss(model, data, optimizer)
        units.clear_bias(newborn, optimizer)
        units.start_statistics_afresh(newborn, optimizer)
        losses = []
        for position, of_map in enumerate(sides):
            step = steps_made(optimizer)
            trials = [
                _draw(of_map, birth_strength, (seed, step, position, trial))
                for trial in range(candidates)
            ]
            found = []
            for weights in trials:
                _wake(of_map, weights)
                found.append(meter.mean_loss(model, data, optimizer))
                for each, indices in of_map:
                    each.prune_connections(indices)
            if not np.isfinite(found).all():
                raise ValueError(
                    "Losses on the growth data must be finite. Received: NaN or infinite ones with "
                    f"candidates for layer {grown.name!r}. Look for NaN in the data, or lower "
                    "`birth_strength`."
                )
            losses.append(tuple(found))
            for changes in _wake(of_map, trials[int(np.argmin(found))]):
                reset_slots(optimizer, changes)
    counts = [sum(len(indices) for _, indices in of_side) for of_side in zip(*sides, strict=True)]
    num_makers = len(units.group.made_by)
    return FeatureMapRecord(
        units.change(newborn, sum(counts[:num_makers]), sum(counts[num_makers:])),
        loss_before,
        tuple(losses),
        min(losses[-1]),
        time.perf_counter() - started,
    )


Side = tuple[Growable, tf.Tensor]
"""A layer, and flat indices of connections of it."""


def _connections_of_map(units: Units, unit: int) -> list[Side]:
    """Connections into a map, and out of it, layer by layer, of all maps that are connected."""

    def into(end: End) -> tuple[Growable, np.ndarray]:
        inputs = _connected(counts_of(end.layer)[0])
        return end.layer, axes_of(end.layer).connections_between(inputs, end.indices[unit])

    def out_of(end: End) -> tuple[Growable, np.ndarray]:
        units = _connected(counts_of(end.layer)[1])
        return end.layer, axes_of(end.layer).connections_between(end.indices[unit], units)

    incoming = dict(map(into, units.group.made_by))
    sides = list(incoming.items())
    for layer, indices in map(out_of, units.group.read_by):
        if layer in incoming:  # It reads what it makes.
            indices = np.setdiff1d(indices, incoming[layer])
        sides.append((layer, indices))
    return [(layer, tf.constant(indices)) for layer, indices in sides]


def _connected(counts: np.ndarray) -> np.ndarray:
    """Which inputs or units of a layer have a connection; all where none has.

    A dormant map that another's birth gave a connection to could no longer be born itself.
    """
    connected = np.flatnonzero(counts)
    return connected if len(connected) else np.arange(len(counts))


def _check_room(sides: Sequence[Sequence[Side]]) -> None:
    needed: dict[Growable, int] = {}
    for of_map in sides:
        for layer, indices in of_map:
            needed[layer] = needed.get(layer, 0) + len(indices)
    for layer, number in needed.items():
        if number > layer.num_free:
            raise CapacityUsedUp(
                f"The maps bring {number} connections, and layer {layer.name!r} has room for "
                f"{layer.num_free}. Make a copy with more slots: "
                "`keras_grow.make_sparse(model, capacity=...)`."
            )


def _draw(sides: Sequence[Side], birth_strength: float, key: Sequence[int]) -> list[tf.Tensor]:
    """Random weights for the connections of each side."""
    random = np.random.default_rng(key)
    weights = []
    for layer, indices in sides:
        # The mean magnitude of normal numbers is their deviation times sqrt(2 / pi).
        deviation = birth_strength * mean_weight(layer) * math.sqrt(math.pi / 2)
        values = random.normal(0.0, deviation, len(indices))
        weights.append(tf.constant(values, layer.kernel_variables[0].dtype))
    return weights


def _wake(sides: Sequence[Side], weights: Sequence[tf.Tensor]) -> list[list[StorageChange]]:
    return [
        layer.grow_connections(indices, values)
        for (layer, indices), values in zip(sides, weights, strict=True)
    ]
