"""A SavedModel of the grown network, which TensorFlow alone loads and serves."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.export import signature as signatures
from keras_grow.export.choosing import resolve
from keras_grow.export.served.kernels import ServedKernel
from keras_grow.export.served.model import ServedModel, named_outputs
from keras_grow.export.served.reference import reference
from keras_grow.export.storages import Rule, Storage
from keras_grow.export.verification import ExportRecord, check
from keras_grow.export.writing import num_bytes, written_beside
from keras_grow.layers.growable import Growable, check_finite, growable_layers
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.samples import vocabulary
from keras_grow.version import __version__

_DTYPES = (None, "float32", "float16", "bfloat16", "float64")
# Rounding errors of a step in the dtype in which a model computes, with room for some layers.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
_TOLERANCE = 1e-5
# Samples on which an export is compared with its model, besides a single one.
_SAMPLES = 8
# Samples of `data` that are computed at a time.
_CHUNK = 256
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
        path: the directory to write. An earlier SavedModel there is replaced, in one step at the
            end: a half-written export never stands at `path`.
        storage: how kernels are stored, an object of `keras_grow.storages`, or a mapping from
            layer paths or names to such objects; by default, and for layers that the mapping does
            not name, `keras_grow.storages.Rule(batch_size)`.
        dtype: of the stored kernels of growable layers, `"float16"`, `"bfloat16"`, `"float32"` or
            `"float64"`; `None` stores each in its layer's own. Layers compute as they did.
        batch_size: how many rows are served at a time, for which the rule chooses.
        data: samples, as the model takes them, on which the export is compared with the model;
            by default random numbers.
        tolerance: the largest max|a - b| / max|b| of the export's outputs a and the model's b, its
            kernels rounded to `dtype`. By default 1e-5; 1e-2 and 5e-2 where layers compute in
            float16 and bfloat16.
        input_signature: for subclassed models, which do not know their inputs: the structure of
            `tf.TensorSpec` that the model takes, each with a name.

    Returns:
        An `ExportRecord`: the storage of each layer, the size, the error.

    Raises:
        TypeError: if `model` is not a Keras 3 model, or `storage` no storage.
        ValueError: for a model without growable layers, one whose inputs are not known, weights
            that are NaN or infinite, a model that TensorFlow can't trace, storages that do not fit
            their layers or name none, and a `path` at which something else than a SavedModel
            stands.
        NotVerified: a `ValueError`, where the outputs differ by more than the tolerance.
        OSError: where `path` can't be written.

        Nothing is written then, and an earlier export stays as it was.

    Example:

    ```python
    keras_grow.export_saved_model(model, "grown", dtype="float16")
    # Elsewhere, with nothing but TensorFlow:
    loaded = tf.saved_model.load("grown")  # Keep it: TensorFlow drops the weights with it.
    outputs = loaded.serve(x)
    ```
    """
    layers = growable_layers(model)
    check_finite(model, layers)
    if dtype not in _DTYPES:
        raise ValueError(f"`dtype` must be one of {_DTYPES}. Received: dtype={dtype!r}")
    storages = resolve(model, storage, layers, Rule(batch_size))
    if input_signature is None:
        input_signature = signatures.input_signature(model)
    with written_beside(path, _is_saved_model, "earlier SavedModels") as written:
        kernels = [choose(layer, dtype) for choose, layer in zip(storages, layers, strict=True)]
        _write(model, layers, kernels, input_signature, written)
        if tolerance is None:
            tolerance = _default_tolerance(layers)
        compute = reference(model, layers, input_signature, dtype)
        error, agreement = _compared(model, compute, input_signature, data, tolerance, written)
        paths = paths_of(model, layers)
        _describe(written, paths, layers, kernels, error, tolerance)
        size = num_bytes(written)
    return ExportRecord(
        path=os.path.abspath(os.fspath(path)),
        format="SavedModel",
        num_bytes=size,
        storages={path: kernel.words for path, kernel in zip(paths, kernels, strict=True)},
        error=error,
        tolerance=tolerance,
        agreement=agreement,
        computed_sparsely=tuple(
            path for path, kernel in zip(paths, kernels, strict=True) if kernel.kind == "sparse"
        ),
    )


def _is_saved_model(path: str) -> bool:
    return os.path.exists(os.path.join(path, "saved_model.pb"))


def _write(
    model: keras.Model,
    layers: Sequence[Growable],
    kernels: Sequence[ServedKernel],
    input_signature: Any,
    path: str,
) -> None:
    try:
        served = ServedModel(model, layers, kernels, input_signature)
        signature = served.serve.get_concrete_function()
    except Exception as error:  # Whatever the model's own code raises while it is traced.
        raise ValueError(
            "The model can't be exported: TensorFlow could not trace it at inference with the "
            f"signature {input_signature}. {error}"
        ) from error
    try:
        tf.saved_model.save(served, path, signatures={"serving_default": signature})
    except AssertionError as error:  # TensorFlow's word for what it can't find from the model.
        raise ValueError(
            "The model can't be exported: it uses a table or variable of TensorFlow's that no "
            "layer keeps as an attribute, so that it would not be saved. Keep it as an attribute "
            f"of a layer. {error}"
        ) from error


def _default_tolerance(layers: Sequence[Growable]) -> float:
    return max(_TOLERANCES.get(layer.compute_dtype, _TOLERANCE) for layer in layers)


def _compared(
    model: keras.Model,
    compute: Any,
    input_signature: Any,
    data: Any,
    tolerance: float,
    path: str,
) -> tuple[float, float]:
    """Error and agreement of the SavedModel at `path`, on a single sample and on a batch."""
    loaded = tf.saved_model.load(path)
    outputs, expected = [], []
    for inputs in _batches(model, input_signature, data):
        try:
            computed = loaded.serve(*inputs)
            wanted = named_outputs(model, compute(*inputs))
        except tf.errors.OpError as error:
            raise ValueError(
                "The export can't be compared with the model: one of them could not compute the "
                f"samples. Received: data={'None, so random numbers' if data is None else '...'}. "
                f"Pass samples that the model takes as `data`. {error.message}"
            ) from error
        names = sorted(wanted)
        outputs += [computed[name] for name in names]
        expected += [wanted[name] for name in names]
    return check(outputs, expected, tolerance, 0.0, "SavedModel")


def _batches(model: keras.Model, input_signature: Any, data: Any) -> list[list[tf.Tensor]]:
    """Flattened inputs: a single sample, which a sparse product treats in its own way, and more."""
    specs = tree.flatten(input_signature)
    if data is None:
        counts = (1, _SAMPLES)
        words = vocabulary(model)
        batches = [
            tree.flatten(signatures.random_inputs(input_signature, n, words=words)) for n in counts
        ]
    else:
        arrays = [np.asarray(array) for array in tree.flatten(data)]
        if len(arrays) != len(specs):
            raise ValueError(
                "`data` must be samples as the model takes them. Received: "
                f"{len(arrays)} arrays, expected {len(specs)}: {specs}"
            )
        size = specs[0].shape[0] or _CHUNK
        parts = [slice(i, i + size) for i in range(0, len(arrays[0]), size)]
        if specs[0].shape[0] is None:
            parts.insert(0, slice(0, 1))
        batches = [[array[part] for array in arrays] for part in parts]
    return [
        [tf.cast(array, spec.dtype) for array, spec in zip(batch, specs, strict=True)]
        for batch in batches
    ]


def _describe(
    path: str,
    paths: Sequence[str],
    layers: Sequence[Growable],
    kernels: Sequence[ServedKernel],
    error: float,
    tolerance: float,
) -> None:
    """Writes beside the SavedModel what it holds, where TensorFlow wants such files."""
    described = {
        "format_version": _FORMAT_VERSION,
        "keras_grow_version": __version__,
        "layers": [
            {
                "name": layer_path,
                "storage": kernel.kind,
                "dtype": kernel.stored_dtype.name,
                "shape": list(layer.kernel_shape),
                "active_connections": layer.num_active,
                "stored_bytes": kernel.stored_bytes,
            }
            for layer_path, layer, kernel in zip(paths, layers, kernels, strict=True)
        ],
        "error": error,
        "tolerance": tolerance,
    }
    folder = os.path.join(path, "assets.extra")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "keras_grow.json"), "w", encoding="utf-8") as file:
        json.dump(described, file, indent=1)
