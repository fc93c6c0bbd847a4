"""Atoms: connections that can only come and go together, which scores see as one connection.

Atom a of a layer is the run of flat indices from a * atom_size on: connections from one input into
neighboring units. Of their weights and statistics a score sees root mean squares, so that it ranks
atoms by the norms of their weights or gradients. Those of a pattern may lie anywhere, and are
listed.
"""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_grow.search.tiled_array import Block, TiledArray, Values


class Atoms(abc.ABC):
    """Of which connections the numbered atoms of a kernel consist."""

    @abc.abstractmethod
    def sizes(self, numbers: Any) -> np.ndarray:
        """How many connections there are in each of some atoms."""

    @abc.abstractmethod
    def connections(self, numbers: Any) -> tf.Tensor:
        """The flat indices of the connections of some atoms, int64, ascending.

        Args:
            numbers: int64 of shape `(count,)`, ascending.
        """

    @abc.abstractmethod
    def spread(self, numbers: Any, values: np.ndarray) -> np.ndarray:
        """Values of some atoms as values of their connections, in the order of `connections`.

        Args:
            numbers: int64 of shape `(count,)`, ascending.
            values: of shape `(count,)`.
        """


@dataclasses.dataclass(frozen=True)
class Runs(Atoms):
    """Atom a is the run of flat indices from a * size on.

    Attributes:
        size: how many connections there are in an atom.
    """

    size: int = 1

    def sizes(self, numbers: Any) -> np.ndarray:
        return np.full(len(numbers), self.size)

    def connections(self, numbers: Any) -> tf.Tensor:
        return connections_of(numbers, self.size)

    def spread(self, numbers: Any, values: np.ndarray) -> np.ndarray:
        return np.repeat(values, self.size)


@dataclasses.dataclass(frozen=True)
class Listed(Atoms):
    """Atom a has the connections `members[starts[a]:starts[a + 1]]`.

    Attributes:
        members: int64, flat indices of connections, those of an atom side by side.
        starts: int64 of shape `(atoms + 1,)`.
    """

    members: np.ndarray
    starts: np.ndarray

    def sizes(self, numbers: Any) -> np.ndarray:
        return np.diff(self.starts)[np.asarray(numbers)]

    def connections(self, numbers: Any) -> tf.Tensor:
        return tf.constant(np.sort(self._members(numbers)), tf.int64)

    def spread(self, numbers: Any, values: np.ndarray) -> np.ndarray:
        return np.repeat(values, self.sizes(numbers))[np.argsort(self._members(numbers))]

    def _members(self, numbers: Any) -> np.ndarray:
        """The connections of some atoms, those of each side by side, in the order of `numbers`."""
        is_asked = np.zeros(len(self.starts) - 1, bool)
        is_asked[np.asarray(numbers)] = True
        return self.members[np.repeat(is_asked, np.diff(self.starts))]


def connections_of(atoms: tf.Tensor, atom_size: int) -> tf.Tensor:
    """The flat indices of the connections of atoms, int64, those of an atom side by side."""
    if atom_size == 1:
        return atoms
    return tf.reshape(atoms[:, None] * atom_size + tf.range(atom_size, dtype=tf.int64), [-1])


def splits_atoms(connections: tf.Tensor, atom_size: int) -> bool:
    """Whether flat indices, each there once, are anything but whole atoms."""
    if atom_size == 1:
        return False
    if len(connections) % atom_size:
        return True
    atoms = tf.sort(tf.convert_to_tensor(connections)) // atom_size
    by_atom = tf.reshape(atoms, [-1, atom_size])
    return bool(tf.reduce_any(by_atom[:, 0] != by_atom[:, -1]))


def root_mean_square(values: tf.Tensor, atom_size: int) -> tf.Tensor:
    """Of each atom, the root of the mean square of its connections' numbers.

    Args:
        values: floats of shape `(..., count * atom_size)`, those of an atom side by side.

    Returns:
        Floats of shape `(..., count)`.
    """
    if atom_size == 1:
        return values
    shape = [*values.shape[:-1], values.shape[-1] // atom_size, atom_size]
    values = tf.reshape(values, shape)
    # The largest is taken out, whose square might overflow, or all of which might underflow.
    largest = tf.reduce_max(tf.abs(values), axis=-1, keepdims=True)
    parts = tf.math.divide_no_nan(values, largest)
    mean = tf.reduce_mean(tf.square(parts), axis=-1, keepdims=True)
    return tf.squeeze(largest * tf.sqrt(mean), axis=-1)


def over_atoms(values: Values, atom_size: int) -> Values:
    """A statistic of a kernel's connections as one of its atoms.

    Args:
        values: a tensor that broadcasts against a kernel whose last axis are units, or tiled. What
            is the same for all units stays as it is.
        atom_size: how many connections there are in an atom.
    """
    if isinstance(values, TiledArray):
        return AtomArray(values, atom_size)
    if values.shape.rank == 0 or values.shape[-1] == 1:
        return values
    return root_mean_square(values, atom_size)


class AtomArray(TiledArray):
    """Root mean squares of a tiled array over the units of each group.

    Args:
        array: a number for every connection.
        atom_size: how many units there are in a group.
    """

    def __init__(self, array: TiledArray, atom_size: int):
        self._array, self._atom_size = array, atom_size
        self.shape = array.shape[0], array.shape[1] // atom_size
        self.dtype, self.num_terms = array.dtype, array.num_terms
        self.tiles_at_once = array.tiles_at_once
        self.row_norms = array.row_norms
        # |G[i, j]| <= row[i] * column[j] for each unit j, and so for root mean squares over them.
        self.column_norms = root_mean_square(array.column_norms, atom_size)

    def tiles(self, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
        of_units = [(rows, connections_of(groups, self._atom_size)) for rows, groups in blocks]
        for tile in self._array.tiles(of_units):
            yield root_mean_square(tile, self._atom_size)

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        connections = connections_of(indices, self._atom_size)
        return root_mean_square(self._array.at(connections), self._atom_size)
