"""How LiteRT stores a sparse kernel, and when that is smaller than a dense one."""

import dataclasses
from typing import Any

import numpy as np

from keras_grow.export.litert_format.schema import schema

# Bytes of the tables around a sparse tensor, and of the operator that makes it dense.
_OVERHEAD = 200
_VECTORS: list[tuple[Any, int, Any]] = [
    (np.uint8, schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    (np.uint16, schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    (np.int32, schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
]


@dataclasses.dataclass(frozen=True)
class CompressedRows:
    """A tensor in compressed sparse rows, along one of its axes.

    Attributes:
        values: what is stored, row by row: the entries that are not 0, or a single 0 where all
            are, because LiteRT takes a tensor without bytes for one that is computed.
        positions: the place of each along `axis`.
        segments: where each row begins in `values`, and where the last one ends. A row is a place
            along the other axes, in their order.
        axis: along which zeros are left out.
        shape: of the tensor.
    """

    values: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    axis: int
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """What they take in a file."""
        indices = sum(x.size * _smallest(x)[0]().itemsize for x in (self.positions, self.segments))
        return self.values.nbytes + indices + _OVERHEAD

    def parameters(self) -> Any:
        """What LiteRT needs to know beside the values, an object of its schema."""
        others = [axis for axis in range(len(self.shape)) if axis != self.axis]
        dimensions = []
        for axis in others:
            dense = schema.DimensionMetadataT()
            dense.format = schema.DimensionType.DENSE
            dense.denseSize = self.shape[axis]
            dimensions.append(dense)
        sparse = schema.DimensionMetadataT()
        sparse.format = schema.DimensionType.SPARSE_CSR
        sparse.arraySegmentsType, sparse.arraySegments = _vector(self.segments)
        sparse.arrayIndicesType, sparse.arrayIndices = _vector(self.positions)
        parameters = schema.SparsityParametersT()
        parameters.traversalOrder = np.array([*others, self.axis], np.int32)
        parameters.blockMap = np.zeros(0, np.int32)
        parameters.dimMetadata = [*dimensions, sparse]
        return parameters


def compress(tensor: np.ndarray, axis: int = -1) -> CompressedRows:
    """`tensor` in compressed sparse rows along `axis`."""
    axis %= tensor.ndim
    rows = np.moveaxis(tensor, axis, -1).reshape(-1, tensor.shape[axis])
    row, position = np.nonzero(rows)
    if not len(row):
        row, position = np.zeros(1, np.int64), np.zeros(1, np.int64)
    counts = np.bincount(row, minlength=len(rows))
    return CompressedRows(
        values=rows[row, position],
        positions=position,
        segments=np.concatenate([[0], np.cumsum(counts)]),
        axis=axis,
        shape=tensor.shape,
    )


def smallest(tensor: np.ndarray) -> CompressedRows | None:
    """`tensor` in compressed rows along the axis that takes the fewest bytes.

    `None` where it takes no more bytes as it is. Of equal axes the last one is taken.
    """
    num_active = np.count_nonzero(tensor)
    # The values alone, without a place, would take as many bytes: don't try each axis in vain.
    if num_active * (tensor.itemsize + 1) + _OVERHEAD >= tensor.nbytes:
        return None
    axes = reversed(range(tensor.ndim))
    best = min((compress(tensor, axis) for axis in axes), key=lambda rows: rows.num_bytes)
    return best if best.num_bytes < tensor.nbytes else None


def _smallest(values: np.ndarray) -> tuple[Any, int, Any]:
    largest = values.max(initial=0)
    return next(entry for entry in _VECTORS if largest <= np.iinfo(entry[0]).max)


def _vector(values: np.ndarray) -> tuple[int, Any]:
    dtype, kind, make = _smallest(values)
    vector = make()
    vector.values = values.astype(dtype)
    return kind, vector
