"""The forms in which a grown network can be served, made ready to be called."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.conversion.compaction import compact
from keras_grow.conversion.conversion import make_plain
from keras_grow.export import serving
from keras_grow.export.litert import export_litert
from keras_grow.export.onnx import export_onnx
from keras_grow.export.quiet import silent
from keras_grow.export.saved_model import export_saved_model
from keras_grow.export.served.model import named_outputs
from keras_grow.export.signature import input_signature
from keras_grow.export.verification import ExportRecord
from keras_grow.layers.growable import Growable, nested_layers
from keras_grow.layers.paths import layer_paths
from keras_grow.measuring.loss import call_model

FORMS = (
    "dense SavedModel",
    "dense LiteRT",
    "masked model",
    "compact model",
    "SavedModel",
    "LiteRT",
    "LiteRT float16",
    "LiteRT int8",
    "ONNX",
)
DISPATCH = "TensorFlow's dispatch"

# Samples at a time when outputs and classes are compared.
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Served:
    """A form, ready to be called.

    Attributes:
        path: of its files.
        runtime: that serves it, `None` for models in memory.
        serve: computes outputs from inputs by name.
        flops: of one sample.
    """

    path: str
    runtime: str | None
    serve: serving.Serve
    flops: int | None


class FormMaker:
    """Makes the forms of a model, and the compact model that they share."""

    def __init__(
        self,
        model: keras.Model,
        dense: keras.Model | None,
        samples: serving.Arrays,
        batch_size: int,
        folder: str,
    ):
        self._model, self._samples = model, samples
        self._batch_size, self._folder = batch_size, folder
        self._compact = compact(model).model
        self._dense = dense_like(model) if dense is None else dense
        self._signature = input_signature(model)
        # As every format names them.
        self.output_names = list(_compiled(model).structured_outputs)

    def make(self, form: str) -> Served:
        """A form, ready to be called; raises `ValueError` or `ImportError` where it can't be."""
        if form == "masked model":
            return self._in_memory(self._model, form)
        if form == "compact model":
            return self._in_memory(self._compact, form)
        path = os.path.join(self._folder, form.replace(" ", "_"))
        if form == "dense SavedModel":
            with silent():
                self._dense.export(path, verbose=False)
            return self._exported(path, "SavedModel", _flops(self._dense))
        runtime = "LiteRT" if form == "dense LiteRT" else form.split()[0]
        source = self._dense if form == "dense LiteRT" else self._compact
        record = self._export(form, source, path)
        return self._exported(path, runtime, _flops(source, record.computed_sparsely))

    def expected(self, samples: serving.Arrays) -> list[np.ndarray]:
        """The outputs of the model itself."""
        return outputs_of(as_serve(_compiled(self._model)), samples, self.output_names)

    def _export(self, form: str, source: keras.Model, path: str) -> ExportRecord:
        exports: dict[str, Callable[[], ExportRecord]] = {
            "SavedModel": lambda: export_saved_model(source, path, batch_size=self._batch_size),
            "dense LiteRT": lambda: export_litert(source, path),
            "LiteRT": lambda: export_litert(source, path),
            "LiteRT float16": lambda: export_litert(source, path, dtype="float16"),
            "LiteRT int8": lambda: export_litert(
                source, path, dtype="int8", calibration_data=self._calibration_data()
            ),
            "ONNX": lambda: export_onnx(source, path),
        }
        return exports[form]()

    def _calibration_data(self) -> Any:
        few = [values[:500] for values in self._samples.values()]
        return tree.pack_sequence_as(self._signature, few)

    def _in_memory(self, model: keras.Model, form: str) -> Served:
        path = os.path.join(self._folder, f"{form.split()[0]}.keras")
        model.save(path)
        return Served(path, None, as_serve(_compiled(model)), _flops(model))

    def _exported(self, path: str, runtime: str, flops: int | None) -> Served:
        with silent():
            serve = serving.OPEN[runtime](path)
        return Served(path, runtime, serve, flops)


def dense_like(model: keras.Model) -> keras.Model:
    """A plain copy of a model with small random weights in the place of zeros."""
    plain = make_plain(model)
    random = np.random.default_rng(0)
    for layer in nested_layers(plain):
        kernel = getattr(layer, "kernel", None)
        if isinstance(kernel, keras.Variable):
            values = kernel.numpy()
            noise = random.normal(scale=0.01, size=values.shape)
            kernel.assign(np.where(values == 0, noise, values))
    return plain


def _compiled(model: keras.Model) -> Any:
    """The model at inference as a concrete function of inputs by name, outputs by name."""
    signature = input_signature(model)

    @tf.function(input_signature=tree.flatten(signature), autograph=False)
    def serve(*inputs):
        inputs = tree.pack_sequence_as(signature, list(inputs))
        return named_outputs(model, call_model(model, inputs, training=False))

    return serve.get_concrete_function()


def as_serve(function: Any) -> serving.Serve:
    """A concrete function of the inputs in their order, called as exports are."""

    def call(inputs: serving.Arrays) -> dict[str, np.ndarray]:
        outputs = function(*[tf.constant(value) for value in inputs.values()])
        return {name: value.numpy() for name, value in outputs.items()}

    return call


def compiled_nothing(samples: serving.Arrays) -> Any:
    """A function of the inputs that gives back the first entry of each sample."""
    signature = [tf.TensorSpec([None, *v.shape[1:]], v.dtype) for v in samples.values()]

    @tf.function(input_signature=signature, autograph=False)
    def nothing(*inputs):
        return {"first": tf.reshape(inputs[0], [tf.shape(inputs[0])[0], -1])[:, :1]}

    return nothing.get_concrete_function()


def _flops(model: keras.Model, sparse: Sequence[str] = ()) -> int | None:
    """FLOPs of one sample, where the products of some layers cost what is active."""
    total = 0
    for layer, path in layer_paths(model).items():
        if isinstance(layer, Growable):
            positions, count = layer.num_positions, layer.num_connections
            if layer.is_sparse or path in sparse:
                count = layer.num_active
        elif isinstance(getattr(layer, "kernel", None), keras.Variable):
            shape = layer.output.shape[1:-1] if hasattr(layer, "filters") else ()
            positions = None if None in shape else math.prod(shape)
            count = math.prod(layer.kernel.shape)
        else:
            continue
        if positions is None:
            return None
        total += 2 * count * positions
    return total


def outputs_of(
    serve: serving.Serve, samples: serving.Arrays, names: Sequence[str]
) -> list[np.ndarray]:
    """The outputs for all samples, in the order of `names`."""
    count = len(next(iter(samples.values())))
    parts = []
    for start in range(0, count, _CHUNK):
        outputs = serve({name: values[start : start + _CHUNK] for name, values in samples.items()})
        ordered = names if set(names) == set(outputs) else list(outputs)
        parts.append([outputs[name] for name in ordered])
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
