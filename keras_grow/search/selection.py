"""The exact choice of connections, per layer or over layers, with one rule for ties."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_grow.search.flat_arrays import (
    as_tensor,
    in_parts,
    in_place,
    num_true,
    take,
    taken,
    true_positions,
)
from keras_grow.search.ranking import largest, ranked


class Proposal(NamedTuple):
    """Some connections of one layer, in the order of their indices.

    Attributes:
        scores: floats of shape `(count,)`.
        indices: int64 of shape `(count,)`, flat, ascending.
        is_complete: whether all candidates were ranked.
    """

    scores: tf.Tensor
    indices: tf.Tensor
    is_complete: bool = True


def best_candidates(scores: tf.Tensor, candidates: tf.Tensor, count: int) -> Proposal:
    """The `count` candidates of largest score; ties go to the lower index.

    Args:
        scores: float tensor of any shape, finite at every candidate.
        candidates: bool tensor of the same shape, True where a connection may be chosen.
        count: integer, at most the number of candidates.

    Returns:
        A `Proposal` of flat row-major indices, ascending.

    Raises:
        ValueError: for scores of another shape, and for scores that are NaN or infinite.
    """
    scores = tf.convert_to_tensor(scores)
    if not scores.shape.is_compatible_with(candidates.shape):
        raise ValueError(
            "A score must return one number per connection. "
            f"Received: scores of shape {scores.shape}, expected {candidates.shape}"
        )
    scores, candidates = tf.reshape(scores, [-1]), tf.reshape(candidates, [-1])
    _check_finite(scores, candidates)
    numbers, mask = ranked(scores), in_place(candidates)
    if num_true(mask) == len(numbers):
        indices = chosen = largest(numbers, count)
    else:
        # Few of many may be candidates; equal numbers in place of the others would rank slowly.
        indices = true_positions(mask)
        numbers = take(numbers, indices)
        chosen = largest(numbers, count)
        indices = take(indices, chosen)
    return Proposal(as_tensor(take(numbers, chosen)), as_tensor(indices))


def _check_finite(scores: tf.Tensor, candidates: tf.Tensor) -> None:
    # A sum takes a fraction of the time of a test of each, and is finite in all but odd cases.
    if bool(tf.math.is_finite(tf.reduce_sum(scores))):
        return
    bad = int(tf.math.count_nonzero(candidates & ~tf.math.is_finite(scores)))
    if bad:
        raise ValueError(
            f"Scores must be finite. Received: {bad} of {len(scores)} scores are NaN or infinite. "
            "A diverged weight or gradient is the usual cause."
        )


def merge(proposals: Sequence[Proposal], count: int) -> list[tf.Tensor]:
    """Chooses the `count` best of what several layers propose.

    Args:
        proposals: one per layer, in the order of the layers, each of its layer's best
            connections, as many as it has or `count`; fewer where a search was cut short.
        count: integer, how many to choose in all.

    Returns:
        The chosen flat indices of each layer, int64, ascending. Ties go to the earlier layer,
        then the lower index.
    """
    sizes = [len(proposal.indices) for proposal in proposals]
    if count >= sum(sizes):
        return [proposal.indices for proposal in proposals]
    # Layers of different precision compete; the widest holds every score exactly.
    is_double = any(proposal.scores.dtype == tf.float64 for proposal in proposals)
    dtype = tf.float64 if is_double else tf.float32
    scores = tf.concat([tf.cast(proposal.scores, dtype) for proposal in proposals], axis=0)
    # Positions run by layer, then index.
    chosen = in_parts(largest(ranked(scores), count), sizes)
    return [
        taken(proposal.indices, positions)
        for proposal, positions in zip(proposals, chosen, strict=True)
    ]
