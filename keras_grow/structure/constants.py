"""What layers with a kernel make of inputs that are constant, whatever the model is given."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.weight_norm_kernel import WeightNormKernel
from keras_grow.structure.kernels import axes_of, connections_of


class Kernel:
    """The connections of a kernel, and what they make of constants.

    Args:
        holder: the layer with the kernel, see `structure.kernels`.
        layer: the layer whose biases and activation come behind it, `None` where there is none.
        absorbs: whether the biases can take what a constant brings.
    """

    def __init__(self, holder: Any, layer: keras.Layer | None, absorbs: bool = True):
        self.holder = holder
        self.bias = getattr(layer, "bias", None)
        self._activation = getattr(layer, "activation", None)
        self._dtype = getattr(layer, "compute_dtype", "float32")
        connections, weights = connections_of(holder)
        self.axes = axes_of(holder)
        self.inputs = self.axes.inputs_of(connections).numpy()
        self.units = self.axes.units_of(connections).numpy()
        self.weights = tf.cast(weights, tf.float64).numpy()
        # Where the window reaches over the edge it finds 0, not the constant.
        self._is_framed = not absorbs or getattr(layer, "padding", "valid") != "valid"
        # What is normalized together is another without one of its parts.
        self._is_whole = isinstance(holder, WeightNormKernel) and not absorbs
        self._is_partial = not getattr(layer, "is_applied_everywhere", True)

    @property
    def obstacle(self) -> str:
        """Why constants other than 0 can't go into the layer's biases."""
        if self._is_whole:
            return "their weights are normalized together with others"
        if self.bias is None:
            return "it has no biases to take them"
        if self._is_framed:
            return "its padding is 0, not the constant"
        if self._is_partial:
            return "it leaves out parts of its maps"
        return "they differ from call to call"

    def can_absorb(self, constants: Sequence[np.ndarray]) -> np.ndarray:
        """Which inputs may go: constants, the same in all calls; bool of shape `(inputs,)`."""
        is_same = np.all([np.isfinite(each) & (each == constants[0]) for each in constants], axis=0)
        if self._is_whole:
            return np.zeros_like(is_same)
        if self.bias is None or self._is_framed or self._is_partial:
            return is_same & (constants[0] == 0)
        return is_same

    def sums(self, inputs: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """What constant inputs add to each unit's pre-activation; float64 of shape `(units,)`."""
        values = np.zeros(self.axes.num_inputs)
        values[inputs] = constants
        products = self.weights * values[self.inputs]
        return np.bincount(self.units, products, minlength=self.axes.num_units)

    def outputs_of(self, constants: np.ndarray) -> np.ndarray:
        """The constant outputs, given the constant inputs; NaN where they are not."""
        is_constant = np.isfinite(constants)
        if self._is_framed or self._is_partial:
            is_constant &= constants == 0
        fed = np.bincount(self.units[~is_constant[self.inputs]], minlength=self.axes.num_units) > 0
        inputs = np.flatnonzero(is_constant)
        outputs = self.sums(inputs, constants[inputs])
        outputs = tf.cast(outputs, self._dtype)
        if self.bias is not None:
            biases = tf.reshape(self.bias.value, [-1])
            # One for each unit, or for each entry of the last axis of what is made.
            biases = tf.tile(biases, [self.axes.num_units // len(biases)])
            outputs += tf.cast(biases, self._dtype)
        if self._activation is not None:
            outputs = self._activation(outputs[None])[0]
        outputs = tf.cast(outputs, tf.float64).numpy()
        return np.where(fed | ~np.isfinite(outputs), np.nan, outputs)
