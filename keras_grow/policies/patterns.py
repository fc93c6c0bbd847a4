"""Patterns: which connections of a kernel may be active together, for hardware that asks for it."""

import abc

import numpy as np

from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.densities import check_density, exact_count


class Pattern(abc.ABC):
    """Where active connections may lie: of each group of atoms, at most so many are active.

    An atom is what comes and goes as a whole: a connection, where `atoms` says nothing else.
    """

    @abc.abstractmethod
    def groups(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        """The group of each of some connections, the same for all connections of an atom.

        Args:
            kernel: the axes of the kernel.
            indices: int64 of shape `(count,)`, flat indices of connections.

        Returns:
            Integers of shape `(count,)`, not negative.
        """

    @abc.abstractmethod
    def most(self, kernel: KernelAxes) -> int:
        """How many atoms of a group may be active, one or more."""

    def atoms(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        """The atom of each of some connections: by default each is one.

        Args:
            kernel, indices: see `groups`.

        Returns:
            Integers of shape `(count,)`, not negative.
        """
        return indices

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class NM(Pattern):
    """At most n of every m neighboring inputs of a unit: 2:4 is what tensor cores skip by.

    Of a convolution each place of the window has groups of its own; where its units are split into
    groups, neighbors are those of one. Where m does not divide the
    inputs, the last group of them is smaller, and keeps n, or all it has.

    Args:
        n, m: integers, 0 < n < m.

    Reference: Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.
    """

    def __init__(self, n: int, m: int):
        self.n, self.m = checked_integer(n, "n"), checked_integer(m, "m")
        if self.n >= self.m:
            raise ValueError(f"`n` must be smaller than `m`. Received: n={n}, m={m}")

    def groups(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        inputs, num_inputs = _inputs_within(kernel, indices)
        group = kernel.units_of(indices) * -(-num_inputs // self.m) + inputs // self.m
        return group * kernel.num_positions + kernel.positions_of(indices)

    def most(self, kernel: KernelAxes) -> int:
        return self.n


class ConstantFanIn(Pattern):
    """At most so many connections into each unit, as in SRigL.

    Grown full, `grow(model, data, pattern=...)`, all units have as many, and their weights make a
    dense matrix.

    Args:
        count: positive integer.

    Reference: Lasby et al., "Dynamic Sparse Training with Structured Sparsity", arXiv:2305.02299.
    """

    def __init__(self, count: int):
        self.count = checked_integer(count, "count")

    def groups(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        return kernel.units_of(indices)

    def most(self, kernel: KernelAxes) -> int:
        return self.count


class Blocks(Pattern):
    """Whole blocks of neighboring inputs and units, up to a density.

    Of a convolution each place of the window has blocks of its own; where its units are split into
    groups, neighbors are those of one.

    Args:
        inputs, units: positive integers, the sides of a block; at the ends of a kernel they may be
            smaller.
        density: the share of blocks that may be active, above 0.
    """

    def __init__(self, inputs: int, units: int, density: float):
        self.inputs = checked_integer(inputs, "inputs")
        self.units = checked_integer(units, "units")
        check_density(density)
        if density == 0:
            raise ValueError("A density of 0 leaves no block. Received: density=0")
        self.density = density

    def atoms(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        inputs, num_inputs = _inputs_within(kernel, indices)
        block = kernel.positions_of(indices) * -(-num_inputs // self.inputs) + inputs // self.inputs
        return block * -(-kernel.num_units // self.units) + kernel.units_of(indices) // self.units

    def groups(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        return np.zeros_like(indices)

    def most(self, kernel: KernelAxes) -> int:
        # Counted, for where inputs have units of their own not every input leads into every unit.
        blocks = np.unique(self.atoms(kernel, np.arange(kernel.size)))
        return max(1, exact_count(self.density, len(blocks)))


def _inputs_within(kernel: KernelAxes, indices: np.ndarray) -> tuple[np.ndarray, int]:
    """The inputs of connections, numbered within their group, and how many a group has."""
    num_inputs = kernel.num_inputs // kernel.num_groups
    return kernel.inputs_of(indices) % num_inputs, num_inputs
