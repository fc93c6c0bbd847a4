"""A model at inference as functions of its inputs, in names that every format understands."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.compatibility import check_is_keras_model
from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.layers.paths import nested_layers
from keras_grow.measuring.loss import call_model

Arrays = Mapping[str, np.ndarray]
Values = Callable[[], Sequence[tuple[keras.Variable, tf.Tensor]]]
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

    def function(self, observer: Observer, values: Values) -> Any:
        """A `tf.function` of `specs`, traced, which returns the model's outputs by name.

        Args:
            observer: may show layers other kernels than their own.
            values: returns values of the model's variables, in place of their own.

        Raises:
            ValueError: where TensorFlow can't trace the model.
        """

        @tf.function(input_signature=self.specs)
        def compute(*inputs):
            return self._outputs(inputs, observer, values)

        try:
            compute.get_concrete_function()
        except Exception as error:  # Whatever the model's own code raises while it is traced.
            raise ValueError(
                "The model can't be exported: TensorFlow could not trace it at inference with the "
                f"signature {self._structure}. {error}"
            ) from error
        return compute

    def serve(self, observer: Observer, is_compiled: bool = False) -> Serve:
        """Runs the model itself, as its exports are run.

        Args:
            observer: may show layers other kernels than their own.
            is_compiled: whether as a compiled function, or called as a user calls it; compiled
                anyway where a layer computes in half precision, which TensorFlow rounds elsewhere
                when it does not compile.
        """

        def own_values():
            return [(variable, variable.value) for variable in self.model.variables]

        is_half = any(
            layer.compute_dtype in ("float16", "bfloat16") for layer in nested_layers(self.model)
        )
        compute = self.function(observer, own_values) if is_compiled or is_half else None

        def call(inputs: Arrays) -> dict[str, np.ndarray]:
            flat = [tf.constant(inputs[spec.name], spec.dtype) for spec in self.specs]
            outputs = compute(*flat) if compute else self._outputs(flat, observer, own_values)
            return {name: np.asarray(value) for name, value in outputs.items()}

        return call

    def _outputs(
        self, inputs: Sequence[Any], observer: Observer, values: Values
    ) -> dict[str, tf.Tensor]:
        packed = tree.pack_sequence_as(self._structure, list(inputs))
        # The scope leaves the model as it is.
        with keras.StatelessScope(state_mapping=values()), observing(observer):
            return _named(self.model, call_model(self.model, packed, training=False))


@dataclasses.dataclass(frozen=True)
class ShownKernel:
    """A kernel in place of a layer's own.

    Attributes:
        kernel: returns a dense one, or `None` where there is only a product.
        product: applies it to inputs, or returns `None` where the dense kernel shall be applied.
    """

    kernel: Callable[[], tf.Tensor | None]
    product: Callable[[Any], tf.Tensor | None] = lambda inputs: None


class ShownKernels(Observer):
    """Shows layers other kernels in place of their own.

    Args:
        kernels: by layer, each a `ShownKernel` or what has the same two functions.
    """

    def __init__(self, kernels: Mapping[Growable, Any]):
        self._kernels = {id(layer): kernel for layer, kernel in kernels.items()}

    def kernel(self, layer):
        shown = self._kernels.get(id(layer))
        return None if shown is None else shown.kernel()

    def product(self, layer, inputs):
        shown = self._kernels.get(id(layer))
        if shown is None:
            return None
        product = shown.product(inputs)
        if product is None and layer.is_sparse:  # Masked layers know best how to apply a kernel.
            dtype = layer.compute_dtype
            product = tf.matmul(dense_inputs(inputs, dtype), tf.cast(shown.kernel(), dtype))
        return product


def dense_inputs(inputs: Any, dtype: str) -> tf.Tensor:
    """Inputs of a layer as a dense tensor in `dtype`."""
    inputs = tf.sparse.to_dense(inputs) if isinstance(inputs, tf.SparseTensor) else inputs
    return tf.cast(inputs, dtype)


class Convertible(tf.Module):
    """A model for converters: `function` is a `tf.function` of the inputs, outputs by name.

    Weights are variables, and every effective kernel one with zeros at its dormant connections: a
    dense kernel, also of a sparse layer, which converters need. Converters make constants of them
    themselves, at the end. Were they constants from the start, each of a converter's passes would
    copy them: converting a network of 0.2 GB took 11 to 15 GB of memory.

    Raises:
        ValueError: where TensorFlow can't trace the model.
    """

    def __init__(self, inference: Inference):
        super().__init__()
        shown = [(layer, tf.Variable(layer.effective_kernel())) for layer in inference.layers]
        self._kernels = [kernel for _, kernel in shown]
        kernels = {layer: ShownKernel(kernel.read_value) for layer, kernel in shown}
        own = [(variable, tf.Variable(variable.value)) for variable in plain_variables(inference)]
        self._own = [copy for _, copy in own]
        self.function = inference.function(
            ShownKernels(kernels),
            lambda: [(variable, copy.read_value()) for variable, copy in own],
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


def _named(model: keras.Model, outputs: Any) -> dict[str, tf.Tensor]:
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
