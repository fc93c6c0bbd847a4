"""How large the inputs of any layers are, on data."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.interception import intercepted
from keras_grow.measuring.loss import call_model


@dataclasses.dataclass(frozen=True, eq=False)
class Tap:
    """Where in a model something is read that is measured.

    Attributes:
        layer: a layer inside the model, of any kind, that takes and gives one tensor.
        units: which unit each entry of a position belongs to: int64 of shape `(entries,)`. The
            entries are those of the last axis, or of the last ones together.
        of_output: whether it is the layer's output, and not its input.
    """

    layer: keras.Layer
    units: np.ndarray = dataclasses.field(repr=False)
    of_output: bool = False


@dataclasses.dataclass(frozen=True)
class Moments:
    """Means over samples and positions of what a tap finds, over all calls of its layer.

    Attributes:
        mean_magnitude: of |x|, float64 of shape `(entries,)`.
        mean_square: of x^2, likewise.
        first_order: of |x dL/dx|, float64 of shape `(units,)`, summed over positions and over the
            entries of a unit before the magnitude is taken, a mean over samples alone: how much the
            loss changes, to first order, without the unit. `None` where no loss was given.
    """

    mean_magnitude: tf.Tensor
    mean_square: tf.Tensor
    first_order: tf.Tensor | None = None


def moments(
    model: keras.Model,
    data: Any,
    taps: Sequence[Tap],
    batch_size: int | None,
    verbose: str | int,
    loss: Callable[..., tf.Tensor] | None = None,
) -> list[Moments]:
    """Measures what layers of any kind read and make, all of them in one pass over the data.

    Args:
        model: a built model, which runs at inference and is left untouched.
        data: in the forms that `grow` takes.
        taps: where.
        batch_size, verbose: as of `GradientMeter`.
        loss: makes the mean loss of `(x, y, sample_weight)` by calling the model, where the loss is
            asked for.

    Returns:
        The moments of each tap.
    """
    places = list(dict.fromkeys((tap.layer, tap.of_output) for tap in taps))

    @summed
    @tf.autograph.experimental.do_not_convert  # Which would go through all that Keras calls.
    def step(x, y, sample_weight, draw):
        calls: list[list[tuple[Any, Any]]] = [[] for _ in places]
        tape = tf.GradientTape(watch_accessed_variables=False)

        def noted(number: int, value: Any) -> Any:
            nudge = None
            if loss is not None:
                nudge = tf.zeros_like(value)
                tape.watch(nudge)
                value = value + nudge
            calls[number].append((value, nudge))
            return value

        def recording(number: int, of_output: bool) -> Callable[[Callable], Callable]:
            def around(method: Callable) -> Callable:
                def call(inputs, *arguments, **keywords):
                    if of_output:
                        return noted(number, method(inputs, *arguments, **keywords))
                    return method(noted(number, inputs), *arguments, **keywords)

                return call

            return around

        with contextlib.ExitStack() as stack:
            if loss is not None:
                stack.enter_context(tape)
            for number, (layer, of_output) in enumerate(places):
                stack.enter_context(intercepted(layer, recording(number, of_output)))
            stack.enter_context(keras.StatelessScope(collect_losses=True))
            if loss is None:
                call_model(model, x, training=False)
                total = None
            else:
                total = loss(x, y, sample_weight)
        gradients = [[None for _ in of_place] for of_place in calls]
        if total is not None:
            nudges = [[nudge for _, nudge in of_place] for of_place in calls]
            gradients = tape.gradient(total, nudges, unconnected_gradients="zero")
        found = []
        for tap in taps:
            number = places.index((tap.layer, tap.of_output))
            values = [value for value, _ in calls[number]]
            sums = map(functools.partial(_sums, tap), values, gradients[number])
            found.append(functools.reduce(_added, sums))
        return found

    batch_size = fitting_batch_size(model, data, batch_size)
    sums, num_samples = accumulate(step, data, batch_size, verbose)
    return [
        Moments(
            magnitudes / number,
            squares / number,
            None if loss is None else first_order / num_samples,
        )
        for magnitudes, squares, number, first_order in sums
    ]


def _added(one: list[tf.Tensor], other: list[tf.Tensor]) -> list[tf.Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _sums(tap: Tap, values: tf.Tensor, gradient: tf.Tensor | None) -> list[tf.Tensor]:
    num_entries, num_units = len(tap.units), 1 + int(tap.units.max())
    exact = tf.cast(values, tf.float64)
    rows = tf.reshape(exact, [-1, num_entries])
    number = tf.cast(tf.shape(rows)[0], tf.float64)
    first_order = tf.zeros([num_units], tf.float64)
    if gradient is not None:
        # That of the mean over the batch, for each sample its own part of it.
        num_samples = tf.shape(values)[0]
        products = exact * tf.cast(gradient, tf.float64) * tf.cast(num_samples, tf.float64)
        products = tf.reshape(products, [num_samples, -1, num_entries])
        of_entry = tf.transpose(tf.reduce_sum(products, axis=1))
        of_unit = tf.math.unsorted_segment_sum(of_entry, tf.constant(tap.units), num_units)
        first_order = tf.reduce_sum(tf.abs(of_unit), axis=1)
    return [tf.reduce_sum(tf.abs(rows), 0), tf.reduce_sum(tf.square(rows), 0), number, first_order]
