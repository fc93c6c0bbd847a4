"""Where the largest of many numbers stand: by NumPy on the host, by counting digits elsewhere.

NumPy partitions, which TensorFlow can't: its `top_k` sorts. Both ways choose the same.
"""

import numpy as np
import tensorflow as tf

from keras_grow.search.flat_arrays import Array, all_positions, in_place, num_true, take

_DIGIT_BITS = 16
_NUM_VALUES = 2**_DIGIT_BITS


def ranked(scores: tf.Tensor) -> Array:
    """What can be ranked: scores of any precision and shape, flat, in place if they can be."""
    # float32 holds every number of half precision.
    scores = scores if scores.dtype == tf.float64 else tf.cast(scores, tf.float32)
    return in_place(tf.reshape(scores, [-1]))


def largest(numbers: Array, count: int) -> Array:
    """Where the largest of finite numbers stand; of equals, the first.

    It takes about as long as `numpy.argpartition`, however many are chosen: nothing is sorted.

    Args:
        numbers: float32 or float64 of shape `(size,)`.
        count: integer, from 0 to `size`.

    Returns:
        int64 of shape `(count,)`, ascending.
    """
    if count in (0, len(numbers)):
        return all_positions(numbers)[:count]
    choose = _by_partition if isinstance(numbers, np.ndarray) else _by_digits
    return choose(numbers, count)


def largest_first(numbers: Array, count: int) -> Array:
    """The same in the order of the numbers, the largest first; of equals, the first."""
    chosen = largest(numbers, count)
    found = take(numbers, chosen)
    if isinstance(found, np.ndarray):
        order = np.argsort(-found, kind="stable")
    else:
        order = tf.argsort(_in_the_order_of(found), direction="DESCENDING", stable=True)
    return take(chosen, order)


def _by_partition(numbers: np.ndarray, count: int) -> np.ndarray:
    place = len(numbers) - count
    least = np.partition(numbers, place)[place]
    is_chosen = numbers >= least
    num_surplus = np.count_nonzero(is_chosen) - count
    if num_surplus:
        is_chosen[np.flatnonzero(numbers == least)[-num_surplus:]] = False
    return np.flatnonzero(is_chosen)


def _by_digits(numbers: tf.Tensor, count: int) -> tf.Tensor:
    keys = _in_the_order_of(numbers)
    least = _kth_largest(keys, 8 * numbers.dtype.size, count)
    is_chosen = keys >= least
    num_surplus = num_true(is_chosen) - count
    if num_surplus:
        end = tf.where(keys == least)[-num_surplus, 0]
        is_chosen = tf.concat([is_chosen[:end], keys[end:] > least], axis=0)
    return tf.where(is_chosen)[:, 0]


def _in_the_order_of(numbers: tf.Tensor) -> tf.Tensor:
    """Integers in the order of floats: their bits, of which negative floats count downwards.

    TensorFlow takes subnormal floats for zeros; not so their bits.
    """
    bits_type = tf.int32 if numbers.dtype == tf.float32 else tf.int64
    # TensorFlow computes with int32 on the host, wherever the numbers are; not so with int64.
    bits = tf.cast(tf.bitcast(numbers, bits_type), tf.int64)
    return tf.where(bits < 0, bits_type.min - bits, bits)


def _kth_largest(keys: tf.Tensor, num_bits: int, k: int) -> tf.Tensor:
    """By radix: counts each digit of those integers that share the answer's higher digits."""
    top = num_bits - _DIGIT_BITS
    answer, rank = tf.zeros((), tf.int64), tf.constant(k, tf.int64)
    for shift in range(top, -1, -_DIGIT_BITS):
        # The highest digit has the sign; answer << 16 is what the others share.
        shared = -_NUM_VALUES // 2 if shift == top else answer * _NUM_VALUES
        digits = tf.bitwise.right_shift(keys, tf.constant(shift, tf.int64)) - shared
        is_among = (digits >= 0) & (digits < _NUM_VALUES)
        digits = tf.cast(tf.where(is_among, digits, _NUM_VALUES), tf.int32)
        # Bincount leaves out what is beyond its size.
        counts = tf.raw_ops.Bincount(arr=digits, size=_NUM_VALUES, weights=tf.zeros(0, tf.int32))
        at_least = tf.cumsum(tf.cast(counts, tf.int64), reverse=True)
        digit = tf.math.count_nonzero(at_least >= rank) - 1
        rank -= tf.concat([at_least, [0]], axis=0)[digit + 1]
        answer = shared + digit
    return answer
