"""What growable layers with the arguments of `keras.layers.Dense` share."""

import abc
from typing import Any

import keras
from keras import ops

from keras_grow.connections.densities import check_initial_density
from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import current_observer


class DenseLike(Growable):
    """`activation(inputs @ kernel + bias)`, with Dense's arguments in Dense's order.

    A subclass stores the kernel: it makes its variables in `_build_kernel`, and multiplies by it
    in `_multiply`.
    """

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        initial_density=1.0,
        seed=None,
        **kwargs,
    ):
        if isinstance(units, bool) or not isinstance(units, int) or units <= 0:
            raise ValueError(
                "Received an invalid value for `units`, expected a positive integer. "
                f"Received: units={units!r}"
            )
        if isinstance(initial_density, dict):
            initial_density = keras.saving.deserialize_keras_object(initial_density)
        check_initial_density(initial_density)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(
                f"`seed` must be a non-negative integer or None. Received: seed={seed!r}"
            )
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.initial_density = initial_density
        self.seed = seed
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    @abc.abstractmethod
    def _build_kernel(self, shape: tuple[int, int]) -> None:
        """Creates the variables behind the kernel."""

    @abc.abstractmethod
    def _multiply(self, inputs: Any) -> Any:
        """`inputs @ kernel`, in the compute dtype."""

    def build(self, input_shape):
        self._build_kernel((input_shape[-1], self.units))
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self.built = True

    def call(self, inputs):
        observer = current_observer()
        observer.inputs(self, inputs)
        outputs = self._multiply(inputs)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        outputs = observer.pre_activation(self, inputs, outputs)
        if self.activation is not None:
            outputs = self.activation(outputs)
        return outputs

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "initial_density": keras.saving.serialize_keras_object(self.initial_density),
            "seed": self.seed,
        }
