"""How large the inputs of any layers are, on data."""

import contextlib
import dataclasses
import functools
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
        first_order: of |x dL/dx|, summed over positions before the magnitude is taken, a mean over
            samples alone: how much the loss changes, to first order, without the input. `None`
            where no loss was given.
    """

    mean_magnitude: tf.Tensor
    mean_square: tf.Tensor
    first_order: tf.Tensor | None = None


def moments_of_inputs(
    model: keras.Model,
    data: Any,
    layers: Sequence[keras.Layer],
    batch_size: int | None,
    verbose: str | int,
    loss: Callable[..., tf.Tensor] | None = None,
) -> dict[keras.Layer, Moments]:
    """Measures what layers of any kind read, all of them in one pass over the data.

    Args:
        model: a built model, which runs at inference and is left untouched.
        data: in the forms that `grow` takes.
        layers: layers inside it that take one tensor, their inputs on its last axis.
        batch_size, verbose: as of `GradientMeter`.
        loss: makes the mean loss of `(x, y, sample_weight)` by calling the model, where the loss is
            asked for.
    """
    layers = list(dict.fromkeys(layers))

    @summed
    @tf.autograph.experimental.do_not_convert  # Which would go through all that Keras calls.
    def step(x, y, sample_weight, draw):
        calls: list[list[tuple[Any, Any]]] = [[] for _ in layers]
        tape = tf.GradientTape(watch_accessed_variables=False)

        def recording(number: int) -> Callable[[Callable], Callable]:
            def around(method: Callable) -> Callable:
                def call(inputs, *arguments, **keywords):
                    nudge = None
                    if loss is not None:
                        nudge = tf.zeros_like(inputs)
                        tape.watch(nudge)
                        inputs = inputs + nudge
                    calls[number].append((inputs, nudge))
                    return method(inputs, *arguments, **keywords)

                return call

            return around

        with contextlib.ExitStack() as stack:
            if loss is not None:
                stack.enter_context(tape)
            for number, layer in enumerate(layers):
                stack.enter_context(intercepted(layer, recording(number)))
            stack.enter_context(keras.StatelessScope(collect_losses=True))
            if loss is None:
                call_model(model, x, training=False)
                total = None
            else:
                total = loss(x, y, sample_weight)
        gradients = [[None for _ in of_layer] for of_layer in calls]
        if total is not None:
            nudges = [[nudge for _, nudge in of_layer] for of_layer in calls]
            gradients = tape.gradient(total, nudges, unconnected_gradients="zero")
        return [
            functools.reduce(_added, map(_sums, [inputs for inputs, _ in of_layer], found))
            for of_layer, found in zip(calls, gradients, strict=True)
        ]

    batch_size = fitting_batch_size(model, data, batch_size)
    sums, num_samples = accumulate(step, data, batch_size, verbose)
    return {
        layer: Moments(
            magnitudes / number,
            squares / number,
            None if loss is None else first_order / num_samples,
        )
        for layer, (magnitudes, squares, number, first_order) in zip(layers, sums, strict=True)
    }


def _added(one: list[tf.Tensor], other: list[tf.Tensor]) -> list[tf.Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _sums(inputs: tf.Tensor, gradient: tf.Tensor | None) -> list[tf.Tensor]:
    exact = tf.cast(inputs, tf.float64)
    rows = tf.reshape(exact, [-1, inputs.shape[-1]])
    number = tf.cast(tf.shape(rows)[0], tf.float64)
    first_order = tf.zeros([inputs.shape[-1]], tf.float64)
    if gradient is not None:
        # That of the mean over the batch, for each sample its own part of it.
        num_samples = tf.shape(inputs)[0]
        products = exact * tf.cast(gradient, tf.float64) * tf.cast(num_samples, tf.float64)
        of_sample = tf.reduce_sum(tf.reshape(products, [num_samples, -1, inputs.shape[-1]]), axis=1)
        first_order = tf.reduce_sum(tf.abs(of_sample), axis=0)
    return [tf.reduce_sum(tf.abs(rows), 0), tf.reduce_sum(tf.square(rows), 0), number, first_order]
