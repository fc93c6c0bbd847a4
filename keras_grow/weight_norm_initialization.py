"""Data-dependent initialization of weight normalization."""

import itertools
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_grow.as_it_was import as_it_was_on_error
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.observer import Observer, observing
from keras_grow.layers.paths import layer_paths, paths_of
from keras_grow.layers.weight_norm_kernel import WeightNormKernel
from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.growth_data import batches
from keras_grow.measuring.loss import call_model, untouched

# Below this share of the mean square, the variance of a pre-activation is rounding error.
_LEAST_VARIANCE = 1e-10


class _Projection(Observer):
    """Sums t = x v / ||v|| and its square over the calls of one layer; notes who is called."""

    def __init__(self, layer: WeightNormKernel | None):
        self._layer = layer
        self.order: dict[Growable, None] = {}
        self.count = tf.zeros((), tf.float64)
        self.sum = self.square_sum = tf.zeros((), tf.float64)

    def inputs(self, layer, inputs):
        self.order[layer] = None
        if layer is not self._layer:
            return
        direction = tf.cast(layer.direction(), tf.float64)
        projected = layer.apply_kernel(tf.cast(inputs, tf.float64), direction)
        projected = tf.reshape(projected, [-1, direction.shape[-1]])
        self.count += tf.cast(tf.shape(projected)[0], tf.float64)
        self.sum += tf.reduce_sum(projected, axis=0)
        self.square_sum += tf.reduce_sum(projected**2, axis=0)


def initialize_weight_norm(
    model: keras.Model,
    data: Any,
    *,
    training: bool = True,
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> None:
    r"""Makes pre-activations zero-mean and unit-variance on the given data.

    For each `WeightNormDense` and `WeightNormConv2D`, in the order in which they are called, with
    one pass over the data each, so that a layer sees what its already initialized predecessors
    give it:

    $$ t = \frac{x v}{\lVert v \rVert}, \quad g = \frac{1}{\sigma[t]}, \quad
       b = -\frac{\mu[t]}{\sigma[t]} $$

    In a convolution $v$ is convolved with $x$, and the moments are taken per output map, over
    samples and positions alike.

    Kernels inside `WeightNormKernels`, whose pre-activations are not seen, are named in a warning
    and left as they are. A layer without bias gets its `g` only. A unit whose `t` does not vary
    keeps its `g`, and its bias makes it zero-mean. Frozen layers stay as they are. Other variables,
    BatchNormalization's statistics and seeds included, are not touched.

    Args:
        model: a built model with weight-normalized layers.
        data: as for growth: `(x, y)`, `(x,)`, a dataset or batches; only `x` is used.
        training: bool, the mode in which the model runs.
        batch_size: samples per batch where the data is a tuple of arrays; by default as many as
            fit, see `GradientMeter`.
        verbose: 0, 1 or "auto", see `GradientMeter`.

    Raises:
        TypeError, ValueError: for a model without weight-normalized layers, data that does not
            fit, and pre-activations that are NaN or infinite. The layers stay as they were.

    Reference: Salimans, Kingma, "Weight Normalization", arXiv:1602.07868, section 3.
    """
    layers = [
        layer
        for layer in growable_layers(model)
        if isinstance(layer, WeightNormKernel) and layer.trainable
    ]
    hidden = [layer for layer in layers if not layer.shows_activities]
    layers = [layer for layer in layers if layer.shows_activities]
    if hidden:
        warnings.warn(
            f"Not initialized: kernels {paths_of(model, hidden)}, whose products other layers keep "
            "to themselves. They start with w = v.",
            stacklevel=2,
        )
    if not layers:
        raise ValueError(
            "The model has no trainable WeightNormDense or WeightNormConv layer to initialize. "
            f"Received: a model with layers {[layer.name for layer in model.layers]}"
        )
    paths = layer_paths(model)
    batch_size = fitting_batch_size(model, data, batch_size, training)
    with as_it_was_on_error([v for layer in layers for v in layer.trainable_variables]):
        # One batch tells in which order the layers are called.
        first_batch = itertools.islice(batches(data, batch_size)[0](), 1)
        _, order = _project(model, first_batch, None, training, batch_size, verbose)
        for layer in [layer for layer in order if layer in layers]:
            (count, total, square_total), _ = _project(
                model, data, layer, training, batch_size, verbose
            )
            _set_gain_and_bias(paths[layer], layer, total / count, square_total / count)


def _project(model, data, layer, training, batch_size, verbose):
    """Sums of `_Projection` over the data, and the layers in call order."""
    order = []

    @summed
    def step(x, y, sample_weight, draw):
        observer = _Projection(layer)
        with untouched(model, draw=draw), observing(observer):
            call_model(model, x, training)
        order[:] = observer.order
        return observer.count, observer.sum, observer.square_sum

    sums, _ = accumulate(step, data, batch_size, verbose)
    return sums, order


def _set_gain_and_bias(
    path: str, layer: WeightNormKernel, mean: tf.Tensor, mean_square: tf.Tensor
) -> None:
    if not bool(tf.reduce_all(tf.math.is_finite(mean_square))):
        raise ValueError(
            f"The inputs of layer {path!r} must be finite. Received: pre-activations that "
            "are NaN or infinite"
        )
    variance = mean_square - mean**2
    varies = variance > _LEAST_VARIANCE * mean_square
    deviation = tf.sqrt(tf.where(varies, variance, 1.0))
    gain = tf.where(varies, 1.0 / deviation, tf.cast(layer.g.value, tf.float64))
    layer.g.assign(tf.cast(gain, layer.g.value.dtype))
    if layer.bias is not None:
        layer.bias.assign(tf.cast(-mean * gain, layer.bias.value.dtype))
