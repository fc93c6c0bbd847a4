"""In which form a LiteRT file stores each kernel."""

import dataclasses

import numpy as np

from keras_grow.export.litert_format.file import Kernel, LiteRTFile
from keras_grow.export.litert_format.schema import schema
from keras_grow.export.litert_format.sparsity import (
    CompressedRows,
    compress,
    is_faster_sparse,
    smallest,
)

# Of an operator that makes float32 of another type, and of the tensor that it makes.
_DEQUANTIZE_BYTES = 100
# A scale, and a zero point of 0 that LiteRT wants beside it.
_BYTES_PER_SCALE = 4 + 8


@dataclasses.dataclass(frozen=True)
class Storage:
    """A form of a kernel in a file.

    Attributes:
        values: float32, float16 or int8, in the kernel's shape.
        rows: the values compressed, or `None` where they are stored as they are.
        scales: of each unit, for int8 in the place of float32.
        unit_axis: the axis of the units.
        is_computed_sparsely: whether the product runs over the stored connections alone.
    """

    values: np.ndarray
    rows: CompressedRows | None
    scales: np.ndarray | None = None
    unit_axis: int = 0
    is_computed_sparsely: bool = False

    @property
    def num_bytes(self) -> int:
        count = self.values.nbytes if self.rows is None else self.rows.num_bytes
        count += 0 if self.values.dtype == "float32" else _DEQUANTIZE_BYTES
        return count + (0 if self.scales is None else _BYTES_PER_SCALE * len(self.scales))

    def unpacked(self) -> np.ndarray:
        """The kernel that is multiplied by at run time, float32."""
        values = self.values.astype(np.float32)
        if self.scales is None:
            return values
        return values * _along(self.scales, values.ndim, self.unit_axis)

    def __str__(self) -> str:
        if self.rows is None:
            return f"dense {self.values.dtype}"
        how = "computed sparsely" if self.is_computed_sparsely else "made dense when loaded"
        count = np.count_nonzero(self.values)
        return f"{count:,} of {self.values.size:,} connections in {self.values.dtype}, {how}"


def choose(kernel: Kernel, dtype: str) -> Storage:
    """The form of a float32 kernel, by one rule for each dtype.

    A kernel is stored sparse where that takes fewer bytes. A sparse kernel of fully connected
    operators is computed sparsely in float32, if that is expected to be no slower for one sample
    (`is_faster_sparse`); all others are made dense once, when the file is loaded. With a smaller
    dtype, the form of fewest bytes is taken, the more precise one of equals: in int8, with a scale
    for each unit, units of fewer than about 12 connections would take more than in float16.
    """
    values = kernel.values
    forms = [_float32(kernel)]
    if dtype in ("float16", "int8"):
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        forms.append(Storage(halves, smallest(halves)))
    if dtype == "int8":
        forms.append(_int8(values, kernel.unit_axis))
    return min(forms, key=lambda form: form.num_bytes)


def choose_integers(kernel: Kernel) -> Storage:
    """The form of an int8 kernel that is multiplied by int8 activations.

    Those of convolutions are stored sparse where that takes fewer bytes. LiteRT (2.3.0) does not
    load fully connected operators of int8 behind an operator that makes their kernel dense.
    """
    is_convolution = kernel.operators == {schema.BuiltinOperator.CONV_2D}
    return Storage(kernel.values, smallest(kernel.values) if is_convolution else None)


def store(file: LiteRTFile, kernel: Kernel, storage: Storage) -> None:
    """Puts a kernel into its form."""
    file.store(kernel, storage.values, storage.rows, storage.scales, storage.is_computed_sparsely)


def _float32(kernel: Kernel) -> Storage:
    rows = smallest(kernel.values)
    is_fully_connected = kernel.operators == {schema.BuiltinOperator.FULLY_CONNECTED}
    if rows is None or not is_fully_connected or not is_faster_sparse(kernel.values):
        return Storage(kernel.values, rows)
    # The operator reads rows of units only, whichever axis takes the fewest bytes.
    return Storage(kernel.values, compress(kernel.values, 1), is_computed_sparsely=True)


def _int8(values: np.ndarray, unit_axis: int) -> Storage:
    others = tuple(axis for axis in range(values.ndim) if axis != unit_axis)
    largest = np.max(np.abs(values), axis=others)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    integers = np.rint(values / _along(scales, values.ndim, unit_axis))
    integers = np.clip(integers, -127, 127).astype(np.int8)
    return Storage(integers, smallest(integers), scales, unit_axis)


def _along(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)
