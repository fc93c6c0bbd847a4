"""The model at inference as one function of its inputs, its weights constants inside it."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from keras_grow.export.signature import output_names
from keras_grow.layers.growable import Growable, check_finite, nested_layers
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model


class _ConstantKernels(Observer):
    """Effective kernels as constants, so that converters see zeros and no masks."""

    def __init__(self, layers: list[Growable]):
        self._kernels = {id(layer): layer.effective_kernel().numpy() for layer in layers}

    def kernel(self, layer):
        kernel = self._kernels.get(id(layer))
        return None if kernel is None else tf.constant(kernel)

    def product(self, layer, inputs):
        kernel = self.kernel(layer)
        if kernel is None or not layer.is_sparse:
            return None  # Masked layers know best how to apply a kernel.
        dtype = layer.compute_dtype
        return ops.matmul(ops.cast(inputs, dtype), ops.cast(kernel, dtype))


@dataclasses.dataclass(frozen=True)
class TracedModel:
    """A model at inference, for converters.

    Attributes:
        function: a `tf.function` that takes the inputs one by one, and returns a dictionary of
            outputs.
        signature: a list of `tf.TensorSpec`, one for each input, each with a name of its own.
        input_names: the names of the inputs, in the order in which `keras.tree` flattens them.
        output_names: the names of the outputs, in the order in which `keras.tree` flattens them.
    """

    function: Any
    signature: list[tf.TensorSpec]
    input_names: list[str]
    output_names: list[str]

    def named(self, inputs: Any) -> dict[str, np.ndarray]:
        """The arrays of a structure of inputs, in the signature's dtypes, by name."""
        arrays = tree.flatten(inputs)
        if len(arrays) != len(self.signature):
            raise ValueError(
                "`data` must have the structure of the model's inputs. Received: "
                f"{len(arrays)} arrays, expected one for each of {self.input_names}"
            )
        return {
            spec.name: np.asarray(array, tf.as_dtype(spec.dtype).as_numpy_dtype)
            for spec, array in zip(self.signature, arrays, strict=True)
        }


def trace(model: keras.Model, input_signature: Any) -> TracedModel:
    """Traces `model` at inference.

    Every weight becomes a constant, and every effective kernel one with zeros at its dormant
    connections: a dense kernel, also of a sparse layer, which converters need.

    Args:
        model: a built model.
        input_signature: a structure of `tf.TensorSpec`.

    Raises:
        ValueError: where TensorFlow can't trace the model, and for weights that are NaN or
            infinite.
    """
    layers = [layer for layer in nested_layers(model) if isinstance(layer, Growable)]
    check_finite(model, layers)
    specs = tree.flatten(input_signature)
    names = [spec.name or f"input_{i}" for i, spec in enumerate(specs)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Inputs must have names of their own. Received: {names}. Rename the model's "
            "`keras.Input`s."
        )
    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=name)
        for spec, name in zip(specs, names, strict=True)
    ]
    kernels = _ConstantKernels(layers)
    packed = {id(variable) for layer in layers for variable in layer.kernel_variables}
    values = [(v, v.numpy()) for v in model.variables if id(v) not in packed]
    named_outputs: list[str] = []

    @tf.function(input_signature=signature, autograph=False)
    def function(*inputs):
        inputs = tree.pack_sequence_as(input_signature, inputs)
        state = [(variable, tf.constant(value)) for variable, value in values]
        with keras.StatelessScope(state_mapping=state), observing(kernels):
            outputs = call_model(model, inputs, training=False)
        flat = tree.flatten(outputs)
        named_outputs[:] = _names_of(model, outputs, len(flat))
        return dict(zip(named_outputs, flat, strict=True))

    try:
        function.get_concrete_function()
    except Exception as error:  # Whatever the model's own code raises while it is traced.
        raise ValueError(
            "The model can't be exported: TensorFlow could not trace it at inference with the "
            f"signature {input_signature}. {error}"
        ) from error
    return TracedModel(function, signature, names, named_outputs)


def _names_of(model: keras.Model, outputs: Any, count: int) -> list[str]:
    if isinstance(outputs, dict) and len(outputs) == count:
        return sorted(outputs)  # As `keras.tree` flattens them.
    names = output_names(model)
    if names is None or len(names) != count:
        return [f"output_{i}" for i in range(count)]
    return names
