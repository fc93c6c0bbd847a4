"""The statistics that policies name, measured for a change."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.connections.acted_on import check_policy
from keras_grow.layers.growable import Growable, check_finite
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import steps_made
from keras_grow.policies.scores import Score
from keras_grow.policies.start_values import StartValue
from keras_grow.policies.statistics import ModelStatistic, Statistic
from keras_grow.policies.topology import Topology, TopologyStatistic
from keras_grow.search.measurements import Measurements
from keras_grow.search.tiled_array import Values
from keras_grow.search.tiled_search import TiledSearch
from keras_grow.search.topology_array import TopologyArray
from keras_grow.structure.graph import Graph


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
    of_topology = [each for each in statistics if isinstance(each, TopologyStatistic)]
    of_data = [each for each in statistics if each not in [*of_model, *of_topology]]
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
    if of_topology:
        for layer in layers:
            values[layer] |= topologies(of_topology, layer, layer.active_connections()[0])
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


def topologies(
    statistics: Iterable[Statistic], layer: Growable, connections: tf.Tensor
) -> dict[Statistic, Values]:
    """The topology statistics among some, of a layer whose active connections are others than now.

    Args:
        statistics: of any kinds.
        layer: a growable layer.
        connections: int64 of shape `(count,)`, flat indices, ascending.

    Raises:
        ValueError: for a kernel that no topology can be read off.
    """
    of_topology = [each for each in statistics if isinstance(each, TopologyStatistic)]
    if not of_topology:
        return {}
    topology = Topology(layer.axes, connections)
    return {each: TopologyArray(each, topology) for each in of_topology}
