"""A LiteRT file of the grown network, small on disk and fast for one sample."""

import dataclasses
import functools
import importlib
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.export.digest import sealed
from keras_grow.export.inference import Arrays, Convertible, Inference, Serve
from keras_grow.export.litert_format.constants import (
    Constant,
    StoredConstant,
    choose,
    choose_integers,
)
from keras_grow.export.litert_format.file import IDENTIFIER, LiteRTFile
from keras_grow.export.litert_format.origin import by_layer
from keras_grow.export.pipeline import Format, Stored, refused
from keras_grow.export.verification import ExportRecord, check
from keras_grow.layers.paths import layer_paths

# Before the digest, behind all that a file's readers follow from its first bytes.
_MARK = b"keras_grow SHA-256 "
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

    Before it stands at its path, the file is run by LiteRT's own interpreter (of `ai-edge-litert`
    if that is installed, else of TensorFlow) and compared with the model.

    Args:
        model: a built model.
        path: the file to write, such as "grown.tflite"; an earlier LiteRT file is replaced.
        dtype: of the stored kernels: "float32"; "float16"; or "int8", with a scale for each unit
            (float16 where that is smaller). The product is float32 in each case. Kernels in
            float16 and int8 are made dense float32 when loaded: smaller files, not faster ones.
        calibration_data: goes with dtype="int8": samples, in the structure of the model's inputs,
            on which the ranges of activations are measured. With it, kernels and activations are
            multiplied in int8; inputs and outputs stay float32. Fast on integer hardware, but
            kernels of dense layers are stored dense, as LiteRT can't load them otherwise.
        data: samples to compare on; by default the `calibration_data`, or 64 random ones.
        tolerance: the largest error to accept; by default 1e-5 for float32, 5e-3 for float16, and
            any for int8.
        min_agreement: the share of predictions that must be the same; by default 0.9 for int8.
        input_signature: the `tf.TensorSpec`s of a subclassed model's inputs.

    Returns:
        What was written, and how near its outputs are to the model's.

    Raises:
        ImportError: for float16 and int8, where ai-edge-litert is not installed to check them.
        ValueError: for what LiteRT can't express: recurrent layers that are not unrolled,
            partial-area convolutions, layers that compute in another type than float32. Here and
            else as `keras_grow.formats.Format.export` says.

    Example:

    ```python
    keras_grow.export_litert(model, "grown.tflite")
    # Elsewhere, with nothing but ai-edge-litert:
    run = ai_edge_litert.interpreter.Interpreter("grown.tflite").get_signature_runner()
    outputs = run(images=x)
    ```
    """
    return LiteRT(dtype, calibration_data).export(
        model,
        path,
        data=data,
        tolerance=tolerance,
        min_agreement=min_agreement,
        input_signature=input_signature,
    )


@dataclasses.dataclass(frozen=True)
class LiteRT(Format):
    """LiteRT files, made by TensorFlow's converter and packed by hand.

    Args:
        dtype, calibration_data: as `keras_grow.export_litert` takes them.
    """

    name = "LiteRT"
    runtime = "LiteRT's interpreter"

    dtype: str = "float32"
    calibration_data: Any = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if self.dtype not in _TOLERANCES:
            raise ValueError(
                f"`dtype` must be one of {list(_TOLERANCES)}. Received: dtype={self.dtype!r}"
            )
        if self.calibration_data is not None and self.dtype != "int8":
            raise ValueError(
                "`calibration_data` measures the ranges of int8 activations. Received: "
                f"calibration_data with dtype={self.dtype!r}. Pass dtype='int8', or leave it out."
            )

    @property
    def label(self) -> str:
        calibrated = "" if self.calibration_data is None else ", calibrated"
        return "LiteRT" if self.dtype == "float32" else f"LiteRT {self.dtype}{calibrated}"

    def check(self, model: keras.Model) -> None:
        others = {
            path: layer.compute_dtype
            for layer, path in layer_paths(model).items()
            if layer.compute_dtype not in (None, "float32")
        }
        if others:
            raise ValueError(
                "LiteRT's operators compute in float32. Received: layers that compute in other "
                f"types, {others}. Build the model with dtype='float32', and give it these weights "
                "with `set_weights`."
            )
        if self.dtype != "float32" and not _has_own_interpreter():
            raise ImportError(
                "LiteRT files of float16 and int8 kernels are checked with ai-edge-litert, as "
                "TensorFlow's own interpreter can't be trusted with them. Received: "
                f"dtype={self.dtype!r}, and no ai-edge-litert. Install it with "
                '`pip install "keras_grow[litert]"`.'
            )

    def limits(self, inference: Inference) -> tuple[float | None, float]:
        return _TOLERANCES[self.dtype], 0.9 if self.dtype == "int8" else 0.0

    def default_data(self) -> Any:
        return self.calibration_data

    def is_own(self, path: str) -> bool:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(8)[4:] == IDENTIFIER

    def convert(self, inference: Inference, path: str, samples: list[Arrays]) -> Stored:
        content = _converted(inference, self.calibration_data)
        choice: Callable[[Constant], StoredConstant] = choose_integers
        if self.calibration_data is None:
            choice = functools.partial(choose, dtype=self.dtype)
        constants = LiteRTFile(content).constants()
        packed = [choice(constant) for constant in constants]
        pathlib.Path(path).write_bytes(sealed(_packed(content, packed), _MARK))
        if self.dtype != "float32" and self.calibration_data is None:
            # What rounding makes of the model has a tolerance of its own; the unpacking has none.
            rounded = [StoredConstant(kernel.constant, kernel.unpacked()) for kernel in packed]
            plain = f"{path}.rounded"
            pathlib.Path(plain).write_bytes(_packed(content, rounded))
            outputs, reference = self.run(path, samples), self.run(plain, samples)
            check(outputs, reference, _FLOAT32_TOLERANCE, 0.0, "unpacking of the LiteRT")
        return by_layer(inference, packed)

    def open(self, path: str) -> Serve:
        interpreter = _interpreter(path)
        runner = interpreter.get_signature_runner("serving_default")
        places = {name: each["index"] for name, each in runner.get_input_details().items()}
        outputs = {name: each["index"] for name, each in runner.get_output_details().items()}
        shapes: dict[str, tuple[int, ...]] = {}

        def call(inputs: Arrays) -> dict[str, np.ndarray]:
            # The runner of a signature copies and looks up names at every call; this does not.
            now = {name: value.shape for name, value in inputs.items()}
            if now != shapes:
                for name, shape in now.items():
                    interpreter.resize_tensor_input(places[name], shape)
                interpreter.allocate_tensors()
                shapes.update(now)
            for name, value in inputs.items():
                interpreter.set_tensor(places[name], value)
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

        return call


def _converted(inference: Inference, calibration_data: Any) -> bytes:
    """A LiteRT file with dense kernels."""
    module = Convertible(inference)
    with refused(
        "LiteRT can't express the model. Expected layers of which TensorFlow's converter makes "
        "LiteRT's built-in operators; recurrent layers have `unroll=True`."
    ):
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [module.function.get_concrete_function()], module
        )
        if calibration_data is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: _single(inference, calibration_data)
        return converter.convert()


def _single(inference: Inference, inputs: Any) -> Iterator[Arrays]:
    named = inference.named(inputs)
    for i in range(min(len(array) for array in named.values())):
        yield {name: array[i : i + 1] for name, array in named.items()}


def _packed(content: bytes, kernels: list[StoredConstant]) -> bytes:
    file = LiteRTFile(content)
    for kernel in kernels:
        file.store(kernel)
    return file.to_bytes()


def _interpreter(path: str) -> Any:
    if _has_own_interpreter():
        module = importlib.import_module("ai_edge_litert.interpreter")
        return module.Interpreter(model_path=path, num_threads=1)
    with warnings.catch_warnings():
        # It says that it moves to ai-edge-litert, which is not installed.
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(model_path=path, num_threads=1)


def _has_own_interpreter() -> bool:
    try:
        importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        return False
    return True
