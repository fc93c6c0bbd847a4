"""How large the inputs of any layers are, on data."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.interception import intercepted
from keras_grow.measuring.loss import call_model


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

    @summed
    @tf.autograph.experimental.do_not_convert  # Which would go through all that Keras calls.
    def step(x, y, sample_weight, draw):
        sums: list[Any] = [None for _ in layers]

        def recording(number: int) -> Callable[[Callable], Callable]:
            def around(method: Callable) -> Callable:
                def call(inputs, *arguments, **keywords):
                    new, old = _sums(inputs), sums[number]
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

    batch_size = fitting_batch_size(model, data, batch_size)
    sums, _ = accumulate(step, data, batch_size, verbose)
    return {
        layer: Moments(magnitudes / number, squares / number)
        for layer, (magnitudes, squares, number) in zip(layers, sums, strict=True)
    }


def _sums(inputs: tf.Tensor) -> list[tf.Tensor]:
    rows = tf.reshape(tf.cast(inputs, tf.float64), [-1, inputs.shape[-1]])
    number = tf.cast(tf.shape(rows)[0], tf.float64)
    return [tf.reduce_sum(tf.abs(rows), 0), tf.reduce_sum(tf.square(rows), 0), number]
