"""A model at inference in TensorFlow alone, as a SavedModel holds it."""

from collections.abc import Sequence

import tensorflow as tf

from keras_grow.export.inference import Inference, ShownKernels, plain_variables
from keras_grow.export.served.at_load import Initializer
from keras_grow.export.served.kernels import ServedKernel
from keras_grow.layers.paths import nested_layers


class ServedModel(tf.Module):
    """A model at inference, free of Keras variables.

    Args:
        inference: the model.
        kernels: as they are served, one for each of its growable layers.

    Attributes:
        serve: a `tf.function` of the model's inputs in their order; returns outputs by name.
    """

    def __init__(self, inference: Inference, kernels: Sequence[ServedKernel]):
        super().__init__(name="served_model")
        self.kernels = list(kernels)
        at_load = [tensor for kernel in kernels for tensor in kernel.at_load]
        self.initializer = Initializer(at_load) if at_load else None
        kept = plain_variables(inference)
        self.weights = [
            tf.Variable(variable.value, trainable=False, name=variable.name) for variable in kept
        ]
        traced = inference.function(
            ShownKernels(dict(zip(inference.layers, kernels, strict=True))),
            lambda: [(v, w.read_value()) for v, w in zip(kept, self.weights, strict=True)],
        ).get_concrete_function()

        # TensorFlow traces and writes the function of a signature twice; what it calls, once.
        @tf.function(input_signature=inference.specs, autograph=False)
        def serve(*inputs):
            return traced(*inputs)

        self.serve = serve
        # Tables are no variables, and are saved with what refers to them.
        tables = [
            value
            for layer in nested_layers(inference.model)
            for value in vars(layer).values()
            if isinstance(value, tf.saved_model.experimental.TrackableResource)
        ]
        if tables:  # An empty list takes a kilobyte.
            self.tables = tables
