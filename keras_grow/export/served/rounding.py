"""What a SavedModel of rounded kernels is compared with: the model, its kernels rounded alike.

They are rounded here, apart from the export's code, and multiplied in other operations than an
export's: a mistake there is not repeated here.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer


class RoundedKernels(Observer):
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
