"""What growable layers of the form `activation(kernel applied to inputs + bias)` share."""

import abc
from typing import Any

import keras
from keras import ops

from keras_grow.integers import as_integer
from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import current_observer
from keras_grow.policies.densities import check_initial_density


class Affine(Growable):
    """`activation(kernel applied to inputs + bias)`: all but how the kernel is applied and stored.

    One class says how a kernel is applied (`apply_kernel`, `as_rows`, `_kernel_shape_for`), as
    dense layers and convolutions do; another, mixed in, says how it is stored (`_build_kernel`,
    `_compute_effective_kernel`). The arguments are those that all of Keras's layers of this form
    have.

    Attributes:
        plain_class: the Keras layer that computes the same where no connection is dormant, `None`
            where there is none.
    """

    plain_class: type[keras.Layer] | None

    def __init__(
        self,
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
        if isinstance(initial_density, dict):
            initial_density = keras.saving.deserialize_keras_object(initial_density)
        check_initial_density(initial_density)
        if seed is not None:
            whole = as_integer(seed)
            if whole is None or whole < 0:
                raise ValueError(
                    f"`seed` must be a non-negative integer or None. Received: seed={seed!r}"
                )
            seed = whole
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
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

    @abc.abstractmethod
    def apply_kernel(self, inputs: Any, kernel: Any) -> Any:
        """A kernel of `kernel_shape` applied to inputs of its dtype, without bias."""

    @abc.abstractmethod
    def _kernel_shape_for(self, input_shape: tuple) -> tuple[int, ...]:
        """The shape of the kernel for inputs of a shape."""

    @abc.abstractmethod
    def _build_kernel(self, shape: tuple[int, ...]) -> None:
        """Creates the variables behind the kernel."""

    def _linear(self, inputs: Any) -> Any:
        """The kernel applied to the inputs, in the compute dtype."""
        observer = current_observer()
        product = observer.product(self, inputs)
        if product is not None:
            return product
        kernel = observer.kernel(self)
        if kernel is None:
            return self._apply_own_kernel(inputs)
        return self.apply_kernel(inputs, ops.cast(kernel, self.compute_dtype))

    def _apply_own_kernel(self, inputs: Any) -> Any:
        """The effective kernel applied to inputs, where nobody puts another in its place."""
        kernel = ops.cast(self._compute_effective_kernel(), self.compute_dtype)
        return self.apply_kernel(inputs, kernel)

    def build(self, input_shape):
        shape = self._kernel_shape_for(input_shape)
        self._build_kernel(shape)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.axes_for(shape).num_units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def call(self, inputs):
        observer = current_observer()
        observer.inputs(self, inputs)
        outputs = self._linear(inputs)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        outputs = observer.pre_activation(self, inputs, outputs)
        if self.activation is not None:
            outputs = self.activation(outputs)
        return outputs

    def get_config(self):
        return {
            **super().get_config(),
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


def checked_size(name: str, value: Any) -> int:
    """`value` as a Python integer; raises `ValueError` unless it is a positive one."""
    size = as_integer(value)
    if size is None or size <= 0:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive integer. "
            f"Received: {name}={value!r}"
        )
    return size
