"""Which connections of a sparse layer grow or go first, ranked by atoms."""

import dataclasses

import tensorflow as tf

from keras_grow.policies.scores import Score
from keras_grow.policies.statistics import Gradient
from keras_grow.policies.view import Connections
from keras_grow.search.atoms import Runs, over_atoms, root_mean_square
from keras_grow.search.measurements import Measurements
from keras_grow.search.selection import Candidates, best_candidates
from keras_grow.search.tiled_array import entries
from keras_grow.search.tiled_search import TiledSearch, best_dormant


def best_to_grow(
    shape: tuple[int, int],
    atom_size: int,
    active: tf.Tensor,
    count: int,
    score: Score,
    measured: Measurements,
    l1: float,
) -> Candidates:
    """The dormant atoms of largest score, of `count` connections at most.

    Args:
        shape: of the kernel.
        atom_size: how many connections there are in an atom.
        active: int64 of shape `(num_active,)`, the numbers of active atoms, ascending.
        count: integer.
        score: sees atoms as connections.
        measured: of the layer's connections.
        l1: the factor of its regularizer.
    """
    statistics, search = measured.statistics, measured.search
    if atom_size > 1:
        statistics = {each: over_atoms(values, atom_size) for each, values in statistics.items()}
        search = TiledSearch() if search is None else search
        height, width = search.tile_shape
        # A tile of groups is made of one of their units.
        tile_shape = height, max(1, width // atom_size)
        search = dataclasses.replace(search, tile_shape=tile_shape)
    found = best_dormant(
        (shape[0], shape[1] // atom_size),
        active,
        count // atom_size,
        score,
        statistics,
        l1=l1,
        layer_index=measured.layer_index,
        step=measured.step,
        search=search,
    )
    return found._replace(atoms=Runs(atom_size))


def best_to_prune(
    shape: tuple[int, int],
    atom_size: int,
    active: tf.Tensor,
    count: int,
    score: Score,
    measured: Measurements,
    connections: Connections,
) -> Candidates:
    """The active atoms of smallest score, of `count` connections at most, the scores negated.

    Args:
        shape, atom_size, active, count, score: see `best_to_grow`.
        measured: what the score sees of the layer's connections.
        connections: all that are active.
    """
    if atom_size > 1:
        connections = seen_as_atoms(connections, measured, shape, atom_size, active)
    count = min(count // atom_size, len(active))
    found = best_candidates(-score(connections), connections.active, count)
    return found._replace(indices=tf.gather(active, found.indices), atoms=Runs(atom_size))


def seen_as_atoms(
    connections: Connections,
    measured: Measurements,
    shape: tuple[int, ...],
    atom_size: int,
    active: tf.Tensor,
) -> Connections:
    """What a score sees of atoms: each as if it were one connection.

    Args:
        connections: what it would see of all connections of these atoms.
        measured: what it sees of the layer's connections.
        shape, atom_size: of the kernel.
        active: int64 of shape `(count,)`, the numbers of the atoms.
    """
    of_atoms, dtype = (shape[0], shape[1] // atom_size), connections.weight.dtype
    statistics = {
        statistic: tf.cast(entries(over_atoms(values, atom_size), of_atoms, active), dtype)
        for statistic, values in measured.statistics.items()
    }
    if Gradient() in statistics:  # That of the penalty is part of it.
        statistics[Gradient()] = root_mean_square(connections[Gradient()], atom_size)
    return dataclasses.replace(
        connections,
        weight=root_mean_square(connections.weight, atom_size),
        active=tf.ones(tf.shape(active), bool),
        statistics=statistics,
    )
