"""Growth of neurons by NeST's Policy 2."""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.amounts import CapacityUsedUp
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import Growable
from keras_grow.measuring.bridging import bridging_gradient
from keras_grow.measuring.gradients import GradientMeter
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
from keras_grow.structure.unit_graph import End, UnitGraph

# Numbers of a bridging gradient: 512 MB in float32, and ranking them takes as much again.
_LARGEST_GRADIENT = 2**27


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

    Args:
        model: a built Sequential or functional model.
        data: growth data, a large part of the training set or all of it, in the forms that
            `grow` takes.
        layer: a growable dense layer of the model, or its path or name, whose units are read by
            growable dense layers, each once: through activations, dropout, BatchNormalization,
            additions, concatenations. Other ends of an addition get no connection into a newborn.
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
            units, growth data that does not fit, and numbers that are not finite.
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
    readers = _bridgeable(units, graph)
    layers = [end.layer for end in readers]
    changeable_layers(model, layers)
    newborn = units.dormant(count)
    optimizer = optimizer_of(model, optimizer, [grown, *layers])
    meter = GradientMeter() if meter is None else meter
    measured = bridging_gradient(model, data, grown, layers, meter, optimizer)
    bridge = Bridge(
        measured.gradient,
        measured.mean_input,
        len(newborn),
        mean_weight(grown),
        float(np.mean([mean_weight(reader) for reader in layers])),
        steps_made(optimizer),
    )
    birth = _checked(initializer(bridge), bridge)
    num_incoming, num_outgoing = _be_born(birth, units, newborn, optimizer)
    units.clear_bias(newborn, optimizer)
    units.start_statistics_afresh(newborn, optimizer)
    change = units.change(newborn, num_incoming, num_outgoing)
    return NeuronRecord((change,), {}, time.perf_counter() - started, measured.loss)


def _bridgeable(units: Units, graph: UnitGraph) -> tuple[End, ...]:
    """The layers that read the units, all of a kind that neurons can be bridged to."""
    layer, readers = units.layer, units.group.read_by
    if not readers:
        raise ValueError(
            "Neurons grow in a layer that other layers read. Received: layer "
            f"{layer.name!r}, read by none"
        )
    for end in readers:
        if not isinstance(end.layer, Growable):
            raise ValueError(
                "The layers that read the neurons must be growable, so that their connections can "
                f"wake. Received: layer {layer.name!r}, read by {end.path!r}, a plain "
                f"{type(end.layer).__name__}. Convert it with `keras_grow.make_growable(model)`."
            )
    for each in (layer, *(end.layer for end in readers)):
        if not isinstance(each, DenseLike):
            raise ValueError(
                "Neurons grow between growable dense layers. Received: layer "
                f"{each.name!r} of class {type(each).__name__}"
            )
        if len(graph.kernels[id(each)]) > 1:
            raise ValueError(
                "Neurons grow between layers that the model calls once. Received: layer "
                f"{each.name!r}, which it calls {len(graph.kernels[id(each)])} times"
            )
    if units.group.moves or any(end.indices.shape[1] > 1 for end in readers):
        raise ValueError(
            "Neurons grow where each of their outputs is read once. Received: layer "
            f"{layer.name!r}, pooled, repeated or flattened on the way to "
            f"{[end.path for end in readers]}"
        )
    if not units.group.adds:
        raise ValueError(
            "Neurons grow where what they bring is added. Received: layer "
            f"{layer.name!r}, multiplied or compared with others on the way to "
            f"{[end.path for end in readers]}, where a newborn would bring nothing"
        )
    num_units = sum(end.layer.axes.num_units for end in readers)
    size = layer.axes.num_inputs * num_units
    if size > _LARGEST_GRADIENT:
        raise ValueError(
            f"The bridging gradient would have {layer.axes.num_inputs} x {num_units} = {size:,} "
            f"numbers, more than the {_LARGEST_GRADIENT:,} that are held. Received: layers "
            f"{layer.name!r} and {[end.path for end in readers]}. Grow connections instead: "
            "`keras_grow.grow` wakes units too, and never holds its gradient."
        )
    return readers


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


def _be_born(
    birth: Birth, units: Units, newborn: np.ndarray, optimizer: keras.Optimizer | None
) -> tuple[int, int]:
    """Wakes the connections; says how many lead in, and out."""
    into, layer = tf.where(birth.wakes_incoming), units.layer
    numbers = tf.constant(units.numbers[newborn])
    incoming = layer.axes.connection(into[:, 0], tf.gather(numbers, into[:, 1]))
    sides = [(layer, incoming, tf.gather_nd(birth.incoming, into))]
    first = 0
    for end in units.group.read_by:
        axes: KernelAxes = end.layer.axes
        of_reader = slice(first, first + axes.num_units)
        out_of = tf.where(birth.wakes_outgoing[:, of_reader])
        rows = tf.gather(tf.constant(end.indices[newborn, 0]), out_of[:, 0])
        values = tf.gather_nd(birth.outgoing[:, of_reader], out_of)
        sides.append((end.layer, axes.connection(rows, out_of[:, 1]), values))
        first += axes.num_units
    for each, indices, _ in sides:
        if len(indices) > each.num_free:
            raise CapacityUsedUp(
                f"The neurons bring {len(indices)} connections, and layer {each.name!r} has room "
                f"for {each.num_free}. Let fewer wake, or make a copy with more slots: "
                "`keras_grow.make_sparse(model, capacity=...)`."
            )
    for each, indices, values in sides:
        reset_slots(optimizer, each.grow_connections(indices, values))
    return len(incoming), sum(len(indices) for _, indices, _ in sides[1:])
