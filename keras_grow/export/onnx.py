"""An ONNX file of the grown network, for runtimes that speak neither TensorFlow nor Keras."""

import importlib
import os
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_grow.compatibility import check_is_keras_model
from keras_grow.export.quiet import silent
from keras_grow.export.samples import Batch, batches, expected_outputs, outputs_of
from keras_grow.export.signature import input_signature as signature_of
from keras_grow.export.tracing import TracedModel, trace
from keras_grow.export.verification import ExportRecord, check
from keras_grow.export.writing import num_bytes, written_beside
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import layer_paths


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
    initialisers, but its runtimes hardly load them. The file is for reach, not for size; it
    compresses well (zip, gzip). Inputs and outputs are named after the model's. The batch size
    stays free, and is called "batch". The model runs at inference.

    Before it is written, the file is run by ONNX Runtime and compared with the model.

    Args:
        model: a built model.
        path: the file to write, such as "grown.onnx". An earlier ONNX file there is replaced, in
            one step at the end.
        data: samples to compare on, in the structure of the model's inputs; by default 64 of
            normal numbers.
        tolerance: the largest error to accept, max|a - b| / max|b| over the outputs.
        opset: the version of ONNX's operators; by default the one that tf2onnx prefers.
        input_signature: for subclassed models, which do not know their inputs: the structure of
            `tf.TensorSpec` that the model takes, each with a name.

    Returns:
        What was written, and how near its outputs are to the model's.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ImportError: where tf2onnx, onnx or onnxruntime is not installed.
        NotVerified: where the file does not compute what the model does. It is not written.
        ValueError: for a model that TensorFlow can't trace or ONNX can't express, weights that
            are NaN or infinite, and a `path` at which something else than an ONNX file stands.
        OSError: where `path` can't be written.

    Example:

    ```python
    keras_grow.export_onnx(model, "grown.onnx")
    # Elsewhere, with nothing but onnxruntime:
    session = onnxruntime.InferenceSession("grown.onnx")
    [outputs] = session.run(None, {"images": x})
    ```
    """
    check_is_keras_model(model)
    tf2onnx, onnx, onnxruntime = map(_module, ("tf2onnx.convert", "onnx", "onnxruntime"))
    signature = signature_of(model) if input_signature is None else input_signature

    def is_onnx(path: str) -> bool:
        return _is_onnx(onnx, path)

    with written_beside(path, is_onnx, "earlier ONNX files") as written:
        traced = trace(model, signature)
        content = _converted(tf2onnx, traced, opset)
        samples = batches(traced, signature, data)
        outputs = _run(onnxruntime, content, traced, samples)
        expected = expected_outputs(model, traced, signature, samples)
        error, agreement = check(outputs, expected, tolerance, 0.0, "ONNX file")
        with open(written, "wb") as file:
            file.write(content)
    return ExportRecord(
        path=os.path.abspath(os.fspath(path)),
        format="ONNX",
        num_bytes=num_bytes(path),
        storages={
            path: f"dense {layer.variable_dtype}, with {layer.num_active:,} connections"
            for layer, path in layer_paths(model).items()
            if isinstance(layer, Growable)
        },
        error=error,
        tolerance=tolerance,
        agreement=agreement,
    )


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"ONNX files are made with tf2onnx and checked with onnxruntime. Received: {error}. "
            'Install them with `pip install "keras_grow[onnx]"`.'
        ) from error


def _is_onnx(onnx: ModuleType, path: str) -> bool:
    # The format has no mark of its own: what loads as a graph of operators is one.
    if not os.path.isfile(path):
        return False
    try:
        loaded = onnx.load(path, load_external_data=False)
    except Exception:  # Of protobuf, by another name in each version.
        return False
    return loaded.ir_version > 0 and len(loaded.graph.node) > 0


def _converted(tf2onnx: ModuleType, traced: TracedModel, opset: int | None) -> bytes:
    try:
        with silent():
            converted, _ = tf2onnx.from_function(
                traced.function,
                traced.signature,
                opset=opset,
                custom_op_handlers={"Erfc": (_complementary_error_function, [])},
            )
            for tensor in [*converted.graph.input, *converted.graph.output]:
                sizes = tensor.type.tensor_type.shape.dim
                if len(sizes) and not sizes[0].HasField("dim_value"):
                    sizes[0].dim_param = "batch"
            return converted.SerializeToString()
    except Exception as error:  # The converter has many errors, and none of its own kind.
        raise ValueError(
            "ONNX can't express the model. Expected layers of which tf2onnx makes ONNX's "
            f"operators. Received: {type(error).__name__}: {error}"
        ) from error


def _complementary_error_function(graph: Any, node: Any, name: str, args: Any) -> None:
    """Erfc, of which `keras.activations.gelu` is made and which ONNX has not, as 1 - Erf."""
    utils = _module("tf2onnx.utils")
    dtype, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    graph.remove_node(node.name)
    one = graph.make_const(utils.make_name(name), np.ones((), utils.map_onnx_to_numpy_type(dtype)))
    erf = graph.make_node("Erf", node.input, shapes=[shape], dtypes=[dtype])
    graph.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        outputs=node.output,
        name=node.name,
        shapes=[shape],
        dtypes=[dtype],
    )


def _run(
    onnxruntime: ModuleType, content: bytes, traced: TracedModel, samples: list[Batch]
) -> list[Any]:
    """The outputs of a file, in the order of the model's."""
    try:
        with silent():
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            return outputs_of(lambda batch: session.run(traced.output_names, batch), samples)
    except Exception as error:  # ONNX Runtime's errors share nothing but this.
        raise ValueError(
            "ONNX Runtime can't run the file that was made of the model, and it was not written. "
            f"Received: {error}"
        ) from error
