"""What is found in a batch: all that is asked of a model, in one compiled step."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import observing
from keras_grow.measuring.accumulation import summed
from keras_grow.measuring.activities import GradientTap
from keras_grow.measuring.growth_data import batch_size_of
from keras_grow.measuring.inputs import input_totals
from keras_grow.measuring.loss import total_loss, untouched
from keras_grow.policies.statistics import (
    Gradient,
    InputStatistic,
    ProductStatistic,
    Statistic,
)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked, and of which layers.

    Attributes:
        by_kernel: layers whose dense dL/dW is summed.
        products: dense layers of which sums of products are made, and the statistics.
        activities: layers whose activities are handed on, batch by batch.
        inputs: layers of which input statistics are summed, and the statistics.
        loss: whether the loss is wanted even where nothing else hangs on it.
    """

    by_kernel: tuple[Growable, ...] = ()
    products: tuple[tuple[Growable, ProductStatistic], ...] = ()
    activities: tuple[Growable, ...] = ()
    inputs: tuple[tuple[Growable, ...], tuple[InputStatistic, ...]] = ((), ())
    loss: bool = False

    @classmethod
    def of(cls, layers: Sequence[Growable], statistics: Sequence[Statistic]) -> "Wanted":
        """What some statistics of some layers take."""
        products = [each for each in statistics if isinstance(each, ProductStatistic)]
        inputs = tuple(each for each in statistics if isinstance(each, InputStatistic))
        dense = [layer for layer in layers if not layer.is_sparse]
        hidden = [layer.name for layer in layers if not layer.shows_activities]
        others = [each for each in statistics if each != Gradient()]
        if hidden and others:
            raise ValueError(
                "Inputs and output gradients are seen where a growable layer applies its kernel. "
                f"Received: {others}, of the kernels {hidden[:5]}, which other layers apply by "
                "themselves. Leave them out with `layers=`, or use `Gradient()`, which is measured "
                "of every kernel."
            )
        return cls(
            tuple(dense) if Gradient() in products else (),
            tuple((layer, each) for layer in dense for each in products if each != Gradient()),
            tuple(layer for layer in layers if layer.is_sparse) if products else (),
            (tuple(layers) if inputs else (), inputs),
        )

    @property
    def tapped(self) -> tuple[Growable, ...]:
        """The layers whose activities are looked at, those handed on first."""
        return tuple(dict.fromkeys([*self.activities, *(layer for layer, _ in self.products)]))

    @property
    def takes_loss(self) -> bool:
        """Whether the loss must be computed."""
        return bool(self.loss or self.by_kernel or self.tapped)


def batch_step(
    model: keras.Model,
    wanted: Wanted,
    loss_function: Any,
    training: bool,
    optimizer: keras.Optimizer | None,
) -> Callable[..., Any]:
    """The compiled step that adds up what a batch gives.

    Returns:
        A function `step(sums, x, y, sample_weight, draw, scale)` with the scale of the loss, as
        `accumulation.summed` makes it. Its sums are those of the loss, and of what is `wanted`: by
        kernel, of products, of inputs, all over samples. Beside them it hands on the activities of
        the batch, by layer and call, output gradients times the batch's size, and whether all
        gradients are finite.
    """

    def measure(x, y, sample_weight, draw, scale):
        inputs = input_totals(model, x, *wanted.inputs) if wanted.inputs[0] else []
        if not wanted.takes_loss:
            return (tf.zeros((), tf.float64), [], [], inputs), ([], True)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tap = GradientTap(wanted.by_kernel, wanted.tapped, tape)
            with untouched(model, optimizer, draw), observing(tap):
                loss = total_loss(model, loss_function, x, y, sample_weight, training)
            scaled_loss = loss * tf.cast(scale, loss.dtype)
        gradients, activities = tap.gradients(scaled_loss)
        size = batch_size_of(x)
        measured = [*gradients, *(d for calls in activities for _, d in calls)]
        is_finite = tf.reduce_all([True, *(tf.reduce_all(tf.math.is_finite(g)) for g in measured)])

        def unscaled(gradient):
            return gradient * (tf.cast(size, gradient.dtype) / tf.cast(scale, gradient.dtype))

        loss_sum = tf.cast(loss, tf.float64) * tf.cast(size, tf.float64)
        activities = [[(x, unscaled(d)) for x, d in calls] for calls in activities]
        calls_of = dict(zip(wanted.tapped, activities, strict=True))
        products = [_product(layer, each, calls_of[layer]) for layer, each in wanted.products]
        handed_on = activities[: len(wanted.activities)]
        sums = loss_sum, [unscaled(g) for g in gradients], products, inputs
        return sums, (handed_on, is_finite)

    return summed(measure, hands_on=True)


def _product(layer: Growable, statistic: ProductStatistic, calls: Sequence) -> tf.Tensor:
    """What a statistic makes of activities, summed over rows and calls: in the kernel's shape."""
    total = tf.zeros((layer.fan_in, layer.kernel_shape[-1]), layer.variable_dtype)
    for activity in calls:
        total += tf.matmul(*statistic.factors(*activity), transpose_a=True)
    return tf.reshape(total, layer.kernel_shape)
