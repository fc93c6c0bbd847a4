"""What units score on data, as the layers that read them see them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.measuring.layer_inputs import Moments, Tap, moments
from keras_grow.measuring.loss import check_loss, total_loss
from keras_grow.neurons.scores import NeuronScore, Outputs
from keras_grow.neurons.units import Units
from keras_grow.structure.kernels import attribute_of, axes_of, connections_of
from keras_grow.structure.rules import computing
from keras_grow.structure.unit_groups import End, Group


def scores_of(
    model: keras.Model,
    groups: Sequence[Units],
    score: NeuronScore,
    data: Any,
    meter: GradientMeter,
) -> list[np.ndarray]:
    """The score of each unit of each group, float64; the largest of those by reader.

    What only reads inside a layer, as a recurrent kernel does, is not measured where something
    else is. Units that nothing reads, but that are multiplied with each other, as those of queries
    and keys, are measured where they are made.

    Args:
        model: a built model.
        groups: groups of its units.
        score: the score.
        data: in the forms that `grow` takes.
        meter: the settings of the measurement.

    Raises:
        ValueError: for scores that are not finite, and units that can't be measured anywhere.
    """
    loss = None
    if score.takes_first_order:
        loss = functools.partial(_loss, model, check_loss(model, meter.loss))
    tapped = [_tapped(units) for units in groups]
    taps = [tap for ends in tapped for _, _, tap in ends]
    found = iter(moments(model, data, taps, meter.batch_size, meter.verbose, loss))
    return [
        _scores(units, score, [(end, weights, next(found)) for end, weights, _ in ends])
        for units, ends in zip(groups, tapped, strict=True)
    ]


def _tapped(units: Units) -> list[tuple[End, tf.Tensor, Tap]]:
    """Where units are measured: the kernel, the norm of what leads out of them, and the tap."""
    group, found = units.group, []
    for end in group.read_by:
        layer = None if end.between.read_at is None else _layer_at(end, end.between.read_at)
        if layer is not None:
            norm = _norm(end, KernelAxes.inputs_of, "num_inputs")
            num_entries = axes_of(end.layer).num_inputs
            found.append((end, norm, Tap(layer, _numbers(end, num_entries))))
    if found or (not group.read_by and len(group.made_by) == 1):
        return found  # What nothing reads goes first.
    for end, *others in (group.made_by, group.made_by[::-1]):
        if end.between.made_at is not None and others:
            norm = _norm(others[0], KernelAxes.units_of, "num_units")
            numbers = _numbers(end, axes_of(end.layer).num_units)
            tap = Tap(_layer_at(end, end.between.made_at), numbers, of_output=True)
            return [(end, norm, tap)]
    raise ValueError(
        "Units are measured where a layer reads them. Received: "
        f"{group}, which can't be measured there. Leave {units.path!r} out of `layers`."
    )


def _layer_at(end: End, path: str) -> keras.Layer:
    return attribute_of(computing(end.owner), path) if path else end.owner


def _numbers(end: End, num_entries: int) -> np.ndarray:
    """Which unit of an end each entry of a tap belongs to; those of others are units of their own.

    Where a kernel has several inputs for each entry, they are the copies of one unit.
    """
    repeats = end.between.read_repeats
    count = len(end.indices)
    numbers = np.full(num_entries // repeats, -1)
    numbers[end.indices // repeats] = np.arange(count)[:, None]
    others = np.flatnonzero(numbers < 0)
    numbers[others] = count + np.arange(len(others))
    return numbers


def _scores(
    units: Units, score: NeuronScore, measured: Sequence[tuple[End, tf.Tensor, Moments]]
) -> np.ndarray:
    largest = np.full(units.count, -np.inf)
    makers = [_norm(end, KernelAxes.units_of, "num_units") for end in units.group.made_by]
    incoming = tf.reduce_max(makers, axis=0)
    scale = tf.reduce_prod([tf.ones(units.count, tf.float64), *_scales(units.group)], axis=0)
    for end, norm, of_tap in measured:
        first_order = of_tap.first_order
        outputs = Outputs(
            _by_unit(of_tap.mean_magnitude, end),
            tf.sqrt(_by_unit(of_tap.mean_square, end)),
            norm,
            incoming,
            scale,
            None if first_order is None else first_order[: units.count],
        )
        values = np.asarray(score(outputs), np.float64)
        if values.shape != largest.shape or not np.all(np.isfinite(values)):
            raise ValueError(
                "A neuron score must return one finite number per unit. Received: shape "
                f"{values.shape}, expected {largest.shape}, for layer {units.path!r}"
            )
        largest = np.maximum(largest, values)
    return largest


def _loss(model: keras.Model, loss: Any, x: Any, y: Any, sample_weight: Any) -> tf.Tensor:
    """The mean loss of a batch at inference."""
    return total_loss(model, loss, x, y, sample_weight, training=False)


def _by_unit(per_entry: tf.Tensor, end: End) -> tf.Tensor:
    places = end.indices // end.between.read_repeats
    return tf.reduce_mean(tf.gather(per_entry, places), axis=1)


def _norm(end: End, side: Callable[[KernelAxes, Any], Any], count: str) -> tf.Tensor:
    """The norm of the weights into or out of each unit; float64."""
    axes, (connections, weights) = axes_of(end.layer), connections_of(end.layer)
    squares = tf.square(tf.cast(weights, tf.float64))
    squares = tf.math.unsorted_segment_sum(squares, side(axes, connections), getattr(axes, count))
    return tf.sqrt(tf.reduce_sum(tf.gather(squares, end.indices), axis=1))


def _scales(group: Group) -> list[tf.Tensor]:
    """|gamma| of the normalizations that units pass, by unit; float64."""
    found = []
    for end in group.passed:
        gamma = getattr(end.layer, "gamma", None)
        if gamma is not None:
            values = tf.abs(tf.cast(gamma.value, tf.float64))
            found.append(tf.reduce_max(tf.gather(values, end.indices), axis=1))
    return found
