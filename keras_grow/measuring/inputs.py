"""Statistics of what flows into growable layers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model, untouched
from keras_grow.measuring.passes import sum_over_batches


class _InputSums(Observer):
    def __init__(self, layers: Sequence[Growable], statistic: Callable):
        self._statistic = statistic
        self._graph = tf.compat.v1.get_default_graph()
        self.sums = {layer: tf.zeros(layer.kernel_shape[-2:-1]) for layer in layers}
        self.counts = {layer: tf.zeros(()) for layer in layers}

    def inputs(self, layer, inputs):
        if layer not in self.sums:
            return
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise ValueError(
                "Inputs can't be measured inside a loop. Received: a call of layer "
                f"{layer.name!r} inside a while loop or a vectorised map. Unroll it."
            )
        inputs = tf.sparse.to_dense(inputs) if isinstance(inputs, tf.SparseTensor) else inputs
        rows = tf.reshape(tf.cast(inputs, tf.float32), [-1, self.sums[layer].shape[0]])
        self.sums[layer] += tf.reduce_sum(self._statistic(rows), axis=0)
        self.counts[layer] += tf.cast(tf.shape(rows)[0], tf.float32)


def mean_over_inputs(
    model: keras.Model,
    data: Any,
    layers: Sequence[Growable],
    statistic: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int = 1000,
    verbose: str | int = "auto",
) -> dict[Growable, tf.Tensor]:
    """The mean of `statistic(x)` over samples, of each input of each layer, at inference.

    Args:
        model: a built model.
        data: as for growth; only `x` is used.
        layers: growable layers of the model.
        statistic: maps float32 `(rows, inputs)` to the same shape, element by element.
        batch_size, verbose: as in `GradientMeter`.

    Returns:
        A dict from each layer to a float32 tensor of shape `(inputs,)`; 0 where the layer is
        not called.
    """

    @tf.function(reduce_retracing=True)
    def step(sums, x):
        observer = _InputSums(layers, statistic)
        with untouched(model), observing(observer):
            call_model(model, x, training=False)
        new = [list(observer.sums.values()), list(observer.counts.values())]
        return tf.nest.map_structure(tf.add, sums, new)

    def step_on_batch(sums, x, y, sample_weight, draw):
        if sums is None:
            empty = _InputSums(layers, statistic)
            sums = [list(empty.sums.values()), list(empty.counts.values())]
        return step(sums, x)

    (sums, counts), _ = sum_over_batches(step_on_batch, data, batch_size, verbose)
    return {
        layer: tf.math.divide_no_nan(total, count)
        for layer, total, count in zip(layers, sums, counts, strict=True)
    }
