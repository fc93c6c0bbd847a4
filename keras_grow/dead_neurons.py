"""Removal of neurons that nothing feeds or nothing reads."""

import dataclasses
import time

import keras
import numpy as np
import tensorflow as tf

from keras_grow.change import optimizer_of
from keras_grow.layers.growable import growable_layers
from keras_grow.optimizer_slots import shift_averages
from keras_grow.structure.kernels import connections_of, kernel_shape
from keras_grow.structure.passing import ZERO_PADDING
from keras_grow.structure.topology import Consumer
from keras_grow.structure.units import NeuronChange, NeuronRecord, Units, followed


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
        is named in `left`, where a layer that reads it has no bias or is a convolution.

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
    groups, not_followed = followed(model, layers)
    optimizer = optimizer_of(model, optimizer, layers)
    removed = [_Removed() for _ in groups]
    is_changing = True
    while is_changing:
        is_changing = False
        for units, so_far in zip(groups, removed, strict=True):
            is_changing |= _remove_unread(units, so_far, optimizer)
            is_changing |= _fold_unfed(units, so_far, optimizer)
    changes = [
        NeuronChange(
            units.path,
            np.array(sorted(so_far.units), np.int64),
            so_far.num_incoming,
            so_far.num_outgoing,
            int(units.living().sum()),
            np.flatnonzero((units.fan_in() == 0) & (units.fan_out() > 0)),
        )
        for units, so_far in zip(groups, removed, strict=True)
    ]
    return NeuronRecord(tuple(changes), not_followed, time.perf_counter() - started)


@dataclasses.dataclass
class _Removed:
    units: set[int] = dataclasses.field(default_factory=set)
    num_incoming: int = 0
    num_outgoing: int = 0


def _remove_unread(units: Units, so_far: _Removed, optimizer: keras.Optimizer | None) -> bool:
    """Cuts what leads into units that nothing reads; says whether there was any."""
    unread = np.flatnonzero((units.fan_out() == 0) & (units.fan_in() > 0))
    if len(unread):
        so_far.num_incoming += units.cut_incoming(unread, optimizer)
        so_far.units.update(unread.tolist())
    return len(unread) > 0


def _fold_unfed(units: Units, so_far: _Removed, optimizer: keras.Optimizer | None) -> bool:
    """Folds units that nothing feeds into the biases behind them; says whether there was any."""
    unfed = np.flatnonzero((units.fan_in() == 0) & (units.fan_out() > 0))
    if not len(unfed) or not all(map(_can_absorb, units.consumers)):
        return False
    for reader in units.consumers:
        bias = reader.layer.bias
        shift = tf.cast(_contribution(units, unfed, reader), bias.dtype)
        bias.assign_add(shift)
        # Averages of weights that an optimizer keeps must not bring the old bias back.
        shift_averages(optimizer, bias, shift)
    so_far.num_outgoing += units.cut_outgoing(unfed, optimizer)
    units.clear_bias(unfed, optimizer)
    so_far.units.update(unfed.tolist())
    return True


def _can_absorb(reader: Consumer) -> bool:
    """Whether a constant input can go into the layer's biases; not where padding cuts it off."""
    is_framed = any(type(place.layer) in ZERO_PADDING for place in reader.passed)
    layer = reader.layer
    return layer.bias is not None and len(kernel_shape(layer)) == 2 and not is_framed


def _contribution(units: Units, unfed: np.ndarray, reader: Consumer) -> tf.Tensor:
    """What the constant outputs of `unfed` add to each of the reader's units, shape `(units,)`."""
    layer = units.layer
    constants = tf.zeros((units.count,), layer.variable_dtype)
    if layer.bias is not None:
        constants += layer.bias.value
    if layer.activation is not None:
        constants = layer.activation(constants[None])[0]
    # One sample, of the shape that Flatten expects; outside of training, layers infer.
    values = tf.broadcast_to(
        constants, [1, *(size or 1 for size in layer.output.shape[1:-1]), units.count]
    )
    for place in reader.passed:
        values = place.layer(values)
    # It is the same at all positions.
    values = tf.reshape(values, [-1, values.shape[-1]])[0]
    is_unfed = np.zeros(values.shape, bool)
    is_unfed[reader.indices[unfed].reshape(-1)] = True
    connections, weights = connections_of(reader.layer)
    num_units = kernel_shape(reader.layer)[-1]
    values = tf.where(is_unfed, tf.cast(values, weights.dtype), 0)
    products = weights * tf.gather(values, connections // num_units)
    return tf.math.unsorted_segment_sum(products, connections % num_units, num_units)
