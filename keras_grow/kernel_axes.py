"""What the axes of a kernel are, and so what each of its connections connects."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class KernelAxes:
    """Which axes of a kernel are inputs, and which units; the others are shared positions.

    A connection is an entry of a kernel, and has a flat index, row-major. It leads out of an
    input, into a unit, at a position: a place in the window of a convolution, or one that all
    inputs and units have in common.

    | kernel | shape | inputs | units |
    | --- | --- | --- | --- |
    | Dense | (inputs, units) | -2 | -1 |
    | Conv2D | (height, width, inputs, units) | -2 | -1 |
    | query of an attention | (inputs, heads, size) | 0 | 1, 2 |
    | output of an attention | (heads, size, units) | 0, 1 | 2 |
    | DepthwiseConv2D | (height, width, inputs, multiplier) | -2 | -2, -1 |

    In the last one an axis is both: each input has units of its own. Where the units are split into
    groups that read inputs of their own (`groups` of a convolution), the kernel's axis of inputs
    counts those of one group.

    Attributes:
        shape: of the kernel.
        inputs, units: the axes, counted from the end, ascending.
        num_groups: into how many groups units and inputs are split.

    Example:

    >>> import numpy as np
    >>> axes = KernelAxes((3, 2))
    >>> axes.inputs_of(np.array([0, 1, 4]))
    array([0, 0, 2])
    >>> axes.units_of(np.array([0, 1, 4]))
    array([0, 1, 0])
    """

    shape: tuple[int, ...]
    inputs: tuple[int, ...] = (-2,)
    units: tuple[int, ...] = (-1,)
    num_groups: int = 1

    def __post_init__(self):
        for name in ("inputs", "units"):
            axes = tuple(a - len(self.shape) if a >= 0 else a for a in getattr(self, name))
            if not axes or any(not -len(self.shape) <= a < 0 for a in axes):
                raise ValueError(
                    f"`{name}` must name axes of the kernel. Received: {name}="
                    f"{getattr(self, name)} for a kernel of shape {self.shape}"
                )
            object.__setattr__(self, name, tuple(sorted(set(axes))))
        if self.num_units % self.num_groups:
            raise ValueError(
                "`num_groups` must divide the number of units. Received: "
                f"num_groups={self.num_groups}, {self.num_units} units"
            )

    @property
    def size(self) -> int:
        """How many connections there are, active and dormant."""
        return math.prod(self.shape)

    @property
    def num_inputs(self) -> int:
        """How many inputs the kernel reads, those of all groups."""
        return self._size_of(self.inputs) * self.num_groups

    @property
    def num_units(self) -> int:
        """How many units it makes."""
        return self._size_of(self.units)

    @property
    def num_positions(self) -> int:
        """How many connections there may be between an input and a unit."""
        return self._size_of(self._positions)

    @property
    def has_units_last(self) -> bool:
        """Whether units are the last axis, so that values of units broadcast over the kernel."""
        return self.units == (-1,)

    @property
    def fan_in(self) -> int:
        """How many connections lead into a unit, active and dormant."""
        return self.size // self.num_units

    @property
    def fan_out(self) -> int:
        """How many lead out of an input."""
        return self.size // self.num_inputs

    def inputs_of(self, connections: Any) -> Any:
        """Which input each of some connections leads out of.

        Args:
            connections: int64 of shape `(count,)`, flat indices; an array or a tensor.
        """
        inputs = self._number(connections, self.inputs)
        if self.num_groups == 1:
            return inputs
        group = self.units_of(connections) // (self.num_units // self.num_groups)
        return group * self._size_of(self.inputs) + inputs

    def units_of(self, connections: Any) -> Any:
        """Which unit each leads into."""
        return self._number(connections, self.units)

    def positions_of(self, connections: Any) -> Any:
        """At which position of its input and unit each stands."""
        return self._number(connections, self._positions)

    def in_matrix(self, connections: Any) -> Any:
        """Where each stands in a matrix of shape `(fan_in, units)`: flat indices into that."""
        rows = self._number(connections, self.over_inputs())
        return rows * self.num_units + self.units_of(connections)

    def connections_between(self, inputs: np.ndarray, units: np.ndarray) -> np.ndarray:
        """All connections that lead out of some inputs into some units; int64, ascending.

        Args:
            inputs, units: integers, each number once.
        """
        if self.num_groups == 1 and not set(self.inputs) & set(self.units):
            # Few of a large kernel, without a number for each of its connections.
            positions = np.arange(self.num_positions, dtype=np.int64)
            each = np.meshgrid(inputs, units, positions, indexing="ij")
            return np.sort(self.connection(*(side.reshape(-1) for side in each)))
        every = np.arange(self.size, dtype=np.int64)
        is_input, is_unit = np.zeros(self.num_inputs, bool), np.zeros(self.num_units, bool)
        is_input[inputs], is_unit[units] = True, True
        return every[is_input[self.inputs_of(every)] & is_unit[self.units_of(every)]]

    def connection(self, inputs: Any, units: Any, positions: Any = 0) -> Any:
        """The connections from inputs into units, one by one: flat indices, int64.

        Args:
            inputs, units: integers of shape `(count,)`, of kernels whose inputs and units have no
                axis in common.
            positions: likewise.
        """
        if set(self.inputs) & set(self.units) or self.num_groups > 1:
            raise ValueError(f"Inputs have units of their own. Received: {self}")
        strides, total = self._strides, 0
        for axes, numbers in (
            (self._positions, positions),
            (self.inputs, inputs),
            (self.units, units),
        ):
            for axis in reversed(axes):
                total += numbers % self.shape[axis] * strides[axis]
                numbers = numbers // self.shape[axis]
        return total

    def into(self, units: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """One connection into each of some units: of those into it, in order, the one asked for.

        Args:
            units: integers of shape `(count,)`.
            numbers: likewise, from 0 to the fan-in.
        """
        if self.has_units_last:
            return numbers * self.num_units + units
        into_units = np.argsort(self.units_of(np.arange(self.size)), kind="stable")
        return into_units.reshape(self.num_units, self.fan_in)[units, numbers]

    def count_by_input(self, connections: np.ndarray) -> np.ndarray:
        """How many of some connections lead out of each input: int64 of shape `(inputs,)`."""
        return np.bincount(np.asarray(self.inputs_of(connections)), minlength=self.num_inputs)

    def count_by_unit(self, connections: np.ndarray) -> np.ndarray:
        """How many lead into each unit: int64 of shape `(units,)`."""
        return np.bincount(np.asarray(self.units_of(connections)), minlength=self.num_units)

    def per_unit(self, values: tf.Tensor) -> tf.Tensor:
        """Values of units, shape `(units,)`, in a shape that broadcasts over the kernel."""
        if self.has_units_last:
            return values
        return tf.reshape(values, self._broadcast(self.units))

    def per_input(self, values: tf.Tensor) -> tf.Tensor:
        """Values of inputs, shape `(inputs,)`, in a shape that broadcasts over the kernel."""
        if self.num_groups == 1:
            return tf.reshape(values, self._broadcast(self.inputs))
        connections = tf.range(self.size, dtype=tf.int64)
        return tf.reshape(tf.gather(values, self.inputs_of(connections)), self.shape)

    def over_inputs(self) -> tuple[int, ...]:
        """The axes over which a unit's connections lie: all but those of units."""
        return tuple(axis for axis in range(-len(self.shape), 0) if axis not in self.units)

    @property
    def _positions(self) -> tuple[int, ...]:
        named = {*self.inputs, *self.units}
        return tuple(axis for axis in range(-len(self.shape), 0) if axis not in named)

    @property
    def _strides(self) -> list[int]:
        strides = [1]
        for size in reversed(self.shape[1:]):
            strides.insert(0, strides[0] * size)
        return strides

    def _size_of(self, axes: tuple[int, ...]) -> int:
        return math.prod(self.shape[axis] for axis in axes)

    def _broadcast(self, axes: tuple[int, ...]) -> list[int]:
        return [self.shape[axis] if axis in axes else 1 for axis in range(-len(self.shape), 0)]

    def _number(self, connections: Any, axes: tuple[int, ...]) -> Any:
        """The number of an entry along some axes together, row-major."""
        strides, number = self._strides, connections * 0
        for axis in axes:
            number = number * self.shape[axis] + connections // strides[axis] % self.shape[axis]
        return number
