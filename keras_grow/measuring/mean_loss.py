"""The mean loss over growth data, by forward passes."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.measuring.growth_data import batch_size_of
from keras_grow.measuring.loss import check_loss, total_loss, untouched


def loss_measurement(
    model: keras.Model, meter: GradientMeter, optimizer: keras.Optimizer | None = None
) -> Callable[[Any], float]:
    """A function of growth data: the mean loss over it, with the model left untouched.

    Args:
        model: a built model, compiled unless the meter has a `loss`. Its weights may change
            between calls without a new trace.
        meter: the settings: loss, mode, batch size, progress.
        optimizer: whose step random layers draw from.
    """
    loss_function = check_loss(model, meter.loss)

    @summed
    def step(x, y, sample_weight, draw):
        with untouched(model, optimizer, draw):
            loss = total_loss(model, loss_function, x, y, sample_weight, meter.training)
        return tf.cast(loss, tf.float64) * tf.cast(batch_size_of(x), tf.float64)

    def measure(data: Any) -> float:
        batch_size = fitting_batch_size(model, data, meter.batch_size, meter.training)
        total, num_samples = accumulate(step, data, batch_size, meter.verbose)
        return float(total) / num_samples

    return measure
