"""A SavedModel of the grown network, which TensorFlow alone loads and serves."""

import os
import re
import tempfile
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model


class _PackedKernels(tf.Module, Observer):
    """Serves kernels, and products with sparse kernels, from active connections alone."""

    def __init__(self, layers: list[Growable]):
        super().__init__(name="kernels")
        self._position = {}
        self.indices, self.values = [], []
        for position, layer in enumerate(layers):
            indices, values = layer.active_connections()
            if layer.is_sparse:
                # Sorted by (unit, input), as the product wants them.
                num_inputs, num_units = layer.kernel_shape
                indices = indices % num_units * num_inputs + indices // num_units
                order = tf.argsort(indices)
                indices, values = tf.gather(indices, order), tf.gather(values, order)
            fits = layer.num_connections <= tf.int32.max
            self._position[id(layer)] = position
            self.indices.append(
                tf.Variable(
                    tf.cast(indices, tf.int32 if fits else tf.int64),
                    trainable=False,
                    name=f"{layer.name}/indices",
                )
            )
            self.values.append(tf.Variable(values, trainable=False, name=f"{layer.name}/values"))

    def _packed(self, layer):
        position = self._position[id(layer)]
        return self.indices[position].read_value(), self.values[position].read_value()

    def kernel(self, layer):
        if id(layer) not in self._position:
            return None
        indices, values = self._packed(layer)
        size = tf.constant([layer.num_connections], indices.dtype)
        return tf.reshape(tf.scatter_nd(indices[:, None], values, size), layer.kernel_shape)

    def product(self, layer, inputs):
        if id(layer) not in self._position:
            return None
        num_inputs, num_units = layer.kernel_shape
        indices, values = self._packed(layer)
        indices = tf.cast(indices, tf.int64)
        indices = tf.stack([indices // num_inputs, indices % num_inputs], axis=1)
        # TensorFlow multiplies sparse matrices in float32 and float64 only.
        dtype = tf.float64 if layer.compute_dtype == "float64" else tf.float32
        values = tf.cast(tf.cast(values, layer.compute_dtype), dtype)
        kernel = tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=indices, values=values, dense_shape=[num_units, num_inputs]
        )
        rows = tf.reshape(tf.cast(inputs, dtype), [-1, num_inputs])
        outputs = tf.transpose(tf.raw_ops.SparseMatrixMatMul(a=kernel, b=tf.transpose(rows)))
        outputs = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [num_units]], axis=0))
        outputs = tf.ensure_shape(outputs, [*inputs.shape[:-1], num_units])
        return tf.cast(outputs, layer.compute_dtype)


class _ServedModel(tf.Module):
    """The model at inference, free of Keras variables."""

    def __init__(self, model: keras.Model, input_signature: Any):
        super().__init__(name="served_model")
        layers = growable_layers(model)
        self.kernels = _PackedKernels(layers)
        packed = {id(variable) for layer in layers for variable in layer.kernel_variables}
        kept = [variable for variable in model.variables if id(variable) not in packed]
        self.weights = [
            tf.Variable(variable.value, trainable=False, name=variable.name) for variable in kept
        ]
        output_names = _output_names(model)

        @tf.function(input_signature=tree.flatten(input_signature))
        def serve(*inputs):
            inputs = tree.pack_sequence_as(input_signature, inputs)
            state = [(v, w.read_value()) for v, w in zip(kept, self.weights, strict=True)]
            with keras.StatelessScope(state_mapping=state), observing(self.kernels):
                outputs = call_model(model, inputs, training=False)
            if isinstance(outputs, dict):
                return outputs
            outputs = tree.flatten(outputs)
            names = output_names or [f"output_{i}" for i in range(len(outputs))]
            return dict(zip(names, outputs, strict=True))

        self.serve = serve


def export_saved_model(
    model: keras.Model, path: str | os.PathLike, *, input_signature: Any = None
) -> None:
    """Writes a SavedModel of the grown network, which TensorFlow alone loads and serves.

    Of each growable layer only the active connections are stored, as indices (int32 where they
    fit) and values. Those of masked layers are scattered into a dense kernel when the model is
    called; those of sparse layers are multiplied as a sparse matrix. Inputs and outputs of the
    signature `serving_default`, and of `loaded.serve`, are named after the model's. The batch size
    stays free. The model runs at inference and computes what `model(x, training=False)` does.

    Args:
        model: a built model with growable layers.
        path: the directory to write. An earlier SavedModel there is replaced, in one step at the
            end: a half-written export never stands at `path`.
        input_signature: for subclassed models, which do not know their inputs: the structure of
            `tf.TensorSpec` that the model takes, each with a name.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a model without growable layers, one whose inputs are not known, weights
            that are NaN or infinite, a model that TensorFlow can't trace, and a `path` at which
            something else than a SavedModel stands.

    Example:

    ```python
    keras_grow.export_saved_model(model, "grown")
    # Elsewhere, with nothing but TensorFlow:
    loaded = tf.saved_model.load("grown")  # Keep it: TensorFlow drops the weights with it.
    outputs = loaded.serve(x)
    ```
    """
    for layer in growable_layers(model):
        layer.check_finite()
    path = os.path.abspath(os.fspath(path))
    if os.path.exists(path) and not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise ValueError(
            "An export replaces earlier SavedModels only. Received: "
            f"path={path!r}, where something else stands. Choose another, or remove it."
        )
    if input_signature is None:
        input_signature = _input_signature(model)
    try:
        served = _ServedModel(model, input_signature)
        signature = served.serve.get_concrete_function()
    except Exception as error:  # Whatever the model's own code raises while it is traced.
        raise ValueError(
            "The model can't be exported: TensorFlow could not trace it at inference with the "
            f"signature {input_signature}. {error}"
        ) from error
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path), prefix=".export-") as scratch:
        written = os.path.join(scratch, "new")
        tf.saved_model.save(served, written, signatures={"serving_default": signature})
        if os.path.exists(path):
            os.rename(path, os.path.join(scratch, "old"))
        os.rename(written, path)


def _input_signature(model: keras.Model) -> Any:
    if getattr(model, "inputs", None) is None:
        raise ValueError(
            "A subclassed model does not know its inputs. Received: "
            f"{type(model).__name__} without `inputs`. Pass `input_signature=`, such as "
            '`tf.TensorSpec((None, 784), "float32", name="images")`.'
        )
    return tree.map_structure(
        lambda tensor: tf.TensorSpec(
            tensor.shape, tensor.dtype, name=re.sub(r"\W", "_", tensor.name)
        ),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )


def _output_names(model: keras.Model) -> list[str] | None:
    """Names of the outputs in their order, `None` where the model has no names for them."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = getattr(model, "output_names", None)
    if names is None or len(set(names)) < len(names):
        return None
    return list(names)
