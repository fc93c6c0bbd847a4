"""In which form a LiteRT file stores each constant that operators multiply by."""

import dataclasses

import numpy as np

from keras_grow.export.litert_format.schema import schema
from keras_grow.export.litert_format.sparsity import CompressedRows, compress, smallest
from keras_grow.export.stored import StoredKernel

# A fully connected operator of LiteRT takes about 0.9 ns for each stored connection at batch 1,
# and 0.04 to 0.13 ns for each of a dense kernel (ai-edge-litert 2.3.0 with XNNPACK, one thread of
# an x86-64). Both cost alike at densities between 3% and 12%; at 5%, seven shapes from 64 x 64 to
# 4096 x 4096 took 0.4 to 1.1 times what they take dense.
_LARGEST_DENSITY_COMPUTED_SPARSELY = 0.05
# Of an operator that makes float32 of another type, and of the tensor that it makes.
_DEQUANTIZE_BYTES = 100
# A scale, and a zero point of 0 that LiteRT wants beside it.
_BYTES_PER_SCALE = 4 + 8


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant by which operators multiply, as the converter wrote it.

    Attributes:
        tensor: its position among the tensors.
        values: float32, float16 or int8 array, units first for fully connected operators and
            convolutions.
        operators: the `schema.BuiltinOperator`s that use it, a set.
        unit_axis: the axis of its units.
    """

    tensor: int
    values: np.ndarray
    operators: frozenset[int]
    unit_axis: int


@dataclasses.dataclass(frozen=True)
class StoredConstant(StoredKernel):
    """The form in which a constant is stored.

    Attributes:
        constant: which one.
        values: float32, float16 or int8, in the constant's shape.
        rows: the values compressed, or `None` where they are stored as they are.
        scales: of each unit, for int8 in the place of float32.
        is_computed_sparsely: whether its users, fully connected operators, take the sparse kernel
            as it is; others have it made dense when the file is loaded.
    """

    constant: Constant
    values: np.ndarray
    rows: CompressedRows | None = None
    scales: np.ndarray | None = None
    is_computed_sparsely: bool = False

    @property
    def num_bytes(self) -> int:
        """What it takes in the file."""
        count = self.values.nbytes if self.rows is None else self.rows.num_bytes
        count += 0 if self.values.dtype == "float32" else _DEQUANTIZE_BYTES
        return count + (0 if self.scales is None else _BYTES_PER_SCALE * len(self.scales))

    def unpacked(self) -> np.ndarray:
        """The kernel that is multiplied by at run time, float32."""
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * _along(self.scales, self.constant)

    @property
    def words(self) -> str:
        if self.rows is None:
            return f"dense {self.values.dtype}"
        how = "computed sparsely" if self.is_computed_sparsely else "made dense when loaded"
        count = np.count_nonzero(self.values)
        return f"{count:,} of {self.values.size:,} connections in {self.values.dtype}, {how}"


def choose(constant: Constant, dtype: str) -> StoredConstant:
    """The form of a float32 constant, by one rule for each dtype.

    It is stored sparse where that takes fewer bytes. A sparse kernel of fully connected operators
    is computed sparsely in float32, if that is expected to be no slower for one sample; all others
    are made dense once, when the file is loaded. With a smaller dtype, the form of fewest bytes is
    taken, the more precise one of equals: in int8, with a scale for each unit, units of fewer than
    about 12 connections would take more than in float16.
    """
    forms = [_float32(constant)]
    if dtype in ("float16", "int8"):
        with np.errstate(over="ignore"):
            halves = constant.values.astype(np.float16)
        forms.append(StoredConstant(constant, halves, smallest(halves)))
    if dtype == "int8":
        forms.append(_int8(constant))
    return min(forms, key=lambda form: form.num_bytes)


def choose_integers(constant: Constant) -> StoredConstant:
    """The form of an int8 constant that is multiplied by int8 activations.

    Those of convolutions are stored sparse where that takes fewer bytes. LiteRT (2.3.0) does not
    load fully connected operators of int8 behind an operator that makes their kernel dense.
    """
    is_convolution = constant.operators == {schema.BuiltinOperator.CONV_2D}
    rows = smallest(constant.values) if is_convolution else None
    return StoredConstant(constant, constant.values, rows)


def _float32(constant: Constant) -> StoredConstant:
    values, rows = constant.values, smallest(constant.values)
    is_fully_connected = constant.operators == {schema.BuiltinOperator.FULLY_CONNECTED}
    most = int(_LARGEST_DENSITY_COMPUTED_SPARSELY * values.size)
    if rows is None or not is_fully_connected or np.count_nonzero(values) > most:
        return StoredConstant(constant, values, rows)
    # The operator reads rows of units only, whichever axis takes the fewest bytes.
    return StoredConstant(constant, values, compress(values, 1), is_computed_sparsely=True)


def _int8(constant: Constant) -> StoredConstant:
    values = constant.values
    others = tuple(axis for axis in range(values.ndim) if axis != constant.unit_axis)
    largest = np.max(np.abs(values), axis=others)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    integers = np.clip(np.rint(values / _along(scales, constant)), -127, 127).astype(np.int8)
    return StoredConstant(constant, integers, smallest(integers), scales)


def _along(values: np.ndarray, constant: Constant) -> np.ndarray:
    """One number for each unit, to be multiplied with the constant."""
    shape = [1] * constant.values.ndim
    shape[constant.unit_axis] = -1
    return values.reshape(shape)
