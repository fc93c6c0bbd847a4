"""What a SavedModel of rounded kernels is compared with: the model, its kernels rounded alike.

They are rounded here, apart from the export's code, and multiplied in other operations than an
export's: a mistake there is not repeated here.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_grow.export.inference import ShownKernel, ShownKernels, dense_inputs
from keras_grow.layers.growable import Growable


def rounded_kernels(layers: Sequence[Growable], dtype: str) -> ShownKernels:
    """Shows layers their effective kernels, rounded to `dtype`."""
    rounded = (layer for layer in layers if layer.variable_dtype != dtype)
    return ShownKernels({layer: _rounded(layer, dtype) for layer in rounded})


def _rounded(layer: Growable, dtype: str) -> ShownKernel:
    if not layer.is_sparse:
        kernel = layer.effective_kernel()
        kernel = tf.cast(tf.cast(kernel, dtype), kernel.dtype)
        return ShownKernel(lambda: kernel)
    connections, values = layer.active_connections()
    num_inputs, num_units = layer.kernel_shape
    places = tf.stack([connections // num_units, connections % num_units], axis=1)
    compute_dtype = layer.compute_dtype
    wide = tf.float64 if compute_dtype == "float64" else tf.float32
    values = tf.cast(tf.cast(tf.cast(values, dtype), compute_dtype), wide)

    def product(inputs):
        # A dense kernel may not fit.
        kernel = tf.SparseTensor(places, values, [num_inputs, num_units])
        rows = tf.reshape(dense_inputs(inputs, wide), [-1, num_inputs])
        outputs = tf.sparse.sparse_dense_matmul(rows, kernel)
        outputs = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [num_units]], axis=0))
        outputs = tf.ensure_shape(outputs, [*inputs.shape[:-1], num_units])
        return tf.cast(outputs, compute_dtype)

    return ShownKernel(lambda: None, product)
