"""The exact choice of connections: top-k, per layer or over layers, with one rule for ties."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

# From here on, as seen on CPU cores: a sample saves more than it costs; a sort of all is faster
# than a heap of many of them.
_WORTH_A_SAMPLE = 2**19
_WORTH_A_SORT = 2**18
_SAMPLE_SIZE = 2**16


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
    scores, candidates = tf.reshape(scores, [-1]), tf.reshape(candidates, [-1])
    _check_finite(scores, candidates)
    return Proposal(*_largest(scores, candidates, count))


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


def _largest(scores: tf.Tensor, candidates: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The `count` largest scores of candidates and their indices, as `best_candidates` does.

    `tf.math.top_k` keeps a heap, or sorts, over all scores. A sample of them tells which score
    about `count` others exceed; only those that reach it are sorted. Too few, and all are.
    """
    size = len(scores)
    if size >= _WORTH_A_SAMPLE and 0 < count < size // 4:
        threshold = _reached_by_more_than(scores, candidates, count)
        indices = tf.where((scores >= threshold) & candidates)[:, 0]
        if len(indices) >= count:
            # Indices ascend, so that the lower one is still the first among equals.
            reached = tf.gather(scores, indices)
            is_sorted = len(indices) >= _WORTH_A_SORT and count > len(indices) // 4
            num_sorted = len(indices) if is_sorted else count
            best, order = tf.math.top_k(reached, k=num_sorted)
            return best[:count], tf.gather(indices, order[:count])
    worst = tf.constant(float("-inf"), scores.dtype)
    best, indices = tf.math.top_k(tf.where(candidates, scores, worst), k=count)
    return best, tf.cast(indices, tf.int64)


def _reached_by_more_than(scores: tf.Tensor, candidates: tf.Tensor, count: int) -> tf.Tensor:
    """A score that most likely `count` candidates reach, and not many more."""
    size = len(scores)
    # Multiples of the golden section spread evenly, whatever the rows of a kernel have in common.
    stride = int(size * 0.6180339887) | 1
    sample = tf.range(_SAMPLE_SIZE, dtype=tf.int64) * stride % size
    worst = tf.constant(float("-inf"), scores.dtype)
    sampled = tf.where(tf.gather(candidates, sample), tf.gather(scores, sample), worst)
    expected = _SAMPLE_SIZE * count / size
    # Four standard deviations: too few reach it once in 30,000 times.
    rank = int(expected + 4 * expected**0.5) + 8
    return tf.math.top_k(sampled, k=min(rank, _SAMPLE_SIZE)).values[-1]


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
    _, chosen = _largest(scores, tf.ones_like(scores, tf.bool), min(count, sum(sizes)))
    # A layer proposes best first, so that its share is a prefix of its proposal.
    shares = tf.math.bincount(tf.gather(layers, chosen), minlength=len(proposals))
    return [proposal.indices[:share] for proposal, share in zip(proposals, shares, strict=True)]
