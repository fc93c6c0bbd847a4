"""Ascending indices as the gaps between them, in one byte each, or two, or four.

Random connections at a density of 1% are 100 places apart, which a byte holds where an index
takes four. A gap that is too large is split: the type's largest number says "so many places on,
and no index yet".
"""

import numpy as np
import tensorflow as tf


def encode(indices: np.ndarray) -> np.ndarray:
    """The gaps between indices, in whichever of uint8, uint16 and uint32 takes fewest bytes.

    Args:
        indices: integers of shape `(count,)`, ascending, none twice, from 0.

    Returns:
        Shape `(length,)`, as `decode` takes it.
    """
    indices = np.asarray(indices, np.int64)
    gaps = np.diff(indices, prepend=-1) - 1
    # Counted before any is made: in bytes, a gap of 10^12 takes four billion of them.
    dtype = min((np.uint8, np.uint16, np.uint32), key=lambda dtype: _num_bytes(gaps, dtype))
    return _split(gaps, dtype)


def decode(stream: tf.Tensor) -> tf.Tensor:
    """The indices, int64 of shape `(count,)`, of what `encode` returned."""
    ends = tf.where(stream < stream.dtype.max)[:, 0]
    passed = tf.gather(tf.cumsum(tf.cast(stream, tf.int64)), ends)
    # An index takes a place itself, which gaps do not count.
    return passed + tf.range(tf.size(passed, out_type=tf.int64))


def _num_bytes(gaps: np.ndarray, dtype: type) -> int:
    return int(np.sum(gaps // np.iinfo(dtype).max + 1)) * np.dtype(dtype).itemsize


def _split(gaps: np.ndarray, dtype: type) -> np.ndarray:
    largest = int(np.iinfo(dtype).max)
    num_continued = gaps // largest
    ends = np.cumsum(num_continued + 1) - 1
    stream = np.full(ends[-1] + 1 if len(ends) else 0, largest, dtype)
    stream[ends] = gaps % largest
    return stream
