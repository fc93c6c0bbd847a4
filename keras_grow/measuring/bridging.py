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
    """What one pass over the growth data measured between layers and those that read them.

    Attributes:
        gradient: float tensor of shape `(inputs, units)`: the inputs of the makers, one maker after
            the other, the units of all readers likewise.
        mean_input: float tensor of shape `(inputs,)`, the mean of these inputs.
        loss: float, the mean loss over the growth data.
    """

    gradient: tf.Tensor
    mean_input: tf.Tensor
    loss: float


def bridging_gradient(
    model: keras.Model,
    data: Any,
    makers: Sequence[Growable],
    readers: Sequence[Growable],
    meter: GradientMeter,
    optimizer: keras.Optimizer | None,
) -> MeasuredBridge:
    r"""Measures the gradient of connections from the inputs of `makers` into their `readers`.

    $$ G_{nm} = \frac{1}{N} \sum x_n^{l-1} \frac{\partial L}{\partial u_m^{l+1}} $$

    over the growth data: inputs $x$ of the makers, pre-activations $u$ of the readers. It is
    dL/dS at S = 0 of a kernel S that would lead from those inputs straight into the readers. Signed
    products are summed over all batches, so that chunks equal the whole; the model is left
    untouched.

    Args:
        model, data, optimizer: see `GradientMeter.measure`.
        makers, readers: growable layers of the model, each called on the same samples and positions
            in the same order. Several makers are layers whose outputs are added up.
        meter: the settings of the measurement.

    Raises:
        TypeError, ValueError: for data that is empty, endless or does not fit, and for gradients
            that are NaN or infinite.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Algorithm 1.
    """
    # One that reads what it makes is both.
    layers = list(dict.fromkeys([*makers, *readers]))
    check_finite(model, layers)
    num_inputs = sum(maker.axes.num_inputs for maker in makers)
    num_units = sum(reader.axes.num_units for reader in readers)
    gradient = tf.zeros((num_inputs, num_units), makers[0].variable_dtype)
    input_sum, num_rows = tf.zeros((num_inputs,), gradient.dtype), 0

    def consume(activities):
        nonlocal gradient, input_sum, num_rows
        for calls in zip(*activities, strict=True):
            of_layer = dict(zip(layers, calls, strict=True))
            x = tf.concat([of_layer[each][0] for each in makers], axis=-1)
            upstream = tf.concat([tf.cast(of_layer[each][1], x.dtype) for each in readers], axis=-1)
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
