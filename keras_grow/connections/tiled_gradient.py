"""Gradients too large to hold, of which parts can be computed."""

import abc
from collections.abc import Iterator, Sequence

import tensorflow as tf

Block = tuple[tf.Tensor, tf.Tensor]
"""Row and column indices, int64, of a part of a matrix."""

# Numbers that a gather of single pairs may hold at a time.
_PAIR_NUMBERS = 2**22


class TiledGradient(abc.ABC):
    """A gradient G of shape `(inputs, units)` that is known part by part.

    Attributes:
        shape: a pair of integers.
        dtype: the type of its numbers.
        row_norms, column_norms: floats of shape `(inputs,)` and `(units,)` with
            `|G[i, j]| <= row_norms[i] * column_norms[j]` up to rounding.
        num_terms: how many products each G[i, j] is the sum of, which bounds the rounding.
        tiles_at_once: how many tiles should be asked for together.
    """

    shape: tuple[int, int]
    dtype: tf.DType
    row_norms: tf.Tensor
    column_norms: tf.Tensor
    num_terms: int
    tiles_at_once: int = 1

    @abc.abstractmethod
    def tiles(self, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
        """Yields `G[rows][:, columns]` for each of `blocks`, in their order."""

    @abc.abstractmethod
    def at(self, indices: tf.Tensor) -> tf.Tensor:
        """G at flat row-major indices, int64 of shape `(count,)`."""


class FactoredGradient(TiledGradient):
    """G = X^T D of activities X and stimulations D, held as these factors.

    Args:
        inputs: X transposed, floats of shape `(inputs, samples)`.
        stimulations: D transposed, floats of shape `(units, samples)`.
    """

    def __init__(self, inputs: tf.Tensor, stimulations: tf.Tensor):
        self.inputs, self.stimulations = inputs, stimulations
        self.shape = inputs.shape[0], stimulations.shape[0]
        self.dtype = inputs.dtype
        self.num_terms = inputs.shape[1]
        self.row_norms, self.column_norms = tf.norm(inputs, axis=1), tf.norm(stimulations, axis=1)

    def tiles(self, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
        for rows, columns in blocks:
            factors = tf.gather(self.inputs, rows), tf.gather(self.stimulations, columns)
            yield tf.matmul(*factors, transpose_b=True)

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        rows, columns = indices // self.shape[1], indices % self.shape[1]
        chunk = max(1, _PAIR_NUMBERS // max(1, self.num_terms))
        parts = [tf.zeros((0,), self.dtype)]
        for start in range(0, len(indices), chunk):
            pairs = slice(start, start + chunk)
            x = tf.gather(self.inputs, rows[pairs])
            parts.append(tf.reduce_sum(x * tf.gather(self.stimulations, columns[pairs]), axis=1))
        return tf.concat(parts, axis=0)
