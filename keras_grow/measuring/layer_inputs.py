"""How large the inputs of any layers are, on data."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.interception import intercepted
from keras_grow.measuring.loss import call_model
from keras_grow.measuring.passes import sum_over_batches


@dataclasses.dataclass(frozen=True)
class Moments:
    """Means over samples and positions of what a layer reads, over all its calls.

    Attributes:
        mean_magnitude: of |x|, float64 of shape `(inputs,)`.
        mean_square: of x^2, likewise.
    """

    mean_magnitude: tf.Tensor
    mean_square: tf.Tensor


def moments_of_inputs(
    model: keras.Model,
    data: Any,
    layers: Sequence[keras.Layer],
    batch_size: int | None,
    verbose: str | int,
) -> dict[keras.Layer, Moments]:
    """Measures what layers of any kind read, all of them in one pass over the data.

    Args:
        model: a built model, which runs at inference and is left untouched.
        data: in the forms that `grow` takes.
        layers: layers inside it that take one tensor, their inputs on its last axis.
        batch_size, verbose: as of `GradientMeter`.
    """
    layers = list(dict.fromkeys(layers))

    @tf.function(reduce_retracing=True)
    def step(x):
        sums: list[Any] = [None for _ in layers]

        def recording(number: int) -> Callable[[Callable], Callable]:
            def around(method: Callable) -> Callable:
                def call(inputs, *arguments, **keywords):
                    new = _sums(inputs)
                    old = sums[number]
                    sums[number] = new if old is None else tf.nest.map_structure(tf.add, old, new)
                    return method(inputs, *arguments, **keywords)

                return call

            return around

        with contextlib.ExitStack() as stack:
            for number, layer in enumerate(layers):
                stack.enter_context(intercepted(layer, recording(number)))
            stack.enter_context(keras.StatelessScope())
            call_model(model, x, training=False)
        return sums

    def step_on_batch(sums, x, y, sample_weight, draw):
        new = step(x)
        return new if sums is None else tf.nest.map_structure(tf.add, sums, new)

    batch_size = fitting_batch_size(model, data, batch_size)
    sums, _ = sum_over_batches(step_on_batch, data, batch_size, verbose)
    return {
        layer: Moments(magnitudes / number, squares / number)
        for layer, (magnitudes, squares, number) in zip(layers, sums, strict=True)
    }


def _sums(inputs: tf.Tensor) -> list[tf.Tensor]:
    rows = tf.reshape(tf.cast(inputs, tf.float64), [-1, inputs.shape[-1]])
    number = tf.cast(tf.shape(rows)[0], tf.float64)
    return [tf.reduce_sum(tf.abs(rows), 0), tf.reduce_sum(tf.square(rows), 0), number]
