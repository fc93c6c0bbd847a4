"""A SavedModel of the grown network, which TensorFlow alone loads and serves."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.export import digest
from keras_grow.export.inference import Arrays, Inference, Serve
from keras_grow.export.pipeline import Format, Stored
from keras_grow.export.served.model import ServedModel
from keras_grow.export.served.rounding import rounded_kernels
from keras_grow.export.storages import Rule, Storage
from keras_grow.export.verification import ExportRecord
from keras_grow.layers.growable import growable_layers
from keras_grow.layers.observer import Observer
from keras_grow.layers.paths import by_layer, paths_of
from keras_grow.version import __version__

_DTYPES = (None, "float32", "float16", "bfloat16", "float64")
# Rounding errors of a step in the dtype in which a model computes, with room for some layers.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
_TOLERANCE = 1e-5
_FORMAT_VERSION = 1


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    storage: Storage | Mapping[str, Storage] | None = None,
    dtype: str | None = None,
    batch_size: int = 1,
    data: Any = None,
    tolerance: float | None = None,
    input_signature: Any = None,
) -> ExportRecord:
    """Writes a SavedModel of the grown network, which TensorFlow alone loads and serves.

    Of each growable layer only the active connections are stored, unless a dense kernel takes
    less: a value, and mostly one byte for where it stands. What is made of them when the
    SavedModel is loaded, a dense kernel or a sparse product, is chosen layer by layer. Inputs and
    outputs of the signature `serving_default`, and of `loaded.serve`, are named after the model's.
    The batch size stays free. The model runs at inference and computes what
    `model(x, training=False)` does: the SavedModel is loaded and compared before it is moved to
    `path`. How it is stored and compared also stands in it, in `assets.extra/keras_grow.json`.

    Args:
        model: a built model with growable layers.
        path: the directory to write; an earlier SavedModel is replaced.
        storage: how kernels are stored, an object of `keras_grow.storages`, or a mapping from
            layer paths or names to such objects; by default, and for layers that the mapping does
            not name, `keras_grow.storages.Rule(batch_size)`.
        dtype: of the stored kernels of growable layers, `"float16"`, `"bfloat16"`, `"float32"` or
            `"float64"`; `None` stores each in its layer's own. Layers compute as they did.
        batch_size: how many rows are served at a time, for which the rule chooses.
        data: samples to compare on; by default 64 random ones.
        tolerance: the largest error to accept by the model's outputs, its kernels rounded to
            `dtype`; by default 1e-5, and 1e-2 and 5e-2 where layers compute in float16 and
            bfloat16.
        input_signature: the `tf.TensorSpec`s of a subclassed model's inputs.

    Returns:
        An `ExportRecord`: the storage of each layer, the size, the error.

    Raises:
        TypeError: if `storage` is no storage.
        ValueError: for a model without growable layers, and for storages that do not fit their
            layers or name none. Here and else as `keras_grow.formats.Format.export` says.

    Example:

    ```python
    keras_grow.export_saved_model(model, "grown", dtype="float16")
    # Elsewhere, with nothing but TensorFlow:
    loaded = tf.saved_model.load("grown")  # Keep it: TensorFlow drops the weights with it.
    outputs = loaded.serve(x)
    ```
    """
    return SavedModel(storage, dtype, batch_size).export(
        model, path, data=data, tolerance=tolerance, input_signature=input_signature
    )


@dataclasses.dataclass(frozen=True)
class SavedModel(Format):
    """SavedModels of the active connections alone.

    Args:
        storage, dtype, batch_size: as `keras_grow.export_saved_model` takes them.
    """

    name = "SavedModel"
    runtime = "TensorFlow"

    storage: Storage | Mapping[str, Storage] | None = None
    dtype: str | None = None
    batch_size: int = 1

    def __post_init__(self):
        if self.dtype not in _DTYPES:
            raise ValueError(f"`dtype` must be one of {_DTYPES}. Received: dtype={self.dtype!r}")
        Rule(self.batch_size)

    @property
    def label(self) -> str:
        return "SavedModel" if self.dtype is None else f"SavedModel {self.dtype}"

    def check(self, model: keras.Model) -> None:
        self._storages(model)

    def limits(self, inference: Inference) -> tuple[float | None, float]:
        dtypes = (layer.compute_dtype for layer in inference.layers)
        return max(_TOLERANCES.get(dtype, _TOLERANCE) for dtype in dtypes), 0.0

    def expected(self, inference: Inference) -> Observer:
        return Observer() if self.dtype is None else rounded_kernels(inference.layers, self.dtype)

    def is_own(self, path: str) -> bool:
        return os.path.exists(os.path.join(path, "saved_model.pb"))

    def convert(self, inference: Inference, path: str, samples: list[Arrays]) -> Stored:
        chosen = self._storages(inference.model)
        kernels = [
            storage(layer, self.dtype)
            for storage, layer in zip(chosen, inference.layers, strict=True)
        ]
        served = ServedModel(inference, kernels)
        signature = served.serve.get_concrete_function()
        try:
            tf.saved_model.save(served, path, signatures={"serving_default": signature})
        except AssertionError as error:  # TensorFlow's word for what it can't find from the model.
            raise ValueError(
                "The model can't be exported: it uses a table or variable of TensorFlow's that no "
                "layer keeps as an attribute, so that it would not be saved. Keep it as an "
                f"attribute of a layer. {error}"
            ) from error
        paths = paths_of(inference.model, inference.layers)
        return {path: [kernel] for path, kernel in zip(paths, kernels, strict=True)}

    def open(self, path: str) -> Serve:
        loaded = tf.saved_model.load(path)
        # TensorFlow drops the weights with what was loaded, so the function holds on to it.
        return functools.partial(_served, loaded, loaded.signatures["serving_default"])

    def describe(self, path: str, inference: Inference, stored: Any, facts: dict[str, Any]) -> None:
        described = {
            "format_version": _FORMAT_VERSION,
            "keras_grow_version": __version__,
            "layers": [
                {
                    "name": name,
                    "storage": kernel.kind,
                    "dtype": kernel.values.dtype.name,
                    "shape": list(layer.kernel_shape),
                    "active_connections": layer.num_active,
                    "stored_bytes": kernel.num_bytes,
                }
                for layer, (name, [kernel]) in zip(inference.layers, stored.items(), strict=True)
            ],
            **facts,
            "sha256": digest.of_folder(path),
        }
        description = pathlib.Path(path, digest.DESCRIPTION)
        description.parent.mkdir(exist_ok=True)
        description.write_text(json.dumps(described, indent=1), encoding="utf-8")

    def _storages(self, model: keras.Model) -> list[Storage]:
        """A storage for each growable layer; refuses what is none, and names of no layer."""
        layers = growable_layers(model)
        named: Mapping[str, Storage] = {}
        chosen: Storage = Rule(self.batch_size)
        if isinstance(self.storage, Mapping):
            named = self.storage
        elif self.storage is not None:
            chosen = self.storage
        for value in (chosen, *named.values()):
            if not isinstance(value, Storage):
                raise TypeError(
                    "`storage` must be an object such as keras_grow.storages.Packed(), or a "
                    f"mapping from layer paths or names to such objects. Received: {value!r}"
                )
        need = "`storage` must name growable layers of the model."
        of_layers = by_layer(model, named, layers, need)
        return [of_layers.get(layer, chosen) for layer in layers]


def _served(loaded: Any, signature: Any, inputs: Arrays) -> dict[str, np.ndarray]:
    outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}
