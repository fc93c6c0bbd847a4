"""An ONNX file of the grown network, for runtimes that speak neither TensorFlow nor Keras."""

import contextlib
import dataclasses
import gc
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.export.digest import NUM_DIGITS, sealed
from keras_grow.export.inference import Arrays, Convertible, Inference, Serve
from keras_grow.export.onnx_operators import HANDLERS, check_operators
from keras_grow.export.pipeline import Format, Stored, refused
from keras_grow.export.stored import StoredKernel
from keras_grow.export.verification import ExportRecord
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    data: Any = None,
    tolerance: float = 1e-5,
    opset: int | None = None,
    input_signature: Any = None,
) -> ExportRecord:
    """Writes an ONNX file of the grown network; needs `pip install "keras_grow[onnx]"`.

    Kernels are stored and computed dense, with zeros at dormant connections: ONNX has sparse
    initializers, but its runtimes hardly load them. The file is for reach, not for size; it
    compresses well (zip, gzip). Inputs and outputs are named after the model's. The batch size
    stays free, and is called "batch". The model runs at inference. Before it stands at its path,
    the file is run by ONNX Runtime and compared with the model.

    Args:
        model: a built model.
        path: the file to write, such as "grown.onnx"; an earlier ONNX file is replaced.
        data: samples to compare on; by default 64 random ones.
        tolerance: the largest error to accept.
        opset: the version of ONNX's operators; by default the one that tf2onnx prefers.
        input_signature: the `tf.TensorSpec`s of a subclassed model's inputs.

    Returns:
        What was written, and how near its outputs are to the model's.

    Raises:
        ImportError: where tf2onnx, onnx or onnxruntime is not installed.
        ValueError: for what ONNX can't express. Here and else as
            `keras_grow.formats.Format.export` says.

    Example:

    ```python
    keras_grow.export_onnx(model, "grown.onnx")
    # Elsewhere, with nothing but onnxruntime:
    session = onnxruntime.InferenceSession("grown.onnx")
    [outputs] = session.run(None, {"images": x})
    ```
    """
    return ONNX(opset).export(
        model, path, data=data, tolerance=tolerance, input_signature=input_signature
    )


@dataclasses.dataclass(frozen=True)
class ONNX(Format):
    """ONNX files, made by tf2onnx and run by ONNX Runtime.

    Args:
        opset: as `keras_grow.export_onnx` takes it.
    """

    name = "ONNX"
    runtime = "ONNX Runtime"

    opset: int | None = None

    def check(self, model: keras.Model) -> None:
        for package in ("tf2onnx.convert", "onnx", "onnxruntime"):
            _module(package)

    def is_own(self, path: str) -> bool:
        # The format has no mark of its own: what loads as a graph of operators is one.
        if not os.path.isfile(path):
            return False
        try:
            loaded = _module("onnx").load(path, load_external_data=False)
        except Exception:  # Of protobuf, by another name in each version.
            return False
        return loaded.ir_version > 0 and len(loaded.graph.node) > 0

    def convert(self, inference: Inference, path: str, samples: list[Arrays]) -> Stored:
        module = Convertible(inference)
        layers_of = "Expected layers of which tf2onnx makes ONNX's operators."
        with refused(f"ONNX can't express the model. {layers_of}"):
            converted = _converted(module, inference, self.opset)
        check_operators(converted, inference.model)
        pathlib.Path(path).write_bytes(sealed(converted.SerializeToString(), _mark()))
        paths = paths_of(inference.model, inference.layers)
        return {
            path: [_DenseKernel(layer)] for path, layer in zip(paths, inference.layers, strict=True)
        }

    def open(self, path: str) -> Serve:
        session = _module("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def call(inputs: Arrays) -> dict[str, np.ndarray]:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

        return call


class _DenseKernel(StoredKernel):
    def __init__(self, layer: Growable):
        self._layer = layer

    @property
    def words(self) -> str:
        layer = self._layer
        return f"dense {layer.variable_dtype}, with {layer.num_active:,} connections"


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"ONNX files are made with tf2onnx and checked with onnxruntime. Received: {error}. "
            'Install them with `pip install "keras_grow[onnx]"`.'
        ) from error


def _mark() -> bytes:
    """What makes an entry of the file's metadata of a digest behind it: messages are merged."""
    onnx = _module("onnx")
    entry = onnx.StringStringEntryProto(key="keras_grow_sha256", value="0" * NUM_DIGITS)
    return onnx.ModelProto(metadata_props=[entry]).SerializeToString()[:-NUM_DIGITS]


@contextlib.contextmanager
def _collected_soon() -> Iterator[Callable[[], None]]:
    """Lets Python free soon what is made inside; what it yields sets aside all that is there then.

    tf2onnx copies its whole graph, weights included, for each of a dozen passes, and leaves the
    copies in cycles. Python looks for such when objects have become a quarter more, and a million
    of TensorFlow's are there already: the copies piled up, 13 GB for a network of 0.2 GB. What is
    set aside (frozen) is not counted.
    """
    is_frozen_by_user = gc.get_freeze_count() > 0  # Who would not have it thawed.

    def set_aside() -> None:
        gc.collect()
        if not is_frozen_by_user:
            gc.freeze()

    thresholds = gc.get_threshold()
    gc.set_threshold(200, 3, 3)
    set_aside()
    try:
        yield set_aside
    finally:
        gc.set_threshold(*thresholds)
        if not is_frozen_by_user:
            gc.unfreeze()
        gc.collect()


def _converted(module: Convertible, inference: Inference, opset: int | None) -> Any:
    """The `onnx.ModelProto` of a model at inference."""
    with _collected_soon() as set_aside:

        def before_the_passes(graph: Any, operators: Any) -> Any:
            set_aside()
            return operators

        converted, _ = _module("tf2onnx.convert").from_function(
            _as_tf2onnx_takes(module, inference.specs),
            inference.specs,
            opset=opset,
            custom_op_handlers=dict(HANDLERS),
            custom_rewriter=[before_the_passes],
        )
    for tensor in [*converted.graph.input, *converted.graph.output]:
        sizes = tensor.type.tensor_type.shape.dim
        if len(sizes) and not sizes[0].HasField("dim_value"):
            sizes[0].dim_param = "batch"
    return converted


def _as_tf2onnx_takes(module: Convertible, specs: Sequence[tf.TensorSpec]) -> Any:
    """The same function without what tf2onnx stumbles over.

    Tensors that layers keep, such as numbers of positions, would be taken for inputs: they become
    constants. What must be compiled by XLA, as Keras has it for grouped convolutions on a CPU,
    would not be opened up.
    """
    traced = module.function.get_concrete_function(*specs)
    graph = traced.graph.as_graph_def()
    for nodes in (graph.node, *(each.node_def for each in graph.library.function)):
        for node in nodes:
            node.attr.pop("_XlaMustCompile", None)
    for each in graph.library.function:
        each.attr.pop("_XlaMustCompile", None)
    names = [tensor.name for tensor in traced.inputs]
    captured = traced.captured_inputs
    made = {name: tensor.name for name, tensor in traced.structured_outputs.items()}

    @tf.function(input_signature=list(specs), autograph=False)
    def call(*inputs):
        for variable in module.variables:
            variable.read_value()  # For only of what its graph has read are constants made.
        capture = tf.compat.v1.get_default_graph().capture
        kept = [capture(c) if c.dtype == tf.resource else tf.constant(c) for c in captured]
        given = dict(zip(names, [*inputs, *kept], strict=True))
        found = tf.graph_util.import_graph_def(graph, given, list(made.values()), name="model")
        return dict(zip(made, found, strict=True))

    return call
