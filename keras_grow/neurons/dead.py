"""Removal of neurons that nothing feeds or nothing reads."""

import time

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.acted_on import optimizer_of
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import growable_layers
from keras_grow.neurons.units import NeuronRecord, cut_connections, followed
from keras_grow.optimizer_slots import shift_averages
from keras_grow.structure.flow import Flow
from keras_grow.structure.graph import Step
from keras_grow.structure.unit_graph import UnitGraph


def remove_dead_neurons(
    model: keras.Model, optimizer: keras.Optimizer | None = None
) -> NeuronRecord:
    """Removes what is left of neurons without fan-in or fan-out; the function stays as it was.

    A unit that nothing reads loses its incoming connections and its bias. A unit that nothing
    feeds outputs a constant, the activation of its bias: what becomes of it on the way to the
    layers that read it, at inference, is added to their biases, and the unit loses its outgoing
    connections. One removal may leave another unit dead, and so it goes on until none is. The
    units of output layers never go. A layer may lose all its connections so, where nothing that it
    computes depended on an input or reached an output.

    At inference the function is unchanged up to rounding. In training, dropout after such a unit
    no longer acts on its constant.

    Args:
        model: a built Sequential or functional model with growable layers. Frozen layers take part.
        optimizer: the optimizer of a custom loop, whose slots of what changes start afresh; by
            default the one the model was compiled with, if any.

    Returns:
        A `NeuronRecord`: which units, and how many connections. A unit without fan-in stays, and
        is named in `left`, where a layer that reads it has no bias, or pads it with zeros.

    Raises:
        TypeError, ValueError: for a model without growable layers, and an optimizer whose slots
            can't start afresh.

    Example:

    ```python
    keras_grow.prune(model, density=0.02)
    print(keras_grow.remove_dead_neurons(model))
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4.
    """
    started = time.perf_counter()
    layers = growable_layers(model)
    graph = UnitGraph(model)
    groups, not_followed = followed(model, layers, graph)
    optimizer = optimizer_of(model, optimizer, layers)
    flow = Flow(graph, keeps_one=False)
    dead = [
        np.flatnonzero(units.connected() & ~flow.is_needed(units.group.roots)) for units in groups
    ]
    absorbing = [steps[0] for steps in graph.kernels.values() if flow.kernel(steps[0].layer)]
    for step in absorbing:
        _shift_biases(flow, step, optimizer)
    numbers = [
        (units.cut_incoming(removed, optimizer), units.cut_outgoing(removed, optimizer))
        for units, removed in zip(groups, dead, strict=True)
    ]
    for step in absorbing:  # What plain layers make that is constant.
        cut_connections(step.layer, KernelAxes.inputs_of, flow.absorbed(step.layer)[0], optimizer)
    changes = [
        units.change(
            removed, *counts, np.flatnonzero((units.fan_in() == 0) & (units.fan_out() > 0))
        )
        for units, removed, counts in zip(groups, dead, numbers, strict=True)
    ]
    return NeuronRecord(tuple(changes), not_followed, time.perf_counter() - started)


def _shift_biases(flow: Flow, step: Step, optimizer: keras.Optimizer | None) -> None:
    """Adds to a layer's biases what its constant inputs bring to units that stay."""
    _, sums = flow.absorbed(step.layer)
    kept = np.zeros(len(sums))
    kept[flow.kept(step.outputs[0])] = 1
    bias, shift = step.layer.bias, sums * kept
    if bias is None or not shift.any():
        return
    shift = tf.cast(shift, bias.dtype)
    bias.assign_add(shift)
    # Averages of weights that an optimizer keeps must not bring the old bias back.
    shift_averages(optimizer, bias, shift)
