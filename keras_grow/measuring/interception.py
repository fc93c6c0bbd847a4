"""Models run at inference with something done behind the call of each layer inside them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.keras_private import same_random_numbers
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model

# How a layer computes, after whether it is quantized.
_METHODS = ("call", "quantized_call")


def run_intercepted(
    model: keras.Model, inputs: Any, layers: Sequence[keras.Layer], after: Callable[[int, Any], Any]
) -> Any:
    """The outputs of `model`, which is left untouched, on the same random seeds each time.

    Args:
        model: a built model.
        inputs: what it takes, as tensors; it is not compiled.
        layers: layers inside it.
        after: called as `after(number of the layer, outputs)` behind each call of one of them;
            what it returns goes on in the place of the outputs. They are symbolic inside a loop
            that TensorFlow traces.
    """
    with same_random_numbers(), _exact_products(), contextlib.ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.enter_context(intercepted(layer, functools.partial(_with, after, number)))
        with keras.StatelessScope(), observing(_ConnectionByConnection()):
            return call_model(model, inputs, training=False)


def _with(after: Callable[[int, Any], Any], number: int, method: Callable) -> Callable:
    def call(*arguments: Any, **keywords: Any) -> Any:
        return after(number, method(*arguments, **keywords))

    return call


@contextlib.contextmanager
def intercepted(layer: keras.Layer, around: Callable[[Callable], Callable]) -> Iterator[None]:
    """Puts `around(call)` in the place of how a layer computes, inside the block."""
    attributes = vars(layer)
    before = {name: attributes[name] for name in _METHODS if name in attributes}
    for name in _METHODS:
        method = getattr(layer, name)
        attributes[name] = functools.wraps(method)(around(method))
    try:
        yield
    finally:
        for name in _METHODS:
            del attributes[name]
        attributes.update(before)


class _ConnectionByConnection(Observer):
    """Computes sparse layers without compiling their products for these few samples."""

    def product(self, layer: Any, inputs: Any) -> Any:
        if not layer.is_sparse:
            return None
        indices, values = layer.active_connections()
        places = tf.stack([indices // layer.kernel_shape[-1], indices % layer.kernel_shape[-1]], 1)
        kernel = tf.SparseTensor(places, values, layer.kernel_shape)
        rows = layer.as_rows(tf.cast(inputs, values.dtype))
        outputs = tf.sparse.sparse_dense_matmul(kernel, rows, adjoint_a=True, adjoint_b=True)
        shape = tf.concat([tf.shape(inputs)[:-1], layer.kernel_shape[-1:]], axis=0)
        return tf.cast(tf.reshape(tf.transpose(outputs), shape), layer.compute_dtype)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Products of float32 in full precision, where a GPU would round their factors."""
    is_rounded = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(is_rounded)
