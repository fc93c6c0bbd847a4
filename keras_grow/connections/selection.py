"""The exact choice of connections: top-k, per layer or over layers, with one rule for ties."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf


class Proposal(NamedTuple):
    """Some connections of one layer, best first.

    Attributes:
        scores: floats of shape `(count,)`, descending.
        indices: int64 of shape `(count,)`, flat.
        is_complete: whether all candidates were ranked.
    """

    scores: tf.Tensor
    indices: tf.Tensor
    is_complete: bool = True


def best_candidates(scores: tf.Tensor, candidates: tf.Tensor, count: int) -> Proposal:
    """The `count` candidates of largest score, best first; ties go to the lower index.

    Args:
        scores: float tensor of any shape, finite at every candidate.
        candidates: bool tensor of the same shape, True where a connection may be chosen.
        count: integer, at most the number of candidates.

    Returns:
        A `Proposal` of flat row-major indices.

    Raises:
        ValueError: for scores of another shape, and for scores that are NaN or infinite.
    """
    scores = tf.convert_to_tensor(scores)
    if not scores.shape.is_compatible_with(candidates.shape):
        raise ValueError(
            "A score must return one number per connection. "
            f"Received: scores of shape {scores.shape}, expected {candidates.shape}"
        )
    worst = tf.constant(float("-inf"), scores.dtype)
    finite = tf.math.is_finite(scores) | ~candidates
    if not bool(tf.reduce_all(finite)):
        bad = int(tf.math.count_nonzero(~finite))
        raise ValueError(
            f"Scores must be finite. Received: {bad} of {scores.shape.num_elements()} scores are "
            "NaN or infinite. A diverged weight or gradient is the usual cause."
        )
    scores = tf.reshape(tf.where(candidates, scores, worst), [-1])
    best, indices = tf.math.top_k(scores, k=count)
    return Proposal(best, tf.cast(indices, tf.int64))


def merge(proposals: Sequence[Proposal], count: int) -> list[tf.Tensor]:
    """Chooses the `count` best of what several layers propose.

    Args:
        proposals: one per layer, in the order of the layers, each of its layer's best
            connections, as many as it has or `count`; fewer where a search was cut short.
        count: integer, how many to choose in all.

    Returns:
        The chosen flat indices of each layer, int64, best first. Ties go to the earlier layer,
        then the lower index.
    """
    # Layers of different precision compete; float64 holds every score exactly.
    scores = tf.concat([tf.cast(proposal.scores, tf.float64) for proposal in proposals], axis=0)
    sizes = [len(proposal.indices) for proposal in proposals]
    layers = tf.repeat(tf.range(len(proposals)), sizes)
    # top_k puts the lower position first among equals, and positions run by layer, then index.
    _, chosen = tf.math.top_k(scores, k=min(count, sum(sizes)))
    # A layer proposes best first, so that its share is a prefix of its proposal.
    shares = tf.math.bincount(tf.gather(layers, chosen), minlength=len(proposals))
    return [proposal.indices[:share] for proposal, share in zip(proposals, shares, strict=True)]
