"""What layers with a kernel make of inputs that are constant, whatever the model is given."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_grow.structure.kernels import axes_of, connections_of


class Kernel:
    """The connections of a layer with a kernel, and what they make of constants."""

    def __init__(self, layer: keras.Layer):
        self.layer = layer
        connections, weights = connections_of(layer)
        self.axes = axes_of(layer)
        self.inputs = self.axes.inputs_of(connections).numpy()
        self.units = self.axes.units_of(connections).numpy()
        self.weights = tf.cast(weights, tf.float64).numpy()
        # Where the window reaches over the edge it finds 0, not the constant.
        self._is_framed = getattr(layer, "padding", "valid") != "valid"
        self._is_partial = not getattr(layer, "is_applied_everywhere", True)

    @property
    def obstacle(self) -> str:
        """Why constants other than 0 can't go into the layer's biases."""
        if self.layer.bias is None:
            return "it has no biases to take them"
        if self._is_framed:
            return "its padding is 0, not the constant"
        if self._is_partial:
            return "it leaves out parts of its maps"
        return "they differ from call to call"

    def can_absorb(self, constants: Sequence[np.ndarray]) -> np.ndarray:
        """Which inputs may go: constants, the same in all calls; bool of shape `(inputs,)`."""
        is_same = np.all([np.isfinite(each) & (each == constants[0]) for each in constants], axis=0)
        if self.layer.bias is None or self._is_framed or self._is_partial:
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
        dtype = self.layer.compute_dtype
        outputs = tf.cast(outputs, dtype)
        if self.layer.bias is not None:
            outputs += tf.cast(self.layer.bias.value, dtype)
        if self.layer.activation is not None:
            outputs = self.layer.activation(outputs[None])[0]
        outputs = tf.cast(outputs, tf.float64).numpy()
        return np.where(fed | ~np.isfinite(outputs), np.nan, outputs)
