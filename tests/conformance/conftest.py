"""The registry of growable layers, through which every conformance test runs."""

import dataclasses
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from tests.quick import among


@dataclasses.dataclass(frozen=True)
class Case:
    """A growable layer with Dense's arguments, and where it stores its kernel.

    Attributes:
        layer_class: the layer.
        stored: the name of the trainable variable that has an entry for every connection.
        arguments: what the layer must be given beside Dense's arguments.
        constraint: a constraint that suits the layer, where others would not.
        least: the smallest layer's arguments that have no default.
        others: values for the arguments of the shape, none of them the least or the default.
        input_shape: a shape of inputs for these.
        fixed: arguments that can't have another value then, sorted.
    """

    layer_class: type
    stored: str
    arguments: dict = dataclasses.field(default_factory=dict)
    constraint: keras.constraints.Constraint | None = None
    least: ClassVar[dict] = {"units": 1}
    others: ClassVar[dict] = {"units": 7}
    fixed: ClassVar[tuple] = ()

    @property
    def name(self):
        return self.layer_class.__name__

    @property
    def input_shape(self):
        return (None, 12)

    def network(self, hidden=0.4, outputs=0.5, **arguments):
        """An 8-6-3 network with biases, at the given densities; `arguments` go to both layers."""
        arguments = {**self.arguments, **arguments}
        return keras.Sequential(
            [
                keras.Input((8,)),
                self.layer_class(
                    6, "tanh", initial_density=hidden, seed=1, name="hidden", **arguments
                ),
                self.layer_class(3, initial_density=outputs, seed=2, name="outputs", **arguments),
            ]
        )

    def variable(self, layer):
        return getattr(layer, self.stored)

    def is_active(self, layer):
        """Which entries of the stored variable stand for active connections: a bool array."""
        if layer.is_sparse:
            return layer.is_used().numpy()
        return layer.kernel_mask.numpy()

    def contaminate(self, model, value):
        """Writes `value` into every dormant entry of what the model's layers store."""
        for layer in keras_grow.growable_layers(model):
            stored = self.variable(layer)
            stored.assign(np.where(self.is_active(layer), stored.numpy(), value))

    def dormant_values(self, model):
        """What dormant connections store, of all layers in one array."""
        return np.concatenate(
            [
                self.variable(layer).numpy()[~self.is_active(layer)]
                for layer in keras_grow.growable_layers(model)
            ]
        )


@dataclasses.dataclass(frozen=True)
class SparseCase(Case):
    """A layer that stores its active connections; `hidden` with units that share their inputs.

    Attributes:
        group_size: how many do.
    """

    group_size: int = 1
    others: ClassVar[dict] = {"units": 7, "group_size": 7}

    @property
    def name(self):
        return super().name + (f" in groups of {self.group_size}" if self.group_size > 1 else "")

    def network(self, *densities, **arguments):
        model = super().network(*densities, **arguments)
        if self.group_size == 1:
            return model
        hidden = {**model.layers[0].get_config(), "group_size": self.group_size}
        layers = [self.layer_class.from_config(hidden), *model.layers[1:]]
        return keras.Sequential([keras.Input((8,)), *layers])


@dataclasses.dataclass(frozen=True)
class ConvolutionCase(Case):
    """A growable convolution, along one axis or two."""

    rank: int = 2
    least: ClassVar[dict] = {"filters": 1, "kernel_size": 1}
    others: ClassVar[dict] = {"filters": 7, "kernel_size": 3, "strides": 2, "padding": "same"}
    # Strides other than 1 go with a dilation of 1 only.
    fixed: ClassVar[tuple] = ("data_format", "dilation_rate", "groups")

    @property
    def input_shape(self):
        return (None, *(4, 5)[: self.rank], 3)

    def network(self, hidden=0.4, outputs=0.5, **arguments):
        """8 inputs as four places, 6 maps, 3 maps, 3 means: 8 x 6 + 6 x 3 connections."""
        image, window, means = {
            1: ((4, 2), 4, keras.layers.GlobalAveragePooling1D),
            2: ((2, 2, 2), 2, keras.layers.GlobalAveragePooling2D),
        }[self.rank]
        return keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Reshape(image),
                self.layer_class(
                    6,
                    window,
                    padding="same",
                    activation="tanh",
                    initial_density=hidden,
                    seed=1,
                    name="hidden",
                    **arguments,
                ),
                self.layer_class(
                    3, 1, initial_density=outputs, seed=2, name="outputs", **arguments
                ),
                means(),
            ]
        )


# A new layer joins here.
LAYERS = [
    Case(keras_grow.GrowableDense, stored="kernel"),
    Case(keras_grow.WeightNormDense, stored="v"),
    # With a slot for every connection, dormant ones are as many as free slots.
    *(
        SparseCase(
            keras_grow.SparseDense,
            stored="values",
            arguments={"capacity": 1.0},
            constraint=keras.constraints.NonNeg(),
            group_size=group_size,
        )
        for group_size in (1, 2)
    ),
    ConvolutionCase(keras_grow.GrowableConv2D, stored="kernel"),
    ConvolutionCase(keras_grow.areas.PartialAreaConv2D, stored="kernel"),
    ConvolutionCase(keras_grow.WeightNormConv2D, stored="v"),
    ConvolutionCase(keras_grow.GrowableConv1D, stored="kernel", rank=1),
]


# Each way of storing a kernel, and each of applying one, is in the quick suite once: these put
# together what layers above them have.
_ALIKE = (
    keras_grow.areas.PartialAreaConv2D,
    keras_grow.WeightNormConv2D,
    keras_grow.GrowableConv1D,
)


@pytest.fixture(
    params=[
        pytest.param(
            case,
            marks=[pytest.mark.slow] if case.layer_class in _ALIKE else [],
            id=case.name,
        )
        for case in LAYERS
    ]
)
def case(request):
    return request.param


_PENALTIES = {
    "plain": {},
    "l1": {"kernel_regularizer": keras.regularizers.L1(0.1)},
    "l2": {"kernel_regularizer": keras.regularizers.L2(0.1)},
    "unit_norm": {"kernel_constraint": keras.constraints.UnitNorm(axis=0)},
    "max_norm": {"kernel_constraint": keras.constraints.MaxNorm(0.5)},
    "l1_max_norm": {
        "kernel_regularizer": keras.regularizers.L1(0.1),
        "kernel_constraint": keras.constraints.MaxNorm(0.5),
    },
}


# The last one has L1 and MaxNorm both.
@pytest.fixture(params=among(_PENALTIES, quick=("plain", "l2", "unit_norm", "l1_max_norm")))
def penalties(request, case):
    """Arguments of a layer: its kernel's regularizer and constraint."""
    if case.constraint is not None and "kernel_constraint" in request.param:
        return {**request.param, "kernel_constraint": case.constraint}
    return request.param


@pytest.fixture
def regression():
    """32 samples: inputs of 8 normal numbers, targets of 3."""
    random = np.random.default_rng(5)
    shapes = ((32, 8), (32, 3))
    return tuple(random.normal(size=shape).astype("float32") for shape in shapes)


def _state(model):
    return [variable.numpy() for variable in model.variables]


def _assert_same_bits(arrays, others):
    arrays, others = (tf.nest.map_structure(np.asarray, list(side)) for side in (arrays, others))
    assert [a.tobytes() for a in arrays] == [b.tobytes() for b in others]


@pytest.fixture
def state():
    """Function of a model: the values of all its variables."""
    return _state


@pytest.fixture
def assert_same_bits():
    """Function of two lists of arrays that must be equal to the last bit."""
    return _assert_same_bits
