"""Which atoms of a kernel go, and which come, so that what is active lies in a pattern."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.patterns import Pattern
from keras_grow.search.atoms import Atoms, Listed, Runs
from keras_grow.search.selection import Candidates, fitting


class _Split(NamedTuple):
    """Some connections, sorted by their atoms.

    Attributes:
        numbers: of these atoms, int64 of shape `(atoms,)`, ascending.
        groups: of each atom, likewise.
        sizes: how many of the connections are of each.
        order: where each of the connections, those of an atom side by side, was given.
        atoms: which they are.
    """

    numbers: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray
    order: np.ndarray
    atoms: Listed


class InPattern:
    """A pattern, on one kernel.

    Args:
        pattern: says which atoms there are, and how many of a group may be active.
        kernel: the axes of the kernel.

    Attributes:
        pattern: that.
        atoms_are_connections: whether each atom is a single connection.
    """

    def __init__(self, pattern: Pattern, kernel: KernelAxes):
        self.pattern, self._kernel = pattern, kernel
        first = np.arange(min(kernel.size, 2), dtype=np.int64)
        self.atoms_are_connections = pattern.atoms(kernel, first) is first
        if not self.atoms_are_connections:
            every = self._numbers("atoms", np.arange(kernel.size, dtype=np.int64))
            self._atoms, self._sizes = np.unique(every, return_counts=True)
        self._most = checked_integer(pattern.most(kernel), f"{pattern!r}.most(kernel)")

    @property
    def atom_size(self) -> int:
        """How many connections there are in the largest atom."""
        return 1 if self.atoms_are_connections else int(self._sizes.max())

    @property
    def atoms_are_even(self) -> bool:
        """Whether all atoms are of the same size."""
        return self.atoms_are_connections or len(np.unique(self._sizes)) == 1

    def has_room_for(self, active: np.ndarray) -> bool:
        """Whether no group has more active atoms than may be; some may be active in part."""
        groups = self._split(active).groups
        _, counts = np.unique(groups, return_counts=True)
        return int(counts.max(initial=0)) <= self._most

    def are_whole(self, active: np.ndarray) -> bool:
        """Whether of each atom all connections are active, or none."""
        if self.atoms_are_connections:
            return True
        split = self._split(active)
        return bool(np.all(split.sizes == self._whole_sizes(split.numbers)))

    def surplus(self, active: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Which active connections go, so that those left lie in the pattern.

        In each group the atoms of largest score stay; of equals the lower index goes first. An atom
        that is active in part has 0 for the others.

        Args:
            active: int64 of shape `(count,)`, ascending flat indices of all active connections.
            scores: floats of the same shape: the larger, the more a connection matters.

        Returns:
            bool of shape `(count,)`.
        """
        split = self._split(active)
        worth = self._worth(split, scores, of_whole=True)
        order = np.lexsort((-split.numbers, -worth))
        goes = _ranks(split.groups[order]) >= self._most
        return np.isin(active, split.atoms.connections(order[goes]), assume_unique=True)

    def worst(self, active: np.ndarray, scores: np.ndarray, count: int) -> Candidates:
        """The active atoms of smallest score, `count` connections at most, the scores negated.

        Args:
            active, scores: as in `surplus`.
            count: integer.
        """
        split = self._split(active)
        worth = self._worth(split, scores, of_whole=True)
        order = np.lexsort((split.numbers, worth))
        return self._candidates(split, -worth, fitting(order, split.sizes[order], count))

    def best(
        self, active: np.ndarray, dormant: np.ndarray, scores: np.ndarray, count: int
    ) -> Candidates:
        """The dormant atoms of largest score that have room, `count` connections at most.

        They are taken one after the other; of equals the lower index first. An atom that is active
        in part needs no more room. One some of whose dormant connections are missing is passed
        over.

        Args:
            active: int64, ascending flat indices of all active connections.
            dormant: int64 of shape `(candidates,)`, those of connections that may come.
            scores: floats of shape `(candidates,)`: the larger, the better.
            count: integer.
        """
        split, begun = self._split(dormant), self._split(active)
        worth = self._worth(split, scores, of_whole=False)
        order = np.lexsort((split.numbers, -worth))
        num_active = np.zeros(len(split.numbers), np.int64)
        places, is_begun = _find(begun.numbers, split.numbers)
        num_active[is_begun] = begun.sizes[places[is_begun]]
        groups, occupied = np.unique(begun.groups, return_counts=True)
        num_before = np.zeros(len(split.numbers), np.int64)
        places, is_known = _find(groups, split.groups)
        num_before[is_known] = occupied[places[is_known]]
        room = self._most - num_before
        if self.atoms_are_connections:
            order = order[_ranks(split.groups[order]) < room[order]]
            return self._candidates(split, worth, order[:count])
        is_whole = split.sizes + num_active == self._whole_sizes(split.numbers)
        left: dict[int, int] = dict(zip(split.groups.tolist(), room.tolist(), strict=True))
        chosen = []
        # There are few of them; and one that is too large must not take the room of another.
        for atom in order[is_whole[order]].tolist():
            size, group = int(split.sizes[atom]), int(split.groups[atom])
            if size <= count and (is_begun[atom] or left[group] > 0):
                count -= size
                # One that was begun has its room.
                left[group] -= not is_begun[atom]
                chosen.append(atom)
        return self._candidates(split, worth, np.array(chosen, np.int64))

    def _split(self, connections: np.ndarray) -> _Split:
        if self.atoms_are_connections:
            order = np.argsort(connections, kind="stable")
            numbers, sizes = connections[order], np.ones(len(order), np.int64)
        else:
            atoms = self._numbers("atoms", connections)
            order = np.lexsort((connections, atoms))
            numbers, sizes = np.unique(atoms, return_counts=True)
        members = connections[order]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        groups = self._numbers("groups", members)
        if np.any(groups != np.repeat(groups[starts[:-1]], sizes)):
            raise ValueError(
                "All connections of an atom must be of one group. Received: "
                f"pattern={self.pattern!r}, which splits some"
            )
        groups = groups[starts[:-1]]
        return _Split(numbers, groups, sizes, order, Listed(members, starts))

    def _numbers(self, what: str, connections: np.ndarray) -> np.ndarray:
        """The atoms or groups of connections, int64; raises `ValueError` for what is none."""
        numbers = np.asarray(getattr(self.pattern, what)(self._kernel, connections))
        is_fit = numbers.shape == connections.shape and np.issubdtype(numbers.dtype, np.integer)
        if not is_fit or np.any(numbers < 0):
            raise ValueError(
                f"`{what}` of a pattern must return integers that are not negative, one for each "
                f"connection. Received: {numbers.dtype} of shape {numbers.shape} for "
                f"{len(connections)} connections, from pattern={self.pattern!r}"
            )
        return numbers.astype(np.int64)

    def _whole_sizes(self, atoms: np.ndarray) -> np.ndarray:
        """How many connections there are in some atoms, active and dormant."""
        return self._sizes[np.searchsorted(self._atoms, atoms)]

    def _worth(self, split: _Split, scores: np.ndarray, of_whole: bool) -> np.ndarray:
        """The score of each atom: of several connections a root mean square.

        Scores below 0 count against the others, as if squares had their sign.
        """
        scores = np.asarray(scores)
        # Half types have no order of their own in NumPy.
        scores = scores.astype(np.promote_types(scores.dtype, np.float32))[split.order]
        if self.atoms_are_connections or not len(scores):
            return scores
        sizes = self._whole_sizes(split.numbers) if of_whole else split.sizes
        # By a power of 2, which rounds nothing, lest squares overflow or vanish.
        _, exponent = np.frexp(np.abs(scores).max())
        scores = np.ldexp(scores.astype(np.float64), -exponent)
        means = np.add.reduceat(scores * np.abs(scores), split.atoms.starts[:-1]) / sizes
        return np.ldexp(np.sign(means) * np.sqrt(np.abs(means)), exponent)

    def _candidates(self, split: _Split, scores: np.ndarray, chosen: np.ndarray) -> Candidates:
        """Some atoms as candidates, in the order of their numbers."""
        chosen = np.sort(chosen)
        atoms: Atoms = split.atoms
        indices = chosen
        if self.atoms_are_connections:
            atoms, indices = Runs(), split.numbers[chosen]
        return Candidates(tf.constant(scores[chosen]), tf.constant(indices, tf.int64), atoms=atoms)


def _ranks(groups: np.ndarray) -> np.ndarray:
    """Of each entry how many before it are of the same group."""
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, counts)
    return ranks


def _find(ascending: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where values stand in an ascending array, and whether they are there."""
    places = np.searchsorted(ascending, values)
    is_there = places < len(ascending)
    is_there[is_there] = ascending[places[is_there]] == values[is_there]
    return places, is_there
