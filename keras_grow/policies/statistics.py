r"""Statistics: what can be measured of connections, for scores and start values to see.

A policy names the statistics that it wants, and reads each as an array of the connections it
judges, `connections[Gradient()]`; one pass over the data measures all that is asked. Your own is a
subclass of one of four, by where it comes from: of the data at inference, an `InputStatistic`; of
inputs and output gradients, a `ProductStatistic`; of the model alone, a `ModelStatistic`; of which
connections of a layer are active, a `TopologyStatistic`.

```python
class MeanSquareGradient(keras_grow.statistics.ProductStatistic):
    "The mean of (dL/dw)^2 over samples, of a layer that sees each of them once."

    def factors(self, inputs, output_gradients):
        return tf.square(inputs), tf.square(output_gradients)


class FisherSaliency(keras_grow.scores.Score):
    "w^2 E[(dL/dw)^2] / 2, what cutting the connection costs by the Fisher information."

    statistics = (MeanSquareGradient(),)

    def __call__(self, connections):
        return tf.square(connections.weight) * connections[MeanSquareGradient()] / 2
```
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.policies.link_prediction import CH2L3n, CH3L3p
from keras_grow.policies.statistic import Statistic
from keras_grow.policies.topology import Topology, TopologyStatistic

__all__ = [
    "CH2L3n",
    "CH3L3p",
    "Gradient",
    "InputDensity",
    "InputRMS",
    "InputStatistic",
    "MagnitudeSum",
    "ModelStatistic",
    "OutputScale",
    "ProductStatistic",
    "Statistic",
    "Topology",
    "TopologyStatistic",
]


class ModelStatistic(Statistic, abc.ABC):
    """What is known of connections without data, from the model as it is."""

    @abc.abstractmethod
    def look_up(
        self, model: keras.Model, layers: Sequence[Any], graph_of: Callable[[keras.Model], Any]
    ) -> dict[Any, tf.Tensor]:
        """The statistic of some growable layers of a model.

        Args:
            model: a built model.
            layers: growable layers of it.
            graph_of: gives the `keras_grow.structure.graph.Graph` of a Sequential or functional
                model, whose `steps` say which layer reads which.

        Returns:
            For each layer floats that broadcast against its kernel: of shape `(units,)`,
            `(inputs, 1)`, or the kernel's own.
        """


class InputStatistic(Statistic, abc.ABC):
    r"""What is known of a connection from its input alone, at inference.

    $$ s_{nm} = h \Big( \frac{1}{R} \sum_{r=1}^{R} f(x_{rn}) \Big) $$

    over all R rows of inputs $x_r$ that the layer is called with: samples and positions; of a
    convolution, each input map at all its places. It is the same for all units.
    """

    @abc.abstractmethod
    def of_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        """f, element by element of float32 inputs of shape `(rows, inputs)`."""

    def of_mean(self, mean: tf.Tensor) -> tf.Tensor:
        """h of the mean, element by element, shape `(inputs,)`; by default the mean itself."""
        return mean


class ProductStatistic(Statistic, abc.ABC):
    r"""A mean of products of what a connection's input and its unit's output gradient tell.

    $$ s_{nm} = \frac{1}{N} \sum_{r} a(x_r)_n \, b(d_r)_m, \qquad
       d_{rm} = \frac{\partial \ell_r}{\partial u_{rm}} $$

    over the rows r of N samples: one for each sample and position, in a convolution for each place
    of the window, of which $x_r$ is the patch. $d_r$ is the gradient of the loss with respect to
    the pre-activations times the samples of the batch, so that for a loss that is a mean over the
    batch, $\ell_r$ is the sample's own. Penalties of regularizers are no part of it.

    Of a sparse layer, whose array may be too large to hold, the factors are kept instead.
    """

    @abc.abstractmethod
    def factors(
        self, inputs: tf.Tensor, output_gradients: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """a(x) and b(d), row by row.

        Args:
            inputs: x, floats of shape `(rows, inputs)`; of a convolution, the connections into a
                unit.
            output_gradients: d, floats of shape `(rows, units)`.

        Returns:
            Floats of the same shapes and precision.
        """


class Gradient(ProductStatistic):
    r"""dL/dw, the mean gradient over the growth data, with its sign.

    It is that of the loss which `model.fit` minimizes, dormant connections included; see
    `keras_grow.GradientMeter`. Of layers that hold a dense kernel, differentiation gives it, the
    gradient of a regularizer's penalty included; of sparse layers it is the product of inputs and
    output gradients, to which the penalty of active connections is added.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1.
    """

    def factors(
        self, inputs: tf.Tensor, output_gradients: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return inputs, output_gradients


class InputRMS(InputStatistic):
    r"""$\sqrt{E[x^2]}$, the root mean square of a connection's input.

    Reference: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models"
    (Wanda), arXiv:2306.11695, equation 1.
    """

    def of_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.square(inputs)

    def of_mean(self, mean: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(mean)


class InputDensity(InputStatistic):
    """The share of samples in which a connection's input is not 0, after Han et al.

    Reference: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    arXiv:1506.02626, table 4.
    """

    def of_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(inputs != 0, inputs.dtype)


class OutputScale(ModelStatistic):
    r"""What a BatchNormalization behind the layer multiplies a connection's unit by at inference.

    $$ \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} $$

    with its scale and moving variance, where one alone reads the layer's units and the layer has
    no activation of its own; else 1. It needs a Sequential or functional model, whose layers tell
    which reads which.
    """

    def look_up(
        self, model: keras.Model, layers: Sequence[Any], graph_of: Callable[[keras.Model], Any]
    ) -> dict[Any, tf.Tensor]:
        graph = graph_of(model)
        return {layer: _output_scale(graph, layer) for layer in layers}


class MagnitudeSum(ModelStatistic):
    r"""The sum of |w| over the active connections of a connection's unit, or of its input.

    $$ \sum_{n'} |w_{n'm}| \quad \text{or} \quad \sum_{m'} |w_{nm'}| $$

    Args:
        over: "inputs", over the inputs of its unit, or "units", over the units of its input.
    """

    def __init__(self, over: str):
        if over not in ("inputs", "units"):
            raise ValueError(f'`over` must be "inputs" or "units". Received: over={over!r}')
        self.over = over

    def look_up(
        self, model: keras.Model, layers: Sequence[Any], graph_of: Callable[[keras.Model], Any]
    ) -> dict[Any, tf.Tensor]:
        found = {}
        for layer in layers:
            axes, (connections, weights) = layer.axes, layer.active_connections()
            is_of_units = self.over == "inputs"
            place, size = (
                (axes.units_of(connections), axes.num_units)
                if is_of_units
                else (axes.inputs_of(connections), axes.num_inputs)
            )
            sums = tf.math.unsorted_segment_sum(tf.abs(weights), place, size)
            found[layer] = axes.per_unit(sums) if is_of_units else axes.per_input(sums)
        return found


def _makes_units_of(layer: Any, kernel: Any) -> bool:
    """Whether the outputs of a layer are the units of a growable kernel: its own, or its only."""
    is_only = getattr(layer, "masked_kernels", None) == [kernel] and not kernel.inner.path
    return layer is kernel or is_only


def _output_scale(graph: Any, layer: Any) -> tf.Tensor:
    units = layer.axes.num_units
    made = {stream for s in graph.steps if _makes_units_of(s.layer, layer) for stream in s.outputs}
    readers = {step.layer for step in graph.steps if not made.isdisjoint(step.inputs)}
    applied_by = layer.inner.layer if hasattr(layer, "inner") else layer
    is_linear = getattr(applied_by, "activation", None) in (None, keras.activations.linear)
    is_alone = len(readers) == 1 and made.isdisjoint(graph.outputs)
    if not (is_linear and is_alone):
        return tf.ones((units,))
    (normalization,) = readers
    is_normalization = type(normalization) is keras.layers.BatchNormalization
    if not is_normalization or tuple(normalization.moving_variance.shape) != (units,):
        return tf.ones((units,))
    variance = tf.cast(normalization.moving_variance.value, tf.float32)
    scale = tf.math.rsqrt(variance + normalization.epsilon)
    if normalization.gamma is None:
        return scale
    return scale * tf.cast(normalization.gamma.value, tf.float32)
