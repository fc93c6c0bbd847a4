"""What flows into growable layers, and how often their kernels are applied."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.loss import call_model, untouched
from keras_grow.policies.statistics import InputStatistic, Statistic


@dataclasses.dataclass(frozen=True)
class InputMeasurement:
    """What one pass over the data measured of the inputs of one layer.

    Attributes:
        values: for each statistic a float32 tensor of shape `(inputs, 1)`; of a convolution, of
            each input map over all its places, `(channels, 1)`. That of a mean of 0 where the
            layer is not called.
        num_positions: float, the mean number of vectors that the layer puts out per sample of its
            input; NaN where it is not called.
    """

    values: dict[Statistic, tf.Tensor]
    num_positions: float


class InputSums(Observer):
    """Sums what statistics make of the inputs of layers, over rows and calls.

    Attributes:
        totals: for each layer its sums, one for each statistic, how many rows they are of, and
            numbers of vectors put out and of samples; batch by batch they can be added up.
    """

    def __init__(self, layers: Sequence[Growable], statistics: Sequence[InputStatistic]):
        self._statistics = statistics
        self._graph = tf.compat.v1.get_default_graph()
        self._totals = {layer: self._nothing_of(layer) for layer in layers}

    def _nothing_of(self, layer: Growable) -> list:
        sums = [tf.zeros(layer.kernel_shape[-2:-1]) for _ in self._statistics]
        # Counts of vectors in float64: beyond 2^24 they are no float32.
        return [sums, tf.zeros(()), tf.zeros((), tf.float64), tf.zeros((), tf.float64)]

    @property
    def totals(self) -> list:
        return list(self._totals.values())

    def inputs(self, layer, inputs):
        if layer not in self._totals:
            return
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise ValueError(
                "Inputs can't be measured inside a loop. Received: a call of layer "
                f"{layer.name!r} inside a while loop or a vectorised map. Unroll it."
            )
        inputs = tf.sparse.to_dense(inputs) if isinstance(inputs, tf.SparseTensor) else inputs
        rows = tf.reshape(tf.cast(inputs, tf.float32), [-1, layer.kernel_shape[-2]])
        totals = self._totals[layer]
        for i, statistic in enumerate(self._statistics):
            totals[0][i] += tf.reduce_sum(statistic.of_inputs(rows), axis=0)
        totals[1] += tf.cast(tf.shape(rows)[0], tf.float32)

    def pre_activation(self, layer, inputs, outputs):
        if layer in self._totals:
            totals = self._totals[layer]
            num_vectors = tf.size(outputs, tf.int64) // layer.kernel_shape[-1]
            totals[2] += tf.cast(num_vectors, tf.float64)
            totals[3] += tf.cast(tf.shape(outputs)[0], tf.float64)
        return outputs


def input_measurement(totals: Sequence, statistics: Sequence[InputStatistic]) -> InputMeasurement:
    """What the `InputSums.totals` of a layer, added up over the data, come to."""
    sums, num_rows, num_vectors, num_samples = totals
    values: dict[Statistic, tf.Tensor] = {
        statistic: statistic.of_mean(tf.math.divide_no_nan(total, num_rows))[:, None]
        for statistic, total in zip(statistics, sums, strict=True)
    }
    return InputMeasurement(values, float(num_vectors / num_samples))


def input_totals(
    model: keras.Model, x: Any, layers: Sequence[Growable], statistics: Sequence[InputStatistic]
) -> list:
    """The `InputSums.totals` of a batch, at inference."""
    observer = InputSums(layers, statistics)
    with untouched(model), observing(observer):
        call_model(model, x, training=False)
    return observer.totals


def measure_inputs(
    model: keras.Model,
    data: Any,
    layers: Sequence[Growable],
    statistics: Sequence[InputStatistic],
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> dict[Growable, InputMeasurement]:
    """Measures statistics of the inputs of layers, at inference, in one pass over the data.

    Args:
        model: a built model.
        data: as for growth; only `x` is used.
        layers: growable layers of the model.
        statistics: what to measure.
        batch_size, verbose: as in `GradientMeter`.

    Returns:
        A dict from each layer to what was measured of it.
    """

    @summed
    def step(x, y, sample_weight, draw):
        return input_totals(model, x, layers, statistics)

    batch_size = fitting_batch_size(model, data, batch_size)
    totals, _ = accumulate(step, data, batch_size, verbose)
    return {
        layer: input_measurement(of_layer, statistics)
        for layer, of_layer in zip(layers, totals, strict=True)
    }
