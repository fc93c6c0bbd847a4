"""Layers that keep the units of their input apart, and where each unit stands behind them.

A unit is an entry of the last axis: what a Dense layer calls a unit, a convolution a map.
"""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.mean_only_batch_normalization import MeanOnlyBatchNormalization

NORMALIZATIONS = (keras.layers.BatchNormalization, MeanOnlyBatchNormalization)
POOLING = (
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
_ELEMENT_BY_ELEMENT = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Identity,
    keras.layers.ActivityRegularization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
ZERO_PADDING = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
# They repeat, cut or frame positions.
RESIZING = (
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.RepeatVector,
    *ZERO_PADDING,
)


class UnitsMixed(ValueError):
    """Raised for a layer that is not known to keep units apart; the message says why."""


def passage(layer: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Where the units of a layer's input stand in its output.

    Args:
        layer: a layer or operation that takes one tensor.
        shape: the shape of its input.

    Returns:
        int64 array of shape `(units, copies)`: for each entry of the input's last axis, the
        positions on the output's last axis that come from it and from nothing else. There is one
        copy, at its own position, except behind a Flatten.

    Raises:
        UnitsMixed: for other layers, with the reason.
    """
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise UnitsMixed("its units stand on another axis than the last")
    *positions, units = shape[1:] if len(shape) > 1 else (None,)
    if units is None:
        raise UnitsMixed(f"its input of shape {shape} has no last axis of known size")
    own_place = np.arange(units, dtype=np.int64)[:, None]
    # By type: subclasses may do anything.
    if type(layer) is keras.layers.Flatten:
        known = [size for size in positions if size is not None]
        if len(known) < len(positions):
            raise UnitsMixed(f"its input shape {shape} is not known")
        return own_place + units * np.arange(math.prod(known), dtype=np.int64)
    if type(layer) in NORMALIZATIONS:
        if layer.axis not in (-1, len(shape) - 1):
            raise UnitsMixed(f"it normalises axis {layer.axis}, not the last")
        return own_place
    if type(layer) is keras.layers.Activation:
        if not keeps_units_apart(layer.activation):
            raise UnitsMixed("its activation mixes units")
        return own_place
    if type(layer) in (*_ELEMENT_BY_ELEMENT, *POOLING, *RESIZING):
        return own_place
    raise UnitsMixed("it is not known to keep units apart")


def keeps_units_apart(activation: Any) -> bool:
    """Whether an activation computes each unit from itself alone, as softmax does not."""
    if activation is None:
        return True
    x, moved = tf.constant([[0.3, -0.7, 1.1]]), tf.constant([[0.3, -0.7, 1.6]])
    y, nudged = tf.convert_to_tensor(activation(x)), tf.convert_to_tensor(activation(moved))
    return y.shape == x.shape and bool(tf.reduce_all(y[:, :2] == nudged[:, :2]))
