"""What flows into growable layers, and how often their kernels are applied."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model, untouched
from keras_grow.policies.statistics import InputStatistic, Statistic


def input_totals(
    model: keras.Model, x: Any, layers: Sequence[Growable], statistics: Sequence[InputStatistic]
) -> list:
    """What a batch at inference gives, layer by layer, to be added up over batches.

    Returns:
        For each layer its sums, one for each statistic, how many rows they are of, and the numbers
        of vectors put out and of samples.
    """
    observer = _InputSums(layers, statistics)
    with untouched(model), observing(observer):
        call_model(model, x, training=False)
    return list(observer.totals.values())


def input_values(
    layer: Growable, totals: Sequence, statistics: Sequence[InputStatistic]
) -> tuple[dict[Statistic, tf.Tensor], float]:
    """What the totals of a layer, added up over the data, come to.

    Returns:
        For each statistic a float32 tensor of shape `(inputs, 1)`; of a convolution, of each input
        map over all its places, `(channels, 1)`, with groups one of the kernel's shape; that of a
        mean of 0 where the layer is not called.
        And the number of vectors that the layer puts out per sample of its input.
    """
    sums, num_rows, num_vectors, num_samples = totals
    values: dict[Statistic, tf.Tensor] = {}
    for statistic, total in zip(statistics, sums, strict=True):
        mean = statistic.of_mean(tf.math.divide_no_nan(total, num_rows))
        is_alike = layer.axes.num_groups == 1
        values[statistic] = mean[:, None] if is_alike else layer.axes.per_input(mean)
    return values, float(num_vectors / num_samples)


class _InputSums(Observer):
    """Sums what statistics make of the inputs of layers, over rows and calls."""

    def __init__(self, layers: Sequence[Growable], statistics: Sequence[InputStatistic]):
        self._statistics = statistics
        self._graph = tf.compat.v1.get_default_graph()
        self.totals: dict[Growable, list] = {}
        for layer in layers:
            sums = [tf.zeros([layer.axes.num_inputs]) for _ in statistics]
            # Counts of vectors in float64: beyond 2^24 they are no float32.
            none = tf.zeros((), tf.float64)
            self.totals[layer] = [sums, tf.zeros(()), none, none]

    def inputs(self, layer, inputs):
        if layer not in self.totals:
            return
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise ValueError(
                "Inputs can't be measured inside a loop. Received: a call of layer "
                f"{layer.name!r} inside a while loop or a vectorized map. Unroll it."
            )
        inputs = tf.sparse.to_dense(inputs) if isinstance(inputs, tf.SparseTensor) else inputs
        rows = tf.reshape(tf.cast(inputs, tf.float32), [-1, layer.axes.num_inputs])
        totals = self.totals[layer]
        for i, statistic in enumerate(self._statistics):
            totals[0][i] += tf.reduce_sum(statistic.of_inputs(rows), axis=0)
        totals[1] += tf.cast(tf.shape(rows)[0], tf.float32)

    def pre_activation(self, layer, inputs, outputs):
        if layer in self.totals:
            totals = self.totals[layer]
            num_vectors = tf.size(outputs, tf.int64) // layer.axes.num_units
            totals[2] += tf.cast(num_vectors, tf.float64)
            totals[3] += tf.cast(tf.shape(outputs)[0], tf.float64)
        return outputs
