"""Exporters that would write a file which fails when it is run, refused while they trace a layer.

A layer is told nothing of why it is traced. The modules of the exporters, as they are named here,
stand on the stack then; `tests/export/test_other_exporters.py` names the versions it was run on.
"""

import sys
import warnings
from types import FrameType

import tensorflow as tf

_EXPORTERS = {
    "keras.src.export.onnx": "export_onnx",
    "keras.src.export.litert": "export_litert",
    "tf2onnx": "export_onnx",
    "tensorflow.lite.python.lite": "export_litert",
}


def refuse_other_exporters(name: str) -> None:
    """Raises `ValueError` while Keras's or TensorFlow's exporters to ONNX or LiteRT trace a layer.

    They write loops over connections that XLA compiles as if their formats had them.
    """
    if tf.executing_eagerly():
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        ours = _EXPORTERS.get(module, _EXPORTERS.get(module.split(".")[0]))
        if ours is not None:
            message = (
                "A sparse layer can't be exported by Keras or TensorFlow to this format: the file "
                f"would fail when it is run. Received: layer {name!r}, traced by {module}. Use "
                f"`keras_grow.{ours}(model, path)`, or convert the model with "
                "`keras_grow.make_plain` first."
            )
            if module.startswith("tensorflow"):  # It swallows errors, and fails without a word.
                warnings.warn(message, stacklevel=2)
            raise ValueError(message)
        frame = frame.f_back
