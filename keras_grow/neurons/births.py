"""Growth of neurons by NeST's Policy 2."""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.amounts import CapacityUsedUp
from keras_grow.layers.growable import Growable
from keras_grow.measuring.bridging import bridging_gradient
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.bridgeable import bridgeable
from keras_grow.neurons.dormancy import Dormancy
from keras_grow.neurons.initializers import (
    Birth,
    Bridge,
    BridgingGradient,
    NeuronInitializer,
)
from keras_grow.neurons.units import (
    NeuronRecord,
    Units,
    checked_count,
    mean_weight,
    sole_units,
)
from keras_grow.optimizer_slots import reset_slots, steps_made
from keras_grow.structure.rules import rule_for
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import End


def grow_neurons(
    model: keras.Model,
    data: Any,
    layer: str | Growable,
    count: int = 1,
    *,
    initializer: NeuronInitializer | None = None,
    meter: GradientMeter | None = None,
    optimizer: keras.Optimizer | None = None,
) -> NeuronRecord:
    r"""Gives birth to neurons in a hidden layer, where a bridge over it would lower the loss most.

    Measures the bridging gradient between the inputs of `layer` and the units of the layers that
    read it, and lets the initializer choose the newborns' connections and weights. Neurons are
    born into dormant units, which have no active connection in or out, lowest index first, so that
    no variable changes its shape and no compiled step is traced again; `keras_grow.widen` makes a
    copy of the model with more of them. A newborn's bias is 0. Optimizer slots of all that wakes
    start afresh, and so do its entries of a BatchNormalization on the way, as in a new layer:
    scale 1, offset 0, mean 0, variance 1. Growth is all or nothing: where it raises, the model is
    as it was.

    Where the outputs of several layers are added up, as in a residual stream, a newborn is one unit
    of all of them: the bridge leads from the inputs of each of these layers, one after the other,
    and the initializer chooses among all of them. Inputs and units that are dormant themselves are
    not among those that it sees: a connection to them would bring nothing, and nothing could be
    born into them any more.

    Args:
        model: a built Sequential or functional model.
        data: growth data, a large part of the training set or all of it, in the forms that
            `grow` takes.
        layer: a growable dense layer of the model, or its path or name, whose units are read by
            growable dense layers, each once: through activations, dropout, BatchNormalization,
            additions, concatenations. Other ends of an addition must be growable; those that are
            no dense layer called once, or of other positions, get no connection into a newborn.
        count: positive integer, how many neurons.
        initializer: chooses their connections, by default
            `keras_grow.neuron_initializers.BridgingGradient()`.
        meter: the settings of the measurement (loss, mode, batch size, progress), by default
            `keras_grow.GradientMeter()`. In a loop, pass one meter to all calls: it traces once.
        optimizer: the optimizer of a custom loop; by default the one the model was compiled with.

    Returns:
        A `NeuronRecord`: which units, how many connections, the loss before.

    Raises:
        TypeError, ValueError: for a layer whose units can't be followed to growable dense layers,
            or are multiplied with those of another, for more neurons than there are dormant
            units, growth data that does not fit, numbers that are not finite, and an initializer
            that promises to keep the function where an RMSNormalization is on the way, whose mean
            runs over the newborn too.
        CapacityUsedUp: if a sparse layer has too few free slots for the connections.

    Example:

    ```python
    wider = keras_grow.widen(model, "hidden", 400)
    wider.compile(keras_grow.convert_optimizer(model, wider), model.loss)
    keras_grow.grow_neurons(wider, (x, y), "hidden", count=20)
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 2 and Algorithm 1.
    """
    started = time.perf_counter()
    initializer = BridgingGradient() if initializer is None else initializer
    check_policy(initializer, NeuronInitializer, "initializer")
    count = checked_count(count)
    (grown,) = changeable_layers(model, [layer])
    graph = UnitGraph(model)
    units = sole_units(graph, grown, changeable_layers(model, None))
    if initializer.keeps_function:
        _check_is_kept(units, initializer)
    made_by, read_by = bridgeable(units, graph)
    makers, readers = ([end.layer for end in ends] for ends in (made_by, read_by))
    changeable_layers(model, readers)
    newborn = units.dormant(count)
    optimizer = optimizer_of(model, optimizer, list(dict.fromkeys([*makers, *readers])))
    meter = GradientMeter() if meter is None else meter
    dormancy = Dormancy(graph)
    sources = [_awake(dormancy.inputs(maker)) for maker in makers]
    targets = [_awake(dormancy.units(reader)) for reader in readers]
    measured = bridging_gradient(model, data, makers, readers, meter, optimizer)
    rows, columns = np.concatenate(sources), np.concatenate(targets)
    bridge = Bridge(
        tf.boolean_mask(tf.boolean_mask(measured.gradient, rows, axis=0), columns, axis=1),
        tf.boolean_mask(measured.mean_input, rows),
        len(newborn),
        float(np.mean([mean_weight(maker) for maker in makers])),
        float(np.mean([mean_weight(reader) for reader in readers])),
        steps_made(optimizer),
    )
    birth = _checked(initializer(bridge), bridge)
    incoming = _into(made_by, sources, newborn, birth)
    outgoing = _out_of(read_by, targets, newborn, birth)
    _be_born([*incoming, *outgoing], optimizer)
    num_incoming, num_outgoing = (
        sum(len(indices) for _, indices, _ in side) for side in (incoming, outgoing)
    )
    units.clear_bias(newborn, optimizer)
    units.start_statistics_afresh(newborn, optimizer)
    change = units.change(newborn, num_incoming, num_outgoing)
    return NeuronRecord((change,), {}, time.perf_counter() - started, measured.loss)


def _check_is_kept(units: Units, initializer: NeuronInitializer) -> None:
    """Raises `ValueError` where outgoing weights of 0 do not leave the function as it was."""
    for end in units.group.passed:
        rule = rule_for(end.layer)
        if rule is not None and rule.takes_all:
            kind = type(end.layer).__name__
            raise ValueError(
                f"`{type(initializer).__name__}` promises that the function stays as it was. "
                f"Received: layer {units.path!r}, whose units pass {end.path!r}, a {kind}: its "
                "mean runs over newborns too. Use an initializer that changes the function, such "
                "as `keras_grow.neuron_initializers.BridgingGradient()`."
            )


def _awake(dormant: np.ndarray) -> np.ndarray:
    """Which inputs or units a bridge may touch: all, where there are none but dormant ones."""
    return np.ones_like(dormant) if dormant.all() else ~dormant


def _checked(birth: Birth, bridge: Bridge) -> Birth:
    """The birth, if every neuron has finite connections on both sides; raises `ValueError`."""
    num_inputs, num_units = bridge.gradient.shape
    expected = [(num_inputs, bridge.count), (bridge.count, num_units)]
    sides = [(birth.incoming, birth.wakes_incoming), (birth.outgoing, birth.wakes_outgoing)]
    for side, shape, axis in zip(sides, expected, (0, 1), strict=True):
        weights, wakes = side
        shapes = [tuple(weights.shape), tuple(wakes.shape)]
        if shapes != [shape, shape] or not bool(tf.reduce_all(tf.math.is_finite(weights))):
            raise ValueError(
                "A neuron initializer must return finite weights and which of them wake. "
                f"Received: shapes {shapes}, expected {shape} for both"
            )
        if not bool(tf.reduce_all(tf.reduce_any(wakes, axis))):
            raise ValueError(
                "Every neuron needs a connection in and one out. Received: an initializer that "
                f"gives none to some of {bridge.count} neurons. Where the bridging gradient is 0, "
                "there is nothing to bridge: its largest entry is "
                f"{float(tf.reduce_max(tf.abs(bridge.gradient))):.3g}."
            )
    return birth


Woken = tuple[Growable, tf.Tensor, tf.Tensor]
"""A layer, flat indices of connections of it, and their weights."""


def _into(
    made_by: list[End], sources: list[np.ndarray], newborn: np.ndarray, birth: Birth
) -> list[Woken]:
    """What wakes in the layers that make the newborns."""
    sides: list[Woken] = []
    first = 0
    for end, is_source in zip(made_by, sources, strict=True):
        inputs = np.flatnonzero(is_source)
        of_maker = slice(first, first + len(inputs))
        at = tf.where(birth.wakes_incoming[of_maker])
        units = tf.gather(tf.constant(end.indices[newborn, 0]), at[:, 1])
        indices = end.layer.axes.connection(tf.gather(tf.constant(inputs), at[:, 0]), units)
        sides.append((end.layer, indices, tf.gather_nd(birth.incoming[of_maker], at)))
        first += len(inputs)
    return sides


def _out_of(
    read_by: list[End], targets: list[np.ndarray], newborn: np.ndarray, birth: Birth
) -> list[Woken]:
    """What wakes in the layers that read them."""
    sides: list[Woken] = []
    first = 0
    for end, is_target in zip(read_by, targets, strict=True):
        units = np.flatnonzero(is_target)
        of_reader = slice(first, first + len(units))
        at = tf.where(birth.wakes_outgoing[:, of_reader])
        rows = tf.gather(tf.constant(end.indices[newborn, 0]), at[:, 0])
        indices = end.layer.axes.connection(rows, tf.gather(tf.constant(units), at[:, 1]))
        sides.append((end.layer, indices, tf.gather_nd(birth.outgoing[:, of_reader], at)))
        first += len(units)
    return sides


def _be_born(sides: list[Woken], optimizer: keras.Optimizer | None) -> None:
    """Wakes the connections."""
    needed: dict[Growable, int] = {}
    for layer, indices, values in sides:
        layer.check_indices(indices)
        layer.check_can_wake(indices, values)
        needed[layer] = needed.get(layer, 0) + len(indices)
    for layer, number in needed.items():
        if number > layer.num_free:
            raise CapacityUsedUp(
                f"The neurons bring {number} connections, and layer {layer.name!r} has room "
                f"for {layer.num_free}. Let fewer wake, or make a copy with more slots: "
                "`keras_grow.make_sparse(model, capacity=...)`."
            )
    for layer, indices, values in sides:
        reset_slots(optimizer, layer.grow_connections(indices, values))
