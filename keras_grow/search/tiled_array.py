"""Arrays of connections: how they are read, and those too large to hold, known part by part."""

import abc
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import tensorflow as tf

from keras_grow.search.flat_arrays import taken

Block = tuple[tf.Tensor, tf.Tensor]
"""Row and column indices, int64, of a part of a matrix."""

# How many numbers a temporary array may hold.
_CHUNK_NUMBERS = 2**22


class TiledArray(abc.ABC):
    """A statistic G of shape `(inputs, units)`, as a gradient, that is known part by part.

    Attributes:
        shape: a pair of integers.
        dtype: the type of its numbers.
        row_norms, column_norms: floats of shape `(inputs,)` and `(units,)` with
            `|G[i, j]| <= row_norms[i] * column_norms[j]` up to rounding; see `balance`.
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


Values: TypeAlias = "tf.Tensor | TiledArray"
"""A statistic of a kernel's connections: a tensor that broadcasts against the kernel, or tiled."""


def tiles(values: Values, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
    """What `values` has for each of some blocks of a kernel of two axes, broadcasting likewise."""
    if isinstance(values, TiledArray):
        yield from values.tiles(blocks)
        return
    values = values[None] if values.shape.rank == 1 else values
    for rows, columns in blocks:
        tile = tf.gather(values, rows) if values.shape[0] > 1 else values
        yield tf.gather(tile, columns, axis=1) if values.shape[1] > 1 else tile


def entries(values: Values, shape: Sequence[int], indices: tf.Tensor) -> tf.Tensor:
    """What `values` has for the connections at flat indices of a kernel of `shape`."""
    if isinstance(values, TiledArray):
        return values.at(indices)
    places, stride = indices, 1
    if tuple(values.shape) != tuple(shape):
        # What is the same along an axis is not spread out for it.
        places = tf.zeros_like(indices)
        for size, whole in zip(reversed(values.shape.as_list()), reversed(shape)):
            if size > 1:
                places += indices % whole * stride
                stride *= size
            indices //= whole
    return taken(values, places)


class FactoredArray(TiledArray):
    """G = X^T D of activities X and output gradients D, held as these factors.

    They are held transposed, so that an input's or a unit's numbers lie side by side.

    Args:
        inputs: X transposed, floats of shape `(inputs, samples)`.
        output_gradients: D transposed, floats of shape `(units, samples)`, of the same dtype; a
            mean over the samples is their business.
    """

    def __init__(self, inputs: tf.Tensor, output_gradients: tf.Tensor):
        self.inputs, self.output_gradients = inputs, output_gradients
        self.shape = inputs.shape[0], output_gradients.shape[0]
        self.dtype = inputs.dtype
        self.num_terms = inputs.shape[1]
        scales = balance(_norms(inputs, axis=0), _norms(output_gradients, axis=0))
        self.row_norms = _norms(inputs, axis=1, scale=scales[0])
        self.column_norms = _norms(output_gradients, axis=1, scale=scales[1])

    def tiles(self, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
        for rows, columns in blocks:
            factors = tf.gather(self.inputs, rows), tf.gather(self.output_gradients, columns)
            yield tf.matmul(*factors, transpose_b=True)

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        rows, columns = indices // self.shape[1], indices % self.shape[1]
        chunk = max(1, _CHUNK_NUMBERS // max(1, self.num_terms))
        parts = [tf.zeros((0,), self.dtype)]
        for start in range(0, len(indices), chunk):
            pairs = slice(start, start + chunk)
            x = tf.gather(self.inputs, rows[pairs])
            parts.append(
                tf.reduce_sum(x * tf.gather(self.output_gradients, columns[pairs]), axis=1)
            )
        return tf.concat(parts, axis=0)


def balance(input_sizes: tf.Tensor, gradient_sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    r"""Scales of the samples that make the norms of X and D a close bound on X^T D.

    For any positive $s$, $G_{ij} = \sum_t (s_t x_{ti}) (d_{tj} / s_t)$, so that the norms of both
    bracketed factors bound it as well as those of x and d do. Where few samples carry most of
    the loss, as in a trained network, x is large in many samples that d hardly knows, and the
    plain bound counts them in full. The sum over all i and j of the squares of the bound is least
    for $s_t^2 = \|d_t\| / \|x_t\|$: it is then $(\sum_t \|x_t\| \|d_t\|)^2$.

    Args:
        input_sizes, gradient_sizes: floats of shape `(samples,)`, the norms of each sample's
            activities x and output gradients d.

    Returns:
        s and 1 / s, of the same shape; 0 for samples that add nothing to G.
    """
    x, d = tf.sqrt(input_sizes), tf.sqrt(gradient_sizes)
    return tf.math.divide_no_nan(d, x), tf.math.divide_no_nan(x, d)


def _norms(array: tf.Tensor, axis: int, scale: tf.Tensor | float = 1.0) -> tf.Tensor:
    """The norms of `array * scale` along `axis`, in float64: squares of float32 underflow."""
    chunk = max(1, _CHUNK_NUMBERS // max(1, array.shape[1]))
    squares = [
        tf.reduce_sum(tf.square(tf.cast(array[start : start + chunk], tf.float64) * scale), axis)
        for start in range(0, array.shape[0], chunk)
    ]
    return tf.sqrt(tf.concat(squares, axis=0) if axis == 1 else tf.add_n(squares))
