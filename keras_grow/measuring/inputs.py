"""Statistics of what flows into growable layers, and of how often their kernels are applied."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.loss import call_model, untouched


@dataclasses.dataclass(frozen=True)
class InputStatistics:
    """What one pass over the data measured of one layer.

    Attributes:
        means: float32 tensor, the mean of a statistic of each input, shape `(inputs,)`; of a
            convolution, of each input map over all its places, shape `(channels,)`. 0 where the
            layer is not called.
        num_positions: float, the mean number of vectors that the layer puts out per sample of its
            input; NaN where it is not called.
    """

    means: tf.Tensor
    num_positions: float


class _InputSums(Observer):
    def __init__(self, layers: Sequence[Growable], statistic: Callable):
        self._statistic = statistic
        self._graph = tf.compat.v1.get_default_graph()
        self.sums = {layer: tf.zeros(layer.kernel_shape[-2:-1]) for layer in layers}
        self.counts = {layer: tf.zeros(()) for layer in layers}
        # In float64: counts beyond 2^24 are no float32.
        self.positions = {layer: tf.zeros((), tf.float64) for layer in layers}
        self.samples = {layer: tf.zeros((), tf.float64) for layer in layers}

    @property
    def all_sums(self) -> list:
        """Everything that is summed, in one structure."""
        parts = (self.sums, self.counts, self.positions, self.samples)
        return [list(part.values()) for part in parts]

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

    def pre_activation(self, layer, inputs, outputs):
        if layer in self.sums:
            num_vectors = tf.size(outputs, tf.int64) // layer.kernel_shape[-1]
            self.positions[layer] += tf.cast(num_vectors, tf.float64)
            self.samples[layer] += tf.cast(tf.shape(outputs)[0], tf.float64)
        return outputs


def mean_over_inputs(
    model: keras.Model,
    data: Any,
    layers: Sequence[Growable],
    statistic: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> dict[Growable, tf.Tensor]:
    """The `means` that `measure_inputs` gives, by layer."""
    statistics = measure_inputs(model, data, layers, statistic, batch_size, verbose)
    return {layer: measured.means for layer, measured in statistics.items()}


def measure_inputs(
    model: keras.Model,
    data: Any,
    layers: Sequence[Growable],
    statistic: Callable[[tf.Tensor], tf.Tensor],
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> dict[Growable, InputStatistics]:
    """The mean of `statistic(x)` over samples, of each input of each layer, at inference.

    Args:
        model: a built model.
        data: as for growth; only `x` is used.
        layers: growable layers of the model.
        statistic: maps float32 `(rows, inputs)` to the same shape, element by element.
        batch_size, verbose: as in `GradientMeter`.

    Returns:
        A dict from each layer to what was measured of it.
    """

    @summed
    def step(x, y, sample_weight, draw):
        observer = _InputSums(layers, statistic)
        with untouched(model), observing(observer):
            call_model(model, x, training=False)
        return observer.all_sums

    batch_size = fitting_batch_size(model, data, batch_size)
    parts, _ = accumulate(step, data, batch_size, verbose)
    return {
        layer: InputStatistics(tf.math.divide_no_nan(total, count), float(positions / samples))
        for layer, total, count, positions, samples in zip(layers, *parts, strict=True)
    }
