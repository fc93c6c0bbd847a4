"""The exact choice of connections, per layer or over layers, with one rule for ties."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_grow.search.atoms import Atoms, Runs
from keras_grow.search.flat_arrays import (
    as_tensor,
    in_parts,
    in_place,
    num_true,
    take,
    taken,
    true_positions,
)
from keras_grow.search.ranking import largest, largest_first, ranked


class Candidates(NamedTuple):
    """Some connections of one layer, in the order of their indices.

    Attributes:
        scores: floats of shape `(count,)`.
        indices: int64 of shape `(count,)`, flat, ascending; where connections come and go in atoms,
            the numbers of these.
        is_complete: whether all candidates were ranked.
        atoms: which connections each stands for.
    """

    scores: tf.Tensor
    indices: tf.Tensor
    is_complete: bool = True
    atoms: Atoms = Runs()

    def connections(self) -> tf.Tensor:
        """The flat indices of all their connections, int64, ascending."""
        return self.atoms.connections(self.indices)

    def connection_scores(self) -> np.ndarray:
        """Of each of `connections` the score of its atom, shape `(connections,)`."""
        return self.atoms.spread(self.indices, np.asarray(self.scores))


def best_candidates(scores: tf.Tensor, is_candidate: tf.Tensor, count: int) -> Candidates:
    """The `count` candidates of largest score; ties go to the lower index.

    Args:
        scores: float tensor of any shape, finite at every candidate.
        is_candidate: bool tensor of the same shape, True where a connection may be chosen.
        count: integer, at most the number of candidates.

    Returns:
        `Candidates` of flat row-major indices, ascending.

    Raises:
        ValueError: for scores of another shape, and for scores that are NaN or infinite.
    """
    scores = tf.convert_to_tensor(scores)
    if not scores.shape.is_compatible_with(is_candidate.shape):
        raise ValueError(
            "A score must return one number per connection. "
            f"Received: scores of shape {scores.shape}, expected {is_candidate.shape}"
        )
    scores, is_candidate = tf.reshape(scores, [-1]), tf.reshape(is_candidate, [-1])
    _check_finite(scores, is_candidate)
    numbers, mask = ranked(scores), in_place(is_candidate)
    if num_true(mask) == len(numbers):
        indices = chosen = largest(numbers, count)
    else:
        # Few of many may be candidates; equal numbers in place of the others would rank slowly.
        indices = true_positions(mask)
        numbers = take(numbers, indices)
        chosen = largest(numbers, count)
        indices = take(indices, chosen)
    return Candidates(as_tensor(take(numbers, chosen)), as_tensor(indices))


def _check_finite(scores: tf.Tensor, is_candidate: tf.Tensor) -> None:
    # A sum takes a fraction of the time of a test of each, and is finite in all but odd cases.
    if bool(tf.math.is_finite(tf.reduce_sum(scores))):
        return
    bad = int(tf.math.count_nonzero(is_candidate & ~tf.math.is_finite(scores)))
    if bad:
        raise ValueError(
            f"Scores must be finite. Received: {bad} of {len(scores)} scores are NaN or infinite. "
            "A diverged weight or gradient is the usual cause."
        )


def merge(of_layers: Sequence[Candidates], count: int) -> list[tf.Tensor]:
    """Chooses the best candidates of several layers, `count` connections.

    Where connections come and go in atoms, these are taken in the order of their scores; one that
    would exceed the count is passed over, and smaller ones of other layers may fill the rest.

    Args:
        of_layers: one per layer, in the order of the layers, each of its layer's best
            connections, as many as it has or `count`; fewer where a search was cut short.
        count: integer, how many connections to choose in all; of atoms, at most.

    Returns:
        The flat indices of the chosen connections of each layer, int64, ascending. Ties go to the
        earlier layer, then the lower index.
    """
    lengths = [len(of_layer.indices) for of_layer in of_layers]
    are_connections = all(of_layer.atoms == Runs() for of_layer in of_layers)
    sizes = [] if are_connections else [each.atoms.sizes(each.indices) for each in of_layers]
    if count >= (sum(lengths) if are_connections else sum(map(np.sum, sizes))):
        return [of_layer.connections() for of_layer in of_layers]
    # Layers of different precision compete; the widest holds every score exactly.
    is_double = any(of_layer.scores.dtype == tf.float64 for of_layer in of_layers)
    dtype = tf.float64 if is_double else tf.float32
    scores = tf.concat([tf.cast(of_layer.scores, dtype) for of_layer in of_layers], axis=0)
    # Positions run by layer, then index.
    if are_connections:
        best = largest(ranked(scores), count)
    else:
        order = np.asarray(largest_first(ranked(scores), len(scores)))
        best = np.sort(fitting(order, np.concatenate(sizes)[order], count))
        best = in_place(tf.constant(best))
    return [
        of_layer.atoms.connections(taken(of_layer.indices, positions))
        for of_layer, positions in zip(of_layers, in_parts(best, lengths), strict=True)
    ]


def fitting(order: np.ndarray, sizes: np.ndarray, most: int) -> np.ndarray:
    """Takes one after the other, passing over each that would exceed `most` in all.

    Args:
        order: what to take, of shape `(count,)`.
        sizes: how much each counts, likewise.
        most: how much there may be in all.
    """
    taken_so_far = [order[:0]]
    while len(order):  # Once for each size at most: what did not fit will not fit later.
        num_fitting = int(np.searchsorted(np.cumsum(sizes), most, side="right"))
        taken_so_far.append(order[:num_fitting])
        most -= int(sizes[:num_fitting].sum())
        still_fits = np.flatnonzero(sizes[num_fitting:] <= most) + num_fitting
        order, sizes = order[still_fits], sizes[still_fits]
    return np.concatenate(taken_so_far)
