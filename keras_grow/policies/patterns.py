"""Patterns: which connections of a kernel may be active together, for hardware that asks for it."""

import abc

import numpy as np

from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.densities import check_density, exact_count


class Pattern(abc.ABC):
    """Says which active connections of a kernel go, so that those left lie in a pattern."""

    @abc.abstractmethod
    def surplus(self, kernel: KernelAxes, indices: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Which connections go.

        Args:
            kernel: the axes of the kernel.
            indices: int64 of shape `(count,)`, ascending flat indices of all active connections.
            scores: floats of the same shape: the larger, the more a connection matters. Of equals
                the lower index goes first.

        Returns:
            bool of shape `(count,)`.
        """

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"

    @abc.abstractmethod
    def holds(self, kernel: KernelAxes, indices: np.ndarray) -> bool:
        """Whether active connections lie in the pattern."""


class NM(Pattern):
    """At most n of every m neighboring inputs of a unit: 2:4 is what tensor cores skip by.

    Of a convolution each place of the window has groups of its own. Where m does not divide the
    inputs, the last group of them is smaller, and keeps n, or all it has.

    Args:
        n, m: integers, 0 < n < m.

    Reference: Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.
    """

    def __init__(self, n: int, m: int):
        self.n, self.m = checked_integer(n, "n"), checked_integer(m, "m")
        if self.n >= self.m:
            raise ValueError(f"`n` must be smaller than `m`. Received: n={n}, m={m}")

    def surplus(self, kernel: KernelAxes, indices: np.ndarray, scores: np.ndarray) -> np.ndarray:
        group = self._groups(kernel, indices)
        # Best first in each group; of equals the higher index stays.
        order = np.lexsort((-indices, -scores, group))
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
        goes = np.zeros(len(indices), bool)
        goes[order[rank >= self.n]] = True
        return goes

    def holds(self, kernel: KernelAxes, indices: np.ndarray) -> bool:
        _, counts = np.unique(self._groups(kernel, indices), return_counts=True)
        return int(counts.max(initial=0)) <= self.n

    def _groups(self, kernel: KernelAxes, indices: np.ndarray) -> np.ndarray:
        num_across = -(-kernel.num_inputs // self.m)
        of_inputs = np.asarray(kernel.inputs_of(indices)) // self.m
        group = np.asarray(kernel.units_of(indices)) * num_across + of_inputs
        return group * kernel.num_positions + np.asarray(kernel.positions_of(indices))


class Blocks(Pattern):
    """Whole blocks of neighboring inputs and units, the best ones up to a density.

    A block matters by the root mean square of its connections' scores, those that are gone counted
    as 0. Of a convolution each place of the window has blocks of its own.

    Args:
        inputs, units: positive integers, the sides of a block; at the ends of a kernel they may be
            smaller.
        density: the share of blocks that stay, above 0.
    """

    def __init__(self, inputs: int, units: int, density: float):
        self.inputs = checked_integer(inputs, "inputs")
        self.units = checked_integer(units, "units")
        check_density(density)
        if density == 0:
            raise ValueError("A density of 0 leaves no block. Received: density=0")
        self.density = density

    def surplus(self, kernel: KernelAxes, indices: np.ndarray, scores: np.ndarray) -> np.ndarray:
        block, num_blocks = self._blocks(kernel, indices)
        every, _ = self._blocks(kernel, np.arange(kernel.size))
        size = np.bincount(every, minlength=num_blocks)
        squares = np.bincount(block, np.square(scores, dtype=np.float64), num_blocks)
        # No block is of less worth than one that is gone already.
        worth = np.where(np.bincount(block, minlength=num_blocks) > 0, squares / size, -1.0)
        num_kept = max(1, exact_count(self.density, num_blocks))
        kept = np.lexsort((-np.arange(num_blocks), -worth))[:num_kept]
        return ~np.isin(block, kept)

    def holds(self, kernel: KernelAxes, indices: np.ndarray) -> bool:
        block, num_blocks = self._blocks(kernel, indices)
        every, _ = self._blocks(kernel, np.arange(kernel.size))
        there = np.bincount(block, minlength=num_blocks)
        return bool(np.all((there == 0) | (there == np.bincount(every, minlength=num_blocks))))

    def _blocks(self, kernel: KernelAxes, indices: np.ndarray) -> tuple[np.ndarray, int]:
        """The number of each connection's block, and how many blocks there are."""
        down, across = -(-kernel.num_inputs // self.inputs), -(-kernel.num_units // self.units)
        block = np.asarray(kernel.positions_of(indices)) * down
        block = (block + np.asarray(kernel.inputs_of(indices)) // self.inputs) * across
        block = block + np.asarray(kernel.units_of(indices)) // self.units
        return block, kernel.num_positions * down * across
