"""A LiteRT file of the grown network, small on disk and fast for one sample."""

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.compatibility import check_is_keras_model
from keras_grow.export.litert_format.file import IDENTIFIER, Kernel, LiteRTFile
from keras_grow.export.litert_format.storage import Storage, choose, choose_integers, store
from keras_grow.export.quiet import silent
from keras_grow.export.samples import Batch, batches, expected_outputs, outputs_of
from keras_grow.export.signature import input_signature as signature_of
from keras_grow.export.tracing import TracedModel, trace
from keras_grow.export.verification import ExportRecord, check
from keras_grow.export.writing import num_bytes, written_beside
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import layer_paths

# The largest error of float32, and of the unpacking of other types.
_FLOAT32_TOLERANCE = 1e-5
_TOLERANCES = {"float32": _FLOAT32_TOLERANCE, "float16": 5e-3, "int8": None}


def export_litert(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    dtype: str = "float32",
    calibration_data: Any = None,
    data: Any = None,
    tolerance: float | None = None,
    min_agreement: float | None = None,
    input_signature: Any = None,
) -> ExportRecord:
    """Writes a LiteRT (TensorFlow Lite) file of the grown network, for phones and small devices.

    Dormant connections take no space. Each kernel is stored sparse (compressed sparse rows) where
    that takes fewer bytes. In float32, a sparse kernel of a dense layer with at most 5% of its
    connections is also computed sparsely, which is about where that gets faster for one sample;
    other sparse kernels are made dense once, when the file is loaded. The record's `storages` say
    which is which. Files of float16 and int8 kernels are for ai-edge-litert: TensorFlow 2.21's own
    interpreter has been seen to compute wrong numbers from them. Names of inputs and outputs in the
    signature are the model's. The batch size stays free. The model runs at inference.

    Before it is written, the file is run by LiteRT's own interpreter (of `ai-edge-litert` if that
    is installed, else of TensorFlow) and compared with the model.

    Args:
        model: a built model.
        path: the file to write, such as "grown.tflite". An earlier LiteRT file there is replaced,
            in one step at the end.
        dtype: of the stored kernels: "float32"; "float16"; or "int8", with a scale for each unit
            (float16 where that is smaller). The product is float32 in each case. Kernels in
            float16 and int8 are made dense float32 when loaded: smaller files, not faster ones.
        calibration_data: goes with dtype="int8": samples, in the structure of the model's inputs,
            on which the ranges of activations are measured. With it, kernels and activations are
            multiplied in int8; inputs and outputs stay float32. Fast on integer hardware, but
            kernels of dense layers are stored dense, as LiteRT can't load them otherwise.
        data: samples to compare on, in the structure of the model's inputs; by default the
            `calibration_data`, or 64 samples of normal numbers.
        tolerance: the largest error to accept, max|a - b| / max|b| over the outputs; by default
            1e-5 for float32, 5e-3 for float16, and any for int8.
        min_agreement: the share of predictions that must be the same; by default 0.9 for int8,
            and 0 for others.
        input_signature: for subclassed models, which do not know their inputs: the structure of
            `tf.TensorSpec` that the model takes, each with a name.

    Returns:
        What was written, and how near its outputs are to the model's.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ImportError: for float16 and int8, where ai-edge-litert is not installed to check them.
        NotVerified: where the file does not compute what the model does. It is not written.
        ValueError: for a model that TensorFlow can't trace or LiteRT can't express, such as one
            with recurrent layers that are not unrolled, partial-area convolutions, or layers that
            compute in another type than float32; weights that are NaN or infinite; and a `path`
            at which something else than a LiteRT file stands.
        OSError: where `path` can't be written.

    Example:

    ```python
    keras_grow.export_litert(model, "grown.tflite")
    # Elsewhere, with nothing but ai-edge-litert:
    run = ai_edge_litert.interpreter.Interpreter("grown.tflite").get_signature_runner()
    outputs = run(images=x)
    ```
    """
    check_is_keras_model(model)
    _check_arguments(dtype, calibration_data)
    _check_computes_in_float32(model)
    if dtype != "float32":
        _check_has_runtime(dtype)
    signature = signature_of(model) if input_signature is None else input_signature
    if tolerance is None:
        tolerance = _TOLERANCES[dtype]
    if min_agreement is None:
        min_agreement = 0.9 if dtype == "int8" else 0.0
    with written_beside(path, _is_litert, "earlier LiteRT files") as written:
        traced = trace(model, signature)
        content = _converted(traced, calibration_data)
        choice: Callable[[Kernel], Storage] = choose_integers
        if calibration_data is None:
            choice = functools.partial(choose, dtype=dtype)
        stored = [(kernel, choice(kernel)) for kernel in LiteRTFile(content).kernels()]
        packed = _packed(content, stored)
        samples = batches(traced, signature, calibration_data if data is None else data)
        outputs = _run(packed, traced, samples)
        if dtype != "float32" and calibration_data is None:
            rounded = [(kernel, Storage(form.unpacked(), None)) for kernel, form in stored]
            reference = _run(_packed(content, rounded), traced, samples)
            check(outputs, reference, _FLOAT32_TOLERANCE, 0.0, "unpacking of the LiteRT file")
        expected = expected_outputs(model, traced, signature, samples)
        error, agreement = check(outputs, expected, tolerance, min_agreement, "LiteRT file")
        with open(written, "wb") as file:
            file.write(packed)
    by_layer = _forms_by_layer(model, stored)
    return ExportRecord(
        path=os.path.abspath(os.fspath(path)),
        format="LiteRT",
        num_bytes=num_bytes(path),
        storages={name: _words(forms) for name, forms in by_layer.items()},
        error=error,
        tolerance=tolerance,
        agreement=agreement,
        computed_sparsely=tuple(
            name
            for name, forms in by_layer.items()
            if forms and all(form.is_computed_sparsely for form in forms)
        ),
    )


def _check_arguments(dtype: Any, calibration_data: Any) -> None:
    if dtype not in _TOLERANCES:
        raise ValueError(f"`dtype` must be one of {list(_TOLERANCES)}. Received: dtype={dtype!r}")
    if calibration_data is not None and dtype != "int8":
        raise ValueError(
            "`calibration_data` measures the ranges of int8 activations. Received: "
            f"calibration_data with dtype={dtype!r}. Pass dtype='int8', or leave it out."
        )


def _check_computes_in_float32(model: keras.Model) -> None:
    others = {
        path: layer.compute_dtype
        for layer, path in layer_paths(model).items()
        if layer.compute_dtype not in (None, "float32")
    }
    if others:
        raise ValueError(
            "LiteRT's operators compute in float32. Received: layers that compute in other types, "
            f"{others}. Build the model with dtype='float32', and give it these weights with "
            "`set_weights`."
        )


def _check_has_runtime(dtype: str) -> None:
    try:
        importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise ImportError(
            "LiteRT files of float16 and int8 kernels are checked with ai-edge-litert, as "
            f"TensorFlow's own interpreter can't be trusted with them. Received: dtype={dtype!r}, "
            'and no ai-edge-litert. Install it with `pip install "keras_grow[litert]"`.'
        ) from error


def _is_litert(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(8)[4:] == IDENTIFIER


def _converted(traced: TracedModel, calibration_data: Any) -> bytes:
    """A LiteRT file with dense kernels."""
    module = tf.Module()
    module.function = traced.function
    function = traced.function.get_concrete_function()
    try:
        with silent():
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
            if calibration_data is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: _single(traced, calibration_data)
            return converter.convert()
    except Exception as error:  # The converter has many errors, and none of its own kind.
        raise ValueError(
            "LiteRT can't express the model. Expected layers of which TensorFlow's converter "
            "makes LiteRT's built-in operators; recurrent layers have `unroll=True`. Received: "
            # What follows is the converter's view of this file.
            f"{str(error).splitlines()[0]}"
        ) from error


def _single(traced: TracedModel, inputs: Any) -> Iterator[Batch]:
    named = traced.named(inputs)
    for i in range(min(len(array) for array in named.values())):
        yield {name: array[i : i + 1] for name, array in named.items()}


def _packed(content: bytes, stored: list[tuple[Kernel, Storage]]) -> bytes:
    file = LiteRTFile(content)
    for kernel, form in stored:
        store(file, kernel, form)
    return file.to_bytes()


def _run(content: bytes, traced: TracedModel, samples: list[Batch]) -> list[np.ndarray]:
    """The outputs of a file, in the order of the model's."""
    try:
        with silent():
            runner = _interpreter(content).get_signature_runner()

            def run(batch: Batch) -> list[np.ndarray]:
                outputs = runner(**batch)
                return [outputs[name] for name in traced.output_names]

            return outputs_of(run, samples)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            "LiteRT's interpreter can't run the file that was made of the model, and it was not "
            f"written. Received: {error}"
        ) from error


def _interpreter(content: bytes) -> Any:
    try:
        module = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        with warnings.catch_warnings():
            # It says that it moves to ai-edge-litert, which is not installed.
            warnings.simplefilter("ignore")
            return tf.lite.Interpreter(model_content=content)
    return module.Interpreter(model_content=content)


def _forms_by_layer(
    model: keras.Model, stored: list[tuple[Kernel, Storage]]
) -> dict[str, list[Storage]]:
    """The forms of the constants that were made of each growable layer's kernel."""
    found = {}
    for layer, path in layer_paths(model).items():
        if isinstance(layer, Growable):
            kernel = layer.effective_kernel().numpy()
            found[path] = [form for made, form in stored if _is_made_of(made, kernel)]
    return found


def _words(forms: list[Storage]) -> str:
    return ", and ".join(dict.fromkeys(map(str, forms))) or "folded into other constants"


def _is_made_of(constant: Kernel, kernel: np.ndarray) -> bool:
    """Whether a constant of the file is a layer's kernel.

    Its axes are in LiteRT's order. The converter folds a batch normalisation before or behind a
    layer into its kernel, and multiplies inputs or units with it: zeros stay where they are.
    """
    axis, values = constant.unit_axis, constant.values
    if values.size != kernel.size or values.shape[axis] != kernel.shape[-1]:
        return False
    kernel = np.moveaxis(kernel, -1, axis).reshape(values.shape)
    in_file, in_layer = values != 0, kernel != 0
    if not in_layer.all():
        # In int8, the smallest weights become 0.
        common, either = np.sum(in_file & in_layer), np.sum(in_file | in_layer)
        return bool(common >= 0.9 * either)
    return bool(np.max(np.abs(_profile(values, axis) - _profile(kernel, axis))) < 0.01)


def _profile(values: np.ndarray, axis: int) -> np.ndarray:
    """Absolute values relative to the largest of each unit."""
    magnitudes = np.abs(values.astype(np.float32))
    others = tuple(i for i in range(values.ndim) if i != axis)
    return magnitudes / magnitudes.max(axis=others, keepdims=True)
