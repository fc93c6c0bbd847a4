"""The Hebbian form of the growth gradient: the input's activity times the output gradient."""

from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.policies.statistics import ProductStatistic
from keras_grow.search.tiled_array import TiledArray


def hebbian_gradients(
    model: keras.Model,
    data: Any,
    *,
    loss: Any = None,
    training: bool = True,
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> dict[Growable, tf.Tensor | TiledArray]:
    r"""Growth gradients in the form of Hebb's rule: what fires together, wires together.

    $$ \frac{\partial L}{\partial w_{nm}} = \sum_\text{batch} x_n \frac{\partial L}{\partial u_m} $$

    for a connection from input $n$ to unit $m$ with pre-activation $u_m$; in a convolution the sum
    runs over the positions of the window too, and $x_n$ is what its place $n$ sees there. It is
    the same number as `growth_gradients` gives, up to the order of summation, without the penalties
    of kernel regularizers (whose gradient at a dormant connection, whose weight is 0, is 0), and
    needs no dense gradient until the last step.

    It takes layers that show what their kernel is applied to. Kernels in other layers
    (`GrowableKernels`) do not, and are refused. In an embedding, whose input n is 1 where token n
    stands and 0 elsewhere, the rule would add up the output gradients of the places where the token
    stands, which is what `growth_gradients` measures there.

    Args:
        model, data, loss, training, batch_size, verbose: as in `growth_gradients`.

    Returns:
        As `growth_gradients`.

    Raises:
        TypeError, ValueError: as `growth_gradients`, for a layer called inside a while loop, and
            for kernels in other layers.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1; Hebb, "The Organization of
    Behavior", 1949.
    """
    meter = GradientMeter(loss, training, batch_size, verbose)
    measured = meter.measure(model, data, statistics=[_Hebbian()])
    return {layer: values[_Hebbian()] for layer, values in measured.values.items()}


class _Hebbian(ProductStatistic):
    """x dL/du, of layers with a dense kernel too."""

    def factors(self, inputs, output_gradients):
        return inputs, output_gradients
