"""What an export is compared with: the model's own outputs, its kernels rounded as they are stored.

Kernels are rounded here, apart from the export's code, and multiplied in other operations than an
export's: a mistake there is not repeated here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model


class _RoundedKernels(Observer):
    """Rounds the effective kernels of layers to a dtype."""

    def __init__(self, layers: Sequence[Growable], dtype: str):
        self._kernels, self._connections = {}, {}
        for layer in layers:
            if layer.variable_dtype == dtype:
                continue
            if layer.is_sparse:
                # A dense kernel may not fit.
                connections, values = layer.active_connections()
                self._connections[id(layer)] = connections, _rounded(values, dtype)
            else:
                self._kernels[id(layer)] = _rounded(layer.effective_kernel(), dtype)

    def kernel(self, layer):
        return self._kernels.get(id(layer))

    def product(self, layer, inputs):
        if id(layer) not in self._connections:
            return None
        connections, values = self._connections[id(layer)]
        num_inputs, num_units = layer.kernel_shape
        places = tf.stack([connections // num_units, connections % num_units], axis=1)
        dtype = tf.float64 if layer.compute_dtype == "float64" else tf.float32
        values = tf.cast(tf.cast(values, layer.compute_dtype), dtype)
        kernel = tf.SparseTensor(places, values, [num_inputs, num_units])
        rows = tf.reshape(tf.cast(inputs, dtype), [-1, num_inputs])
        outputs = tf.sparse.sparse_dense_matmul(rows, kernel)
        outputs = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [num_units]], axis=0))
        outputs = tf.ensure_shape(outputs, [*inputs.shape[:-1], num_units])
        return tf.cast(outputs, layer.compute_dtype)


def _rounded(values: tf.Tensor, dtype: str) -> tf.Tensor:
    return tf.cast(tf.cast(values, dtype), values.dtype)


def reference(
    model: keras.Model, layers: Sequence[Growable], input_signature: Any, dtype: str | None
) -> Callable[..., Any]:
    """`model` at inference as a compiled function, which leaves the model as it is.

    Compiled, because TensorFlow rounds half precision elsewhere when it does not compile.

    Args:
        model: a built model.
        layers: its growable layers.
        input_signature: the structure of `tf.TensorSpec` that the model takes.
        dtype: what the kernels of `layers` are rounded to; `None` leaves them.

    Returns:
        A function of the model's inputs in their flattened order.
    """
    observer = Observer() if dtype is None else _RoundedKernels(layers, dtype)

    @tf.function(input_signature=tree.flatten(input_signature))
    def compute(*inputs):
        inputs = tree.pack_sequence_as(input_signature, inputs)
        state = [(variable, variable.value) for variable in model.variables]
        with keras.StatelessScope(state_mapping=state), observing(observer):
            return call_model(model, inputs, training=False)

    return compute.get_concrete_function()
