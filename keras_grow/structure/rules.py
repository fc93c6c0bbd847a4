"""How units pass through layers: a table of rules, one entry a layer type.

A unit is an entry of a tensor's last axis: what a Dense layer calls a unit, a convolution a map.
A rule says where the units of a layer's inputs stand in its output, and what it makes of units
that are constant. Units that a layer lays on the same place can only come and go together.

    x:          a  b  c                     Flatten, 2 positions:   places [[0, 3],
    output:     a  b  c  a' b' c'                                           [1, 4],
                0  1  2  3  4  5                                            [2, 5]]

Layers with a kernel that mixes units have no rule here: they read some units and make others. A
layer without a rule is taken to mix all that it reads.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_grow.keras_private import operation_type
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.mean_only_batch_normalization import MeanOnlyBatchNormalization
from keras_grow.structure.unit_rule import (
    Depthwise,
    Merged,
    Moved,
    Shape,
    UnitByUnit,
    UnitRule,
    UnitsMixed,
    keeps_units_apart,
    one_by_one,
)


class _Activation(UnitByUnit):
    def places(self, layer, shapes):
        if not keeps_units_apart(layer.activation):
            raise UnitsMixed("its activation mixes units")
        return super().places(layer, shapes)


class _Normalization(UnitByUnit):
    fresh_values: ClassVar = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}

    def places(self, layer, shapes):
        if layer.axis not in (-1, len(shapes[0]) - 1):
            raise UnitsMixed(f"it normalizes axis {layer.axis}, not the last")
        return super().places(layer, shapes)

    def is_constant_for_any_input(self, layer, count):
        if getattr(layer, "gamma", None) is None:
            return super().is_constant_for_any_input(layer, count)
        return layer.gamma.numpy() == 0


class _LayerNormalized(UnitByUnit):
    over_units = "its mean and variance run over them"

    def places(self, layer, shapes):
        _check_normalizes_units(layer, shapes)
        return super().places(layer, shapes)

    def constants(self, layer, constants, shapes):
        gamma, beta = layer.gamma, layer.beta
        if gamma is None:
            return np.full(len(constants[0]), np.nan)
        offset = 0.0 if beta is None else beta.numpy()
        return np.where(gamma.numpy() == 0, offset, np.nan).astype(np.float64)


class _RootMeanSquareNormalized(UnitByUnit):
    """What is divided is a mean: with units of 0 more or less, by another number of them."""

    takes_all = True

    def places(self, layer, shapes):
        _check_normalizes_units(layer, shapes)
        return super().places(layer, shapes)

    def constants(self, layer, constants, shapes):
        return np.where((constants[0] == 0) | (layer.scale.numpy() == 0), 0.0, np.nan)

    # y = s x / sqrt(sum(x^2) / n + e) is, with m in the place of n, the same of s sqrt(n / m) and
    # e n / m.
    def changes(self, layer, count):
        return {"epsilon": layer.epsilon * layer.scale.shape[0] / count}

    def scales(self, layer, copy):
        return {"scale": math.sqrt(layer.scale.shape[0] / copy.scale.shape[0])}


def _check_normalizes_units(layer: Any, shapes: Sequence[Shape]) -> None:
    axes = np.reshape(layer.axis, [-1]).tolist()
    if axes not in ([-1], [len(shapes[0]) - 1]):
        raise UnitsMixed(f"it normalizes axes {axes}, not the last alone")


class _ByPosition(UnitByUnit):
    """With weights that may differ between positions, but leave 0 what is 0."""

    def constants(self, layer, constants, shapes):
        return np.where(constants[0] == 0, 0.0, np.nan)


class _Padded(Moved):
    def constants(self, layer, constants, shapes):
        return np.where(constants[0] == 0, 0.0, np.nan)


class _Permuted(Moved):
    def places(self, layer, shapes):
        if layer.dims[-1] != len(layer.dims):
            raise UnitsMixed("it moves units to another axis than the last")
        return super().places(layer, shapes)


class _Reshaped(UnitByUnit):
    """Several positions may come to lie side by side on the last axis, as behind a Flatten."""

    constants = UnitRule.constants

    def places(self, layer, shapes):
        ((_, *positions, units),) = shapes
        size = layer.compute_output_shape(shapes[0])[-1]
        width = units
        for other in reversed(positions):
            if width == size or other is None:
                break
            width *= other
        if size is None or width != size:
            raise UnitsMixed(f"units of its input of shape {shapes[0]} are cut up or not known")
        copies = units * np.arange(size // units, dtype=np.int64)
        return [np.arange(units, dtype=np.int64)[:, None] + copies]

    def changes(self, layer, count):
        shape = getattr(layer, "target_shape", (-1,))
        return {} if shape[-1] == -1 else {"target_shape": (*shape[:-1], count)}


class _Concatenated(UnitRule):
    """Units of several inputs side by side; along another axis, positions of the same units."""

    def places(self, layer, shapes):
        if layer.axis not in (-1, len(shapes[0]) - 1):
            return one_by_one(shapes)
        ends = np.cumsum([shape[-1] for shape in shapes])
        return [
            np.arange(end - shape[-1], end, dtype=np.int64)[:, None]
            for end, shape in zip(ends, shapes, strict=True)
        ]

    def constants(self, layer, constants, shapes):
        if layer.axis in (-1, len(shapes[0]) - 1):
            return super().constants(layer, constants, shapes)
        is_same = np.all(np.equal(constants, constants[0]), axis=0)
        return np.where(is_same, constants[0], np.nan)


def _product(constants: Sequence[np.ndarray]) -> np.ndarray:
    is_zero = np.any(np.equal(constants, 0), axis=0)
    return np.where(is_zero, 0.0, np.multiply.reduce(constants))


_layers = keras.layers
_RULES: dict[type, UnitRule] = {}


def register(layer_type: type, rule: UnitRule) -> None:
    """Says how units pass through a type of layers, so that all verbs can follow them.

    It counts for this type alone: a subclass may do anything.

    Args:
        layer_type: a class of layers, or of Keras's operations.
        rule: an object of a subclass of `UnitRule`.

    Raises:
        TypeError: for other things.

    Example:

    ```python
    keras_grow.unit_rules.register(MyActivation, keras_grow.unit_rules.UnitByUnit())
    ```
    """
    if not isinstance(layer_type, type) or not isinstance(rule, UnitRule):
        raise TypeError(
            "A rule is registered for a class, as an object of a subclass of "
            f"`keras_grow.unit_rules.UnitRule`. Received: {layer_type!r}, {rule!r}"
        )
    _RULES[layer_type] = rule


def rule_for(layer: Any) -> UnitRule | None:
    """The rule for a layer or operation; `None` where none is known.

    Of a layer whose kernels are growable, it is that for the layer.
    """
    return _RULES.get(type(computing(layer)))


def computing(layer: Any) -> Any:
    """The layer that computes: that inside `GrowableKernels`, else the one given."""
    return layer.layer if isinstance(layer, GrowableKernels) else layer


def places_behind(
    layer: Any, shapes: Sequence[Shape], over_units: bool = False
) -> list[np.ndarray]:
    """`UnitRule.places` of the rule for a layer.

    Args:
        layer, shapes: as there.
        over_units: whether layers are followed that compute something over all units.

    Raises:
        UnitsMixed: also where there is no rule.
    """
    rule, layer = rule_for(layer), computing(layer)
    if rule is None:
        raise UnitsMixed("it is not known to keep units apart")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise UnitsMixed("its units stand on another axis than the last")
    if rule.over_units is not None and not over_units:
        raise UnitsMixed(rule.over_units)
    return rule.places(layer, shapes)


for _types, _rule in {
    (
        _layers.ReLU,
        _layers.LeakyReLU,
        _layers.ELU,
        _layers.Identity,
        _layers.ActivityRegularization,
        _layers.Dropout,
        _layers.SpatialDropout1D,
        _layers.SpatialDropout2D,
        _layers.SpatialDropout3D,
        _layers.AlphaDropout,
        _layers.GaussianDropout,
        _layers.GaussianNoise,
    ): UnitByUnit(),
    (_layers.Activation,): _Activation(),
    (_layers.BatchNormalization, MeanOnlyBatchNormalization): _Normalization(),
    (_layers.LayerNormalization,): _LayerNormalized(),
    (_layers.RMSNormalization,): _RootMeanSquareNormalized(),
    (_layers.PReLU,): _ByPosition(),
    (
        _layers.MaxPooling1D,
        _layers.MaxPooling2D,
        _layers.MaxPooling3D,
        _layers.AveragePooling1D,
        _layers.AveragePooling2D,
        _layers.AveragePooling3D,
        _layers.GlobalMaxPooling1D,
        _layers.GlobalMaxPooling2D,
        _layers.GlobalMaxPooling3D,
        _layers.GlobalAveragePooling1D,
        _layers.GlobalAveragePooling2D,
        _layers.GlobalAveragePooling3D,
        _layers.UpSampling1D,
        _layers.UpSampling2D,
        _layers.UpSampling3D,
        _layers.Cropping1D,
        _layers.Cropping2D,
        _layers.Cropping3D,
        _layers.RepeatVector,
    ): Moved(),
    (_layers.ZeroPadding1D, _layers.ZeroPadding2D, _layers.ZeroPadding3D): _Padded(),
    (_layers.Permute,): _Permuted(),
    (_layers.Flatten, _layers.Reshape): _Reshaped(),
    (_layers.Concatenate,): _Concatenated(),
    # Beside the layers, what `a + b` of two tensors is, and its like.
    (_layers.Add, operation_type(keras.ops.add)): Merged(np.add.reduce),
    (_layers.Subtract, operation_type(keras.ops.subtract)): Merged(np.subtract.reduce),
    (_layers.Average,): Merged(lambda constants: np.mean(constants, axis=0)),
    (_layers.Multiply, operation_type(keras.ops.multiply)): Merged(_product, adds=False),
    (_layers.Maximum, operation_type(keras.ops.maximum)): Merged(np.maximum.reduce, adds=False),
    (_layers.Minimum, operation_type(keras.ops.minimum)): Merged(np.minimum.reduce, adds=False),
    (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D): Depthwise(),
}.items():
    for _type in _types:
        register(_type, _rule)
