"""What the user's regularizer and constraint see of a layer's slots: those in use."""

from collections.abc import Callable
from typing import Any

import keras

from keras_grow.layers.masked import keep_active


class UsedSlotsRegularizer(keras.regularizers.Regularizer):
    """Lets the user's regularizer see the weights in use, never what free slots store."""

    def __init__(self, layer: Any, regularizer: Callable):
        self._layer = layer
        self._regularizer = regularizer

    def __call__(self, values):
        return self._regularizer(keep_active(values, self._layer.is_used()))


class UsedSlotsConstraint(keras.constraints.Constraint):
    """After each update, applies the user's constraint to weights in use and zeroes the rest."""

    def __init__(self, layer: Any, constraint: Callable | None):
        self._layer = layer
        self._constraint = constraint

    def __call__(self, values):
        is_used = self._layer.is_used()
        values = keep_active(values, is_used)
        if self._constraint is not None:
            values = keep_active(self._constraint(values), is_used)
        return values
