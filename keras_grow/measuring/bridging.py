"""The bridging gradient: what a connection would be worth that skips a layer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable, check_finite
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.batch_step import Wanted
from keras_grow.measuring.gradients import GradientMeter


@dataclasses.dataclass(frozen=True)
class MeasuredBridge:
    """What one pass over the growth data measured between a layer and those that read it.

    Attributes:
        gradient: float tensor of shape `(inputs, units)`: the inputs of the layer, the units of
            all its readers, one reader after the other.
        mean_input: float tensor of shape `(inputs,)`, the mean input of the first layer.
        loss: float, the mean loss over the growth data.
    """

    gradient: tf.Tensor
    mean_input: tf.Tensor
    loss: float


def bridging_gradient(
    model: keras.Model,
    data: Any,
    layer: Growable,
    readers: Sequence[Growable],
    meter: GradientMeter,
    optimizer: keras.Optimizer | None,
) -> MeasuredBridge:
    r"""Measures the gradient of connections from the inputs of `layer` into its `readers`.

    $$ G_{nm} = \frac{1}{N} \sum x_n^{l-1} \frac{\partial L}{\partial u_m^{l+1}} $$

    over the growth data: inputs $x$ of `layer`, pre-activations $u$ of the readers. It is
    dL/dS at S = 0 of a kernel S that would lead from those inputs straight into the readers. Signed
    products are summed over all batches, so that chunks equal the whole; the model is left
    untouched.

    Args:
        model, data, optimizer: see `GradientMeter.measure`.
        layer, readers: growable layers of the model, each called on the same samples in the same
            order.
        meter: the settings of the measurement.

    Raises:
        TypeError, ValueError: for data that is empty, endless or does not fit, and for gradients
            that are NaN or infinite.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Algorithm 1.
    """
    layers = [layer, *readers]
    check_finite(model, layers)
    num_inputs, num_units = layer.axes.num_inputs, sum(x.axes.num_units for x in readers)
    gradient = tf.zeros((num_inputs, num_units), layer.variable_dtype)
    input_sum, num_rows = tf.zeros((num_inputs,), gradient.dtype), 0

    def consume(activities):
        nonlocal gradient, input_sum, num_rows
        for (x, _), *of_readers in zip(*activities, strict=True):
            upstream = tf.concat([tf.cast(d, x.dtype) for _, d in of_readers], axis=-1)
            gradient += tf.matmul(x, upstream, transpose_a=True)
            input_sum += tf.reduce_sum(x, axis=0)
            num_rows += x.shape[0]

    wanted = Wanted(activities=tuple(layers))
    (loss, *_), num_samples = meter.passes(model, data, wanted, optimizer)(consume)
    gradient /= tf.cast(num_samples, gradient.dtype)
    if not bool(tf.reduce_all(tf.math.is_finite(gradient))):
        raise ValueError(
            "The bridging gradient must be finite. Received: NaN or infinite entries between "
            f"layers {paths_of(model, layers)}. Look for NaN in the growth data, labels "
            "out of range, or a diverged training."
        )
    mean_input = input_sum / tf.cast(max(1, num_rows), gradient.dtype)
    return MeasuredBridge(gradient, mean_input, float(loss) / num_samples)
