"""A LiteRT file in memory: its constants, its operators, and its bytes."""

from typing import Any

import flatbuffers
import numpy as np

from keras_grow.export.litert_format.constants import Constant, StoredConstant
from keras_grow.export.litert_format.schema import schema

IDENTIFIER = b"TFL3"  # The bytes 4 to 8 of every LiteRT file.
_DTYPES: dict[int, np.dtype] = {
    schema.TensorType.FLOAT32: np.dtype("float32"),
    schema.TensorType.FLOAT16: np.dtype("float16"),
    schema.TensorType.INT8: np.dtype("int8"),
}
_TYPES = {dtype: kind for kind, dtype in _DTYPES.items()}
# Operators that multiply by a kernel, and which of their inputs it is.
_KERNEL_INPUT = {
    schema.BuiltinOperator.FULLY_CONNECTED: 1,
    schema.BuiltinOperator.CONV_2D: 1,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 1,
    schema.BuiltinOperator.BATCH_MATMUL: 1,
}
# The version of a fully connected operator says that its kernel is sparse; XNNPACK, which can't
# multiply by one, would take its bytes for a dense kernel's otherwise.
_SPARSE_FULLY_CONNECTED_VERSION = 8
_DENSIFY_VERSION = 1
# Of the operator that makes float32 of float16, and of int8 with a scale for each unit.
_DEQUANTIZE_VERSIONS = {np.dtype("float16"): 3, np.dtype("int8"): 5}


class LiteRTFile:
    """What a LiteRT file holds, to be changed and written again.

    Args:
        content: the bytes of the file.
    """

    def __init__(self, content: bytes):
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        # Kernels in the bodies of loops stand in further graphs, and stay as they are.
        self._graph = self._model.subgraphs[0]
        self._unpacking: list[Any] = []

    def constants(self) -> list[Constant]:
        """The constants that are used as kernels and nothing else."""
        uses: dict[int, list[tuple[int, int]]] = {}
        for operator in self._graph.operators:
            code = _builtin(self._model.operatorCodes[operator.opcodeIndex])
            for position, tensor in enumerate(operator.inputs):
                uses.setdefault(int(tensor), []).append((code, position))
        found = []
        for tensor, used in sorted(uses.items()):
            if tensor >= 0 and all(_KERNEL_INPUT.get(code) == place for code, place in used):
                values = self._constant(tensor)
                if values is not None:
                    codes = frozenset(code for code, _ in used)
                    found.append(Constant(tensor, values, codes, _unit_axis(codes, values)))
        return found

    def store(self, stored: StoredConstant) -> None:
        """Stores a constant in another form, and puts operators before its users that undo it."""
        constant, values, rows = stored.constant, stored.values, stored.rows
        tensor, position = self._graph.tensors[constant.tensor], constant.tensor
        users = [op for op in self._graph.operators if position in op.inputs]
        tensor.type = _TYPES[values.dtype]
        if stored.scales is not None:
            tensor.quantization = _quantization(stored.scales, constant.unit_axis)
        self._set_bytes(tensor, values if rows is None else rows.values)
        if rows is not None:
            tensor.sparsity = rows.parameters()
            if stored.is_computed_sparsely:
                code = schema.BuiltinOperator.FULLY_CONNECTED
                for user in users:
                    user.opcodeIndex = self._opcode(code, _SPARSE_FULLY_CONNECTED_VERSION)
            else:
                position = self._computed_from(
                    position, values.dtype, schema.BuiltinOperator.DENSIFY, _DENSIFY_VERSION
                )
        if values.dtype != constant.values.dtype:
            position = self._computed_from(
                position,
                constant.values.dtype,
                schema.BuiltinOperator.DEQUANTIZE,
                _DEQUANTIZE_VERSIONS[values.dtype],
            )
        for user in users:
            user.inputs = np.where(user.inputs == constant.tensor, position, user.inputs)

    def to_bytes(self) -> bytes:
        """The file, without names and notes that nothing needs to run it."""
        self._graph.operators = [*self._unpacking, *self._graph.operators]
        self._unpacking = []
        self._model.metadata = None
        self._model.description = None
        self._strip_tensors()
        self._merge_buffers()
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _opcode(self, code: int, version: int) -> int:
        """The position of an operator's code, which is added where it is not there yet."""
        for position, known in enumerate(self._model.operatorCodes):
            if _builtin(known) == code and known.version == version:
                return position
        added = schema.OperatorCodeT()
        added.builtinCode = code
        added.deprecatedBuiltinCode = min(code, 127)
        added.version = version
        self._model.operatorCodes.append(added)
        return len(self._model.operatorCodes) - 1

    def _constant(self, position: int) -> np.ndarray | None:
        tensor = self._graph.tensors[position]
        data = self._model.buffers[tensor.buffer].data
        is_known = tensor.type in _DTYPES and tensor.shape is not None and len(tensor.shape) >= 2
        if data is None or not is_known or tensor.sparsity is not None:
            return None
        flat = np.frombuffer(np.asarray(data, np.uint8).tobytes(), _DTYPES[tensor.type])
        return flat.reshape(tensor.shape)

    def _set_bytes(self, tensor: Any, values: np.ndarray) -> None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor.buffer = len(self._model.buffers) - 1

    def _computed_from(self, position: int, dtype: np.dtype, code: int, version: int) -> int:
        """The position of a new tensor that an operator makes of another one."""
        source = self._graph.tensors[position]
        made = schema.TensorT()
        made.shape = source.shape
        made.type = _TYPES[np.dtype(dtype)]
        made.quantization = source.quantization if made.type == source.type else None
        self._graph.tensors.append(made)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._opcode(code, version)
        operator.inputs = np.array([position], np.int32)
        operator.outputs = np.array([len(self._graph.tensors) - 1], np.int32)
        self._unpacking.append(operator)
        return len(self._graph.tensors) - 1

    def _strip_tensors(self) -> None:
        for graph in self._model.subgraphs:
            graph.name = None
            for tensor in graph.tensors:
                tensor.name = None
                if tensor.quantization is not None and tensor.quantization.scale is None:
                    tensor.quantization = None
        for signature in self._model.signatureDefs or []:
            tensors = self._model.subgraphs[signature.subgraphIndex].tensors
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                tensors[entry.tensorIndex].name = entry.name

    def _merge_buffers(self) -> None:
        """Leaves the buffers that a tensor needs, and one empty one for all that are computed."""
        merged: list[Any] = [schema.BufferT()]
        moved: dict[int, int] = {}
        for graph in self._model.subgraphs:
            for tensor in graph.tensors:
                if tensor.buffer not in moved:
                    data = self._model.buffers[tensor.buffer].data
                    if data is None:
                        moved[tensor.buffer] = 0
                    else:
                        moved[tensor.buffer] = len(merged)
                        merged.append(_AlignedBuffer(data))
                tensor.buffer = moved[tensor.buffer]
        self._model.buffers = merged


class _AlignedBuffer(schema.BufferT):
    """A buffer whose bytes begin at a multiple of 16, which Python's packing does not see to."""

    def __init__(self, data: np.ndarray):
        super().__init__()
        self.data = data

    def Pack(self, builder):  # noqa: N802
        builder.Prep(16, len(self.data))
        return super().Pack(builder)


def _builtin(code: Any) -> int:
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _unit_axis(codes: frozenset[int], values: np.ndarray) -> int:
    units_last = {schema.BuiltinOperator.DEPTHWISE_CONV_2D, schema.BuiltinOperator.BATCH_MATMUL}
    return values.ndim - 1 if codes & units_last else 0


def _quantization(scales: np.ndarray, axis: int) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = scales.astype(np.float32)
    quantization.zeroPoint = np.zeros(len(scales), np.int64)
    quantization.quantizedDimension = axis
    return quantization
