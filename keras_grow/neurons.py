"""Growth of neurons by NeST's Policy 2."""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.change import CapacityUsedUp, changeable_layers, check_policy, optimizer_of
from keras_grow.connections.neuron_initializers import (
    Birth,
    Bridge,
    BridgingGradient,
    NeuronInitializer,
)
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import Growable
from keras_grow.measuring.bridging import bridging_gradient
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import reset_slots, steps_made
from keras_grow.structure.topology import Consumer
from keras_grow.structure.units import NeuronChange, NeuronRecord, Units, checked_count, mean_weight

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

    Measures the bridging gradient between the inputs of `layer` and the units of the layer that
    reads it, and lets the initialiser choose the newborns' connections and weights. Neurons are
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
        layer: a growable dense layer of the model, or its path or name, whose units are read by one
            growable dense layer, through layers that keep units apart: activations, dropout,
            BatchNormalization.
        count: positive integer, how many neurons.
        initializer: chooses their connections, by default
            `keras_grow.neuron_initializers.BridgingGradient()`.
        meter: the settings of the measurement (loss, mode, batch size, progress), by default
            `keras_grow.GradientMeter()`. In a loop, pass one meter to all calls: it traces once.
        optimizer: the optimizer of a custom loop; by default the one the model was compiled with.

    Returns:
        A `NeuronRecord`: which units, how many connections, the loss before.

    Raises:
        TypeError, ValueError: for a layer whose units can't be followed to one growable dense
            layer, for more neurons than there are dormant units, growth data that does not fit,
            and numbers that are not finite.
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
    units = Units(model, grown)
    consumer = _bridgeable(units)
    changeable_layers(model, [consumer.layer])
    newborn = units.dormant(count)
    optimizer = optimizer_of(model, optimizer, [grown, consumer.layer])
    meter = GradientMeter() if meter is None else meter
    measured = bridging_gradient(model, data, grown, consumer.layer, meter, optimizer)
    bridge = Bridge(
        measured.gradient,
        measured.mean_input,
        len(newborn),
        mean_weight(grown),
        mean_weight(consumer.layer),
        steps_made(optimizer),
    )
    birth = _checked(initializer(bridge), bridge)
    num_incoming, num_outgoing = _be_born(birth, grown, consumer, newborn, optimizer)
    units.clear_bias(newborn, optimizer)
    units.start_statistics_afresh(newborn, optimizer)
    change = NeuronChange(
        units.path, newborn, num_incoming, num_outgoing, int(units.living().sum())
    )
    return NeuronRecord((change,), {}, time.perf_counter() - started, measured.loss)


def _bridgeable(units: Units) -> Consumer:
    """The one layer that reads the units, of a kind that neurons can be bridged to."""
    layer = units.layer
    names = [consumer.layer.name for consumer in units.consumers]
    if len(names) != 1:
        raise ValueError(
            "Neurons grow in a layer that one other layer reads. Received: layer "
            f"{layer.name!r}, read by {names}"
        )
    (consumer,) = units.consumers
    reader = consumer.layer
    if isinstance(reader, keras.layers.Dense):
        raise ValueError(
            "The layer that reads the neurons must be growable, so that their connections can "
            f"wake. Received: layer {layer.name!r}, read by {reader.name!r}, a plain Dense. "
            "Convert it with `keras_grow.make_growable(model)`."
        )
    for each in (layer, reader):
        if not isinstance(each, DenseLike):
            raise ValueError(
                "Neurons grow between growable dense layers. Received: layer "
                f"{each.name!r} of class {type(each).__name__}"
            )
    if not consumer.is_unit_by_unit:
        raise ValueError(
            "Neurons grow where each of their outputs is read once. Received: layer "
            f"{layer.name!r}, pooled or flattened on the way to {reader.name!r}"
        )
    size = layer.kernel_shape[-2] * reader.kernel_shape[-1]
    if size > _LARGEST_GRADIENT:
        raise ValueError(
            f"The bridging gradient would have {layer.kernel_shape[-2]} x "
            f"{reader.kernel_shape[-1]} = {size:,} numbers, more than the {_LARGEST_GRADIENT:,} "
            f"that are held. Received: layers {layer.name!r} and {reader.name!r}. Grow connections "
            "instead: `keras_grow.grow` wakes units too, and never holds its gradient."
        )
    return consumer


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
                "A neuron initialiser must return finite weights and which of them wake. "
                f"Received: shapes {shapes}, expected {shape} for both"
            )
        if not bool(tf.reduce_all(tf.reduce_any(wakes, axis))):
            raise ValueError(
                "Every neuron needs a connection in and one out. Received: an initialiser that "
                f"gives none to some of {bridge.count} neurons. Where the bridging gradient is 0, "
                "there is nothing to bridge: its largest entry is "
                f"{float(tf.reduce_max(tf.abs(bridge.gradient))):.3g}."
            )
    return birth


def _be_born(
    birth: Birth,
    layer: Growable,
    consumer: Consumer,
    newborn: np.ndarray,
    optimizer: keras.Optimizer | None,
) -> tuple[int, int]:
    """Wakes the connections; says how many of each layer."""
    into = tf.where(birth.wakes_incoming)
    out_of = tf.where(birth.wakes_outgoing)
    rows = tf.gather(tf.constant(consumer.indices[newborn, 0]), out_of[:, 0])
    incoming = into[:, 0] * layer.kernel_shape[-1] + tf.gather(tf.constant(newborn), into[:, 1])
    outgoing = rows * consumer.layer.kernel_shape[-1] + out_of[:, 1]
    sides = (
        (layer, incoming, tf.gather_nd(birth.incoming, into)),
        (consumer.layer, outgoing, tf.gather_nd(birth.outgoing, out_of)),
    )
    for each, indices, _ in sides:
        if len(indices) > each.num_free:
            raise CapacityUsedUp(
                f"The neurons bring {len(indices)} connections, and layer {each.name!r} has room "
                f"for {each.num_free}. Let fewer wake, or make a copy with more slots: "
                "`keras_grow.make_sparse(model, capacity=...)`."
            )
    for each, indices, values in sides:
        reset_slots(optimizer, each.grow_connections(indices, values))
    return len(incoming), len(outgoing)
