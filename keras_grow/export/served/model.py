"""A model at inference in TensorFlow alone, as a SavedModel holds it."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_grow.export.served.at_load import Initializer
from keras_grow.export.served.kernels import ServedKernel
from keras_grow.export.signature import output_names
from keras_grow.layers.growable import Growable, nested_layers
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model


class _Kernels(Observer):
    """Shows layers the kernels that are served in place of their own."""

    def __init__(self, layers: Sequence[Growable], kernels: Sequence[ServedKernel]):
        self._kernels = {id(layer): kernel for layer, kernel in zip(layers, kernels, strict=True)}

    def kernel(self, layer):
        kernel = self._kernels.get(id(layer))
        return None if kernel is None else kernel.kernel()

    def product(self, layer, inputs):
        kernel = self._kernels.get(id(layer))
        return None if kernel is None else kernel.product(inputs)


class ServedModel(tf.Module):
    """`model` at inference, free of Keras variables.

    Args:
        model: a built model.
        layers: its growable layers.
        kernels: theirs, as they are served, in the same order.
        input_signature: the structure of `tf.TensorSpec` that the model takes.

    Attributes:
        serve: a `tf.function` of the model's inputs in their order; returns outputs by name.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[Growable],
        kernels: Sequence[ServedKernel],
        input_signature: Any,
    ):
        super().__init__(name="served_model")
        self.kernels = list(kernels)
        at_load = [tensor for kernel in kernels for tensor in kernel.at_load]
        self.initializer = Initializer(at_load) if at_load else None
        replaced = {id(variable) for layer in layers for variable in layer.kernel_variables}
        kept = [variable for variable in model.variables if id(variable) not in replaced]
        self.weights = [
            tf.Variable(variable.value, trainable=False, name=variable.name) for variable in kept
        ]
        observer = _Kernels(layers, kernels)

        @tf.function(input_signature=tree.flatten(input_signature))
        def compute(*inputs):
            inputs = tree.pack_sequence_as(input_signature, inputs)
            state = [(v, w.read_value()) for v, w in zip(kept, self.weights, strict=True)]
            with keras.StatelessScope(state_mapping=state), observing(observer):
                return named_outputs(model, call_model(model, inputs, training=False))

        # TensorFlow traces and writes the function of a signature twice; what it calls, once.
        traced = compute.get_concrete_function()

        @tf.function(input_signature=tree.flatten(input_signature), autograph=False)
        def serve(*inputs):
            return traced(*inputs)

        self.serve = serve
        # Tables are no variables, and are saved with what refers to them.
        tables = [
            value
            for layer in nested_layers(model)
            for value in vars(layer).values()
            if isinstance(value, tf.saved_model.experimental.TrackableResource)
        ]
        if tables:  # An empty list takes a kilobyte.
            self.tables = tables


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, tf.Tensor]:
    """`outputs` of `model` by their names."""
    if isinstance(outputs, dict):
        return outputs
    outputs = tree.flatten(outputs)
    names = output_names(model) or [f"output_{i}" for i in range(len(outputs))]
    return dict(zip(names, outputs, strict=True))
