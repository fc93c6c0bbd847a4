"""The exact choice of connections: top-k, per layer or over layers, with one rule for ties."""

from collections.abc import Sequence

import tensorflow as tf

Proposal = tuple[tf.Tensor, tf.Tensor]
"""Scores (float, descending) and flat indices (int64) of some connections of one layer."""


def best_candidates(scores: tf.Tensor, candidates: tf.Tensor, count: int) -> Proposal:
    """The `count` candidates of largest score, best first; ties go to the lower index.

    Args:
        scores: float tensor of any shape, finite at every candidate.
        candidates: bool tensor of the same shape, True where a connection may be chosen.
        count: integer, at most the number of candidates.

    Returns:
        A pair of tensors of shape `(count,)`: the scores, and flat row-major int64 indices.

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
    return best, tf.cast(indices, tf.int64)


def merge(proposals: Sequence[Proposal], count: int) -> list[tf.Tensor]:
    """Chooses the `count` best of what several layers propose.

    Args:
        proposals: one per layer, in the order of the layers, each of its layer's best
            connections, as many as it has or `count`, best first.
        count: integer, how many to choose in all.

    Returns:
        The chosen flat indices of each layer, int64, best first. Ties go to the earlier layer,
        then the lower index.
    """
    # Layers of different precision compete; float64 holds every score exactly.
    scores = tf.concat([tf.cast(scores, tf.float64) for scores, _ in proposals], axis=0)
    layers = tf.concat([tf.fill(tf.shape(s), i) for i, (s, _) in enumerate(proposals)], axis=0)
    # top_k puts the lower position first among equals, and positions run by layer, then index.
    _, chosen = tf.math.top_k(scores, k=count)
    # A layer proposes best first, so that its share is a prefix of its proposal.
    shares = tf.math.bincount(tf.gather(layers, chosen), minlength=len(proposals))
    return [indices[:share] for (_, indices), share in zip(proposals, shares, strict=True)]
