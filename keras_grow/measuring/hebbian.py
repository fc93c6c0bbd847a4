"""The Hebbian form of the growth gradient: presynaptic activity times postsynaptic stimulation."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer
from keras_grow.measuring.gradients import GradientMeter


class HebbianTap(Observer):
    """Keeps the inputs x and the stimulations dL/du of every call of every layer."""

    def __init__(self, layers: Sequence[Growable], tape: tf.GradientTape):
        self._tape = tape
        self._graph = tf.compat.v1.get_default_graph()
        self._calls: dict[Growable, list[tuple[tf.Tensor, tf.Tensor]]] = {
            layer: [] for layer in layers
        }

    def pre_activation(self, layer, inputs, outputs):
        if layer not in self._calls:
            return outputs
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise ValueError(
                "The Hebbian form can't look into a loop. Received: a call of layer "
                f"{layer.name!r} inside a while loop or a vectorised map. Use `growth_gradients`, "
                "which can, or unroll the loop (`unroll=True`)."
            )
        nudge = tf.zeros_like(outputs)
        self._tape.watch(nudge)
        self._calls[layer].append((inputs, nudge))
        return outputs + nudge

    def gradients(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        """The sum of x_n dL/du_m over samples and calls, of each layer in their order."""
        stimulations = tape.gradient(
            loss,
            [[nudge for _, nudge in calls] for calls in self._calls.values()],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return [
            self._correlate(layer, loss, [x for x, _ in calls], layer_stimulations)
            for (layer, calls), layer_stimulations in zip(
                self._calls.items(), stimulations, strict=True
            )
        ]

    def _correlate(self, layer, loss, inputs, stimulations):
        kernel = tf.convert_to_tensor(layer.effective_kernel())
        total = tf.zeros_like(kernel)
        for x, stimulation in zip(inputs, stimulations, strict=True):
            x = tf.sparse.to_dense(x) if isinstance(x, tf.SparseTensor) else x
            x = tf.reshape(tf.cast(x, kernel.dtype), [-1, kernel.shape[0]])
            stimulation = tf.reshape(tf.cast(stimulation, kernel.dtype), [-1, kernel.shape[-1]])
            total += tf.matmul(x, stimulation, transpose_a=True)
        return total


def hebbian_gradients(
    model: keras.Model,
    data: Any,
    *,
    loss: Any = None,
    training: bool = True,
    batch_size: int = 1000,
    verbose: str | int = "auto",
) -> dict[Growable, tf.Tensor]:
    r"""Growth gradients in the form of Hebb's rule: what fires together, wires together.

    $$ \frac{\partial L}{\partial w_{nm}} = \sum_\text{batch} x_n \frac{\partial L}{\partial u_m} $$

    for a connection from input $n$ to unit $m$ with pre-activation $u_m$. It is the same number
    as `growth_gradients` gives, up to the order of summation, without the penalties of kernel
    regularisers (whose gradient at a dormant connection, whose weight is 0, is 0), and needs no
    dense gradient until the last step.

    Args:
        model, data, loss, training, batch_size, verbose: as in `growth_gradients`.

    Returns:
        As `growth_gradients`.

    Raises:
        TypeError, ValueError: as `growth_gradients`, and for a layer called inside a while loop.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1; Hebb, "The Organization of
    Behavior", 1949.
    """
    return _HebbianMeter(loss, training, batch_size, verbose).measure(model, data).gradients


class _HebbianMeter(GradientMeter):
    _tap = HebbianTap
