"""A model at inference as functions of its inputs, in names that every format understands."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.compatibility import check_is_keras_model
from keras_grow.layers.growable import Growable, nested_layers
from keras_grow.layers.observer import Observer, observing
from keras_grow.measuring.loss import call_model

Arrays = Mapping[str, np.ndarray]
# Runs a batch of inputs by name; the outputs by name.
Serve = Callable[[Arrays], Mapping[str, np.ndarray]]


class Inference:
    """What is exported: a model, and the names of what it takes and answers with.

    Args:
        model: a built model.
        input_signature: the structure of `tf.TensorSpec` that it takes; by default its own.

    Attributes:
        layers: its growable layers.
        specs: a `tf.TensorSpec` with a name of its own for each input, flattened by `keras.tree`.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed model without `input_signature`, and for inputs of one name.
    """

    def __init__(self, model: keras.Model, input_signature: Any = None):
        check_is_keras_model(model)
        self.model = model
        self.layers = [layer for layer in nested_layers(model) if isinstance(layer, Growable)]
        self._structure = _signature_of(model) if input_signature is None else input_signature
        self.specs = [
            tf.TensorSpec(spec.shape, spec.dtype, name=spec.name or f"input_{i}")
            for i, spec in enumerate(tree.flatten(self._structure))
        ]
        names = [spec.name for spec in self.specs]
        if len(set(names)) < len(names):
            raise ValueError(
                f"Inputs must have names of their own. Received: {names}. Rename the model's "
                "`keras.Input`s."
            )

    def packed(self, flat: Sequence[Any]) -> Any:
        """One value for each of `specs` in the structure that the model takes."""
        return tree.pack_sequence_as(self._structure, list(flat))

    def named(self, inputs: Any) -> dict[str, np.ndarray]:
        """The arrays of a structure of inputs, in the model's dtypes, by name."""
        arrays = tree.flatten(inputs)
        if len(arrays) != len(self.specs):
            raise ValueError(
                "`data` must be samples as the model takes them. Received: "
                f"{len(arrays)} arrays, expected {len(self.specs)}: "
                f"{[spec.name for spec in self.specs]}"
            )
        return {
            spec.name: np.asarray(array, tf.as_dtype(spec.dtype).as_numpy_dtype)
            for spec, array in zip(self.specs, arrays, strict=True)
        }

    def outputs(
        self,
        inputs: Sequence[Any],
        observer: Observer,
        values: Sequence[tuple[keras.Variable, tf.Tensor]],
    ) -> dict[str, tf.Tensor]:
        """The model's outputs by name; the model stays as it is.

        Args:
            inputs: one tensor for each of `specs`.
            observer: may show layers other kernels than their own.
            values: of the model's variables, in place of their own.
        """
        with keras.StatelessScope(state_mapping=values), observing(observer):
            return _named_outputs(
                self.model, call_model(self.model, self.packed(inputs), training=False)
            )

    def function(
        self,
        observer: Observer,
        values: Callable[[], Sequence[tuple[keras.Variable, tf.Tensor]]],
    ) -> Any:
        """`outputs` as a `tf.function` of `specs`, traced.

        Raises:
            ValueError: where TensorFlow can't trace the model.
        """

        @tf.function(input_signature=self.specs)
        def compute(*inputs):
            return self.outputs(inputs, observer, values())

        try:
            compute.get_concrete_function()
        except Exception as error:  # Whatever the model's own code raises while it is traced.
            raise ValueError(
                "The model can't be exported: TensorFlow could not trace it at inference with the "
                f"signature {self._structure}. {error}"
            ) from error
        return compute

    def serve(self, observer: Observer | None = None, is_compiled: bool | None = None) -> Serve:
        """Runs the model itself, as its exports are run.

        Args:
            observer: may show layers other kernels than their own.
            is_compiled: whether as a compiled function, or called as a user calls it. By default
                compiled where a layer computes in half precision, which TensorFlow rounds
                elsewhere when it does not compile.
        """
        observer = observer or Observer()
        if is_compiled is None:
            dtypes = {layer.compute_dtype for layer in nested_layers(self.model)}
            is_compiled = bool(dtypes & {"float16", "bfloat16"})

        def own_values():
            return [(variable, variable.value) for variable in self.model.variables]

        compute: Any = self.function(observer, own_values) if is_compiled else None

        def call(inputs: Arrays) -> dict[str, np.ndarray]:
            tensors = [tf.constant(inputs[spec.name], spec.dtype) for spec in self.specs]
            if compute is None:
                outputs = self.outputs(tensors, observer, own_values())
            else:
                outputs = compute(*tensors)
            return {name: np.asarray(value) for name, value in outputs.items()}

        return call


class ShownKernels(Observer):
    """Shows layers other kernels in place of their own.

    Args:
        kernels: by layer; each has `kernel()`, a dense kernel or `None`, and `product(inputs)`,
            the kernel applied, or `None` where the layer shall apply it.
    """

    def __init__(self, kernels: Mapping[Growable, Any]):
        self._kernels = {id(layer): kernel for layer, kernel in kernels.items()}

    def kernel(self, layer):
        shown = self._kernels.get(id(layer))
        return None if shown is None else shown.kernel()

    def product(self, layer, inputs):
        shown = self._kernels.get(id(layer))
        return None if shown is None else shown.product(inputs)


class _ConstantKernel:
    def __init__(self, layer: Growable):
        self._values = layer.effective_kernel().numpy()
        self._is_sparse, self._dtype = layer.is_sparse, layer.compute_dtype

    def kernel(self):
        return tf.constant(self._values)

    def product(self, inputs):
        if not self._is_sparse:
            return None  # Masked layers know best how to apply a kernel.
        return tf.matmul(tf.cast(inputs, self._dtype), tf.cast(self.kernel(), self._dtype))


def with_constants(inference: Inference) -> Any:
    """A `tf.function` of the inputs, outputs by name, for converters.

    Every weight is a constant, and every effective kernel one with zeros at its dormant
    connections: a dense kernel, also of a sparse layer, which converters need.

    Raises:
        ValueError: where TensorFlow can't trace the model.
    """
    kernels = {layer: _ConstantKernel(layer) for layer in inference.layers}
    values = [(variable, variable.numpy()) for variable in plain_variables(inference)]
    return inference.function(
        ShownKernels(kernels),
        lambda: [(variable, tf.constant(value)) for variable, value in values],
    )


def plain_variables(inference: Inference) -> list[keras.Variable]:
    """The model's variables but those that hold kernels of growable layers."""
    replaced = {id(v) for layer in inference.layers for v in layer.kernel_variables}
    return [variable for variable in inference.model.variables if id(variable) not in replaced]


def _signature_of(model: keras.Model) -> Any:
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


def _named_outputs(model: keras.Model, outputs: Any) -> dict[str, tf.Tensor]:
    flat = tree.flatten(outputs)
    if isinstance(outputs, dict) and len(outputs) == len(flat):
        names = sorted(outputs)  # As `keras.tree` flattens them.
    elif isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    else:
        names = list(getattr(model, "output_names", None) or ())
    if len(names) != len(flat) or len(set(names)) < len(names):
        names = [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))
