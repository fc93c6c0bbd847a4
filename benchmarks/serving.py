"""What the benchmark of inference needs beside the library: a dense original, memory, dispatch."""

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from keras_grow.layers.paths import nested_layers


def dense_like(model: keras.Model) -> keras.Model:
    """A plain copy of a model with small random weights in the place of zeros."""
    plain = keras_grow.make_plain(model)
    random = np.random.default_rng(0)
    for layer in nested_layers(plain):
        kernel = getattr(layer, "kernel", None)
        if isinstance(kernel, keras.Variable):
            values = kernel.numpy()
            noise = random.normal(scale=0.01, size=values.shape)
            kernel.assign(np.where(values == 0, noise, values))
    return plain


def dispatch(inputs: np.ndarray) -> Callable[[], Any]:
    """A call of a function of TensorFlow that computes next to nothing."""
    signature = [tf.TensorSpec([None, *inputs.shape[1:]], tf.float32)]
    function = tf.function(lambda x: x[:, :1], input_signature=signature).get_concrete_function()
    tensor = tf.constant(inputs)
    return lambda: function(tensor).numpy()


def memory_bytes(
    form: keras_grow.formats.Format, path: str, name: str, shape: tuple[int, ...]
) -> int:
    """By how much a fresh process grows that loads an export and serves two batches of zeros."""
    kind = type(form).__name__
    function = "benchmarks.serving:growth"
    return harness.run_alone(function, kind=kind, path=path, name=name, shape=shape).result


def growth(kind: str, path: str, name: str, shape: list[int]) -> int:
    """The other side of `memory_bytes`, in its own process, once the runtime has started."""
    form = getattr(keras_grow.formats, kind)()
    for runtime in ("onnxruntime", "ai_edge_litert.interpreter"):
        importlib.import_module(runtime)
    dispatch(np.zeros((1, 1), "float32"))()
    before = harness.resident_bytes()
    serve = form.open(path)
    for _ in range(2):
        serve({name: np.zeros(shape, "float32")})
    return harness.resident_bytes() - before
