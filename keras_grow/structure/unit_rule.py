"""What a rule of the table says: how units pass through a type of layers."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

Shape = tuple[int | None, ...]


class UnitsMixed(ValueError):
    """Raised where a layer does not keep units apart; the message says why."""


class UnitRule(abc.ABC):
    """How units pass through the calls of a type of layers.

    Attributes:
        moves: whether a value may be read more than once behind the layer, be one of several that
            are read as one, as by pooling, or stand at another position.
        adds: whether what several inputs bring to one place is added up.
        takes_all: whether each unit of the output hangs on all of the input that are not 0, which
            therefore stay as long as any does.
        over_units: what runs over units that the rule nevertheless keeps apart, such as a mean: a
            change of their number changes what the layer computes. They are followed only where
            that is asked for.
        fresh_values: what an entry of the layer's variables, by their names, is for a new unit.
        filters: of variables that filter each unit by itself, by their attributes, the attribute
            of their initializer, if there is one: of new units they are drawn, as what is born
            there must pass.
    """

    moves: bool = False
    adds: bool = True
    takes_all: bool = False
    over_units: str | None = None
    fresh_values: ClassVar[Mapping[str, float]] = {}
    filters: ClassVar[Mapping[str, str]] = {}

    @abc.abstractmethod
    def places(self, layer: Any, shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Where the units of each input stand on the last axis of the output.

        Args:
            layer: the layer, or an operation.
            shapes: the shapes of its inputs, with the batch; all last axes are of known size.

        Returns:
            For each input an int64 array of shape `(units, copies)`: the positions that come from
            a unit, and from nothing else but units of other inputs that are laid there too.

        Raises:
            UnitsMixed: if this layer mixes units, with the reason.
        """

    def constants(
        self, layer: Any, constants: Sequence[np.ndarray], shapes: Sequence[Shape]
    ) -> np.ndarray:
        """What the layer makes, at inference, of units that are constant.

        Args:
            layer, shapes: as in `places`.
            constants: for each input float64 of shape `(units,)`, NaN where a unit varies.

        Returns:
            The same of the output: by default, constants as they were, each at its places.
        """
        places = self.places(layer, shapes)
        outputs = np.full(1 + max(at.max() for at in places), np.nan)
        for values, at in zip(constants, places, strict=True):
            outputs[at] = values[:, None]
        return outputs

    def changes(self, layer: Any, count: int) -> dict[str, Any]:
        """Arguments that a copy of the layer takes whose output has another number of units."""
        return {}

    def scales(self, layer: Any, copy: Any) -> Mapping[str, float]:
        """By what variables of a copy with other units are multiplied, by their attributes."""
        return {}

    def axes(self, variable: keras.Variable) -> tuple[int | None, int | None]:
        """On which axes of a variable of the layer the units of its input, and output, lie."""
        return None, -1


class UnitByUnit(UnitRule):
    """Each unit is computed from itself alone, alike at all positions: an activation, dropout."""

    def places(self, layer, shapes):
        return [np.arange(shape[-1], dtype=np.int64)[:, None] for shape in shapes]

    def constants(self, layer, constants, shapes):
        (values,), (shape,) = constants, shapes
        is_constant = np.isfinite(values) | self.is_constant_for_any_input(layer, len(values))
        if not is_constant.any():
            return values
        inputs = np.where(np.isfinite(values), values, 0.0).reshape([1] * (len(shape) - 1) + [-1])
        # The call is not the model's: what it adds to losses is dropped with the scope.
        with keras.StatelessScope():
            outputs = layer(tf.cast(inputs, layer.compute_dtype))
        outputs = tf.cast(tf.reshape(outputs, [-1]), tf.float64).numpy()
        return np.where(is_constant & np.isfinite(outputs), outputs, np.nan)

    def is_constant_for_any_input(self, layer: Any, count: int) -> np.ndarray:
        """Which units are constant behind the layer, whatever it is given; bool `(count,)`."""
        return np.zeros(count, bool)


class Moved(UnitByUnit):
    """Values of a unit are pooled, repeated, cut or moved; a constant stays what it is."""

    moves = True
    constants = UnitRule.constants


class Merged(UnitRule):
    """Units of several inputs are combined one by one, as in an addition.

    Args:
        combine: makes of arrays of constants the constants of the output; NaN stays NaN.
        adds: whether it adds them up.
    """

    def __init__(self, combine: Callable[[Sequence[np.ndarray]], np.ndarray], adds: bool = True):
        self._combine = combine
        self.adds = adds

    def places(self, layer, shapes):
        if len(shapes) < 2:
            raise UnitsMixed("it is not known to keep units apart")
        return one_by_one(shapes)

    def constants(self, layer, constants, shapes):
        return self._combine(constants)


def one_by_one(shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Places where units of several inputs come together that have the same number."""
    if len({shape[-1] for shape in shapes}) > 1:
        raise UnitsMixed("its inputs have different numbers of units")
    return [np.arange(shape[-1] or 0, dtype=np.int64)[:, None] for shape in shapes]


class Depthwise(UnitRule):
    """Each map is filtered by itself, and becomes `depth_multiplier` maps.

    It is for layers with a `kernel` of shape `(*window, maps, depth_multiplier)`, a `bias` or
    `None`, `padding` and `activation`.
    """

    moves = True
    filters: ClassVar = {"kernel": "depthwise_initializer"}

    def places(self, layer, shapes):
        count, copies = shapes[0][-1], layer.depth_multiplier
        if not keeps_units_apart(layer.activation):
            raise UnitsMixed("its activation mixes units")
        return [np.arange(count * copies, dtype=np.int64).reshape(count, copies)]

    def constants(self, layer, constants, shapes):
        (values,) = constants
        # Where the window reaches over the edge it finds 0, not the constant.
        is_constant = np.isfinite(values) if layer.padding == "valid" else values == 0
        *_, count, copies = layer.kernel.shape
        windows = tf.reduce_sum(tf.reshape(layer.kernel.value, [-1, count, copies]), axis=0)
        outputs = tf.cast(np.where(is_constant, values, 0.0)[:, None], windows.dtype) * windows
        outputs = tf.reshape(outputs, [-1])
        if layer.bias is not None:
            outputs += layer.bias.value
        if layer.activation is not None:
            outputs = layer.activation(outputs[None])[0]
        outputs = tf.cast(outputs, tf.float64).numpy()
        return np.where(np.repeat(is_constant, copies), outputs, np.nan)

    def scales(self, layer: Any, copy: Any) -> Mapping[str, float]:
        """By what variables of a copy with other units are multiplied, by their attributes."""
        return {}

    def axes(self, variable):
        return (-2, None) if len(variable.shape) > 1 else (None, -1)


def keeps_units_apart(activation: Any) -> bool:
    """Whether an activation computes each unit from itself alone, as softmax does not.

    Args:
        activation: a function of tensors, or `None`; it is tried on three units.
    """
    if activation is None:
        return True
    x, moved = tf.constant([[0.3, -0.7, 1.1]]), tf.constant([[0.3, -0.7, 1.6]])
    y, nudged = tf.convert_to_tensor(activation(x)), tf.convert_to_tensor(activation(moved))
    return y.shape == x.shape and bool(tf.reduce_all(y[:, :2] == nudged[:, :2]))
