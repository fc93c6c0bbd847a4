"""Trains, or exports, in a process that may be killed at any moment, and goes on where it was.

It writes `done.npz` at its end: all that the model and its optimizer hold, and the logs of every
epoch. It exits with 3 where what it finds of an earlier life is neither old nor new.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_grow

EPOCHS = 5


def _data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 6, 6, 1)).astype("float32")
    return x, np.argmax(x.reshape(96, -1)[:, :3], axis=1)


def _model(hidden: list[keras.layers.Layer]) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), *hidden, keras.layers.Dense(3, "softmax", name="classes")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _masked() -> keras.Model:
    # No Dropout: Keras's files do not hold how often its seed was drawn from.
    density = {"initial_density": 0.3, "seed": 0}
    hidden = [
        keras.layers.Flatten(),
        keras_grow.GrowableDense(16, "relu", **density),
        keras_grow.WeightNormDense(8, "tanh", **density),
    ]
    return _model(hidden)


def _sparse() -> keras.Model:
    density = {"initial_density": 0.3, "capacity": 0.6, "seed": 0}
    hidden = [
        keras.layers.Flatten(),
        keras_grow.SparseDense(16, "relu", **density),
        keras_grow.SparseDense(8, "tanh", group_size=4, **density),
    ]
    return _model(hidden)


def _convolutional() -> keras.Model:
    hidden = [
        keras_grow.GrowableConv2D(8, 3, activation="relu", initial_density=0.5, seed=0),
        keras.layers.BatchNormalization(),
        keras_grow.GrowableConv2D(8, 3, activation="relu", seed=0),
        keras.layers.Flatten(),
    ]
    return _model(hidden)


def _grow_and_prune(data) -> list[keras.callbacks.Callback]:
    return [
        keras_grow.GrowthCallback(data, count=20, when=keras_grow.Epochs(stop=3)),
        keras_grow.PruningCallback(density=0.2, when=keras_grow.Epochs(start=3)),
    ]


def _drop_and_grow(data) -> list[keras.callbacks.Callback]:
    soft = keras_grow.sparse_training.CannistraciHebb(seed=1)
    return [
        keras_grow.DropAndGrowCallback(data, when=keras_grow.Epochs(stop=3)),
        keras_grow.DropAndGrowCallback(method=soft, when=keras_grow.Steps(4)),
    ]


def _prune_neurons(data) -> list[keras.callbacks.Callback]:
    return [keras_grow.NeuronPruningCallback(data, count=1, when=keras_grow.Epochs(stop=4))]


TRAININGS: dict[str, tuple[Callable, Callable]] = {
    "masked": (_masked, _grow_and_prune),
    "masked, exchanged": (_masked, _drop_and_grow),
    "sparse": (_sparse, _grow_and_prune),
    "sparse, exchanged": (_sparse, _drop_and_grow),
    "convolutional": (_convolutional, _prune_neurons),
}
EXPORTS: dict[str, tuple[Callable, str]] = {
    f"{kind}, {name}": (make, kind)
    for kind in ("saved_model", "tflite", "onnx", "keras")
    for name, make in (("masked", _masked), ("sparse", _sparse), ("convolutional", _convolutional))
}


# What a life ends with where a path holds neither model, or what no loader takes.
NEITHER, REFUSED = 3, 4


class _Logs(keras.callbacks.Callback):
    """Keeps the logs of each epoch, but for times."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch, logs=None):
        known = json.loads(self._path.read_text()) if self._path.exists() else {}
        known[str(epoch)] = {k: repr(v) for k, v in logs.items() if "seconds" not in k}
        _replace(self._path, json.dumps(known, sort_keys=True).encode())


def _replace(path: pathlib.Path, content: bytes) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _end(folder: pathlib.Path, held: dict[str, np.ndarray]) -> None:
    with (folder / "done.unfinished").open("wb") as file:
        np.savez(file, **held)
    os.replace(folder / "done.unfinished", folder / "done.npz")


def train(scenario: str, folder: pathlib.Path) -> None:
    """Trains from where an earlier life left off, and writes what came of it."""
    make, callbacks = TRAININGS[scenario]
    data, model = _data(), make()
    model.fit(
        *data,
        epochs=EPOCHS,
        batch_size=24,
        shuffle=False,
        verbose=0,
        callbacks=[
            *callbacks(data),
            # An epoch that is backed up is not gone through again: what it leaves comes before.
            _Logs(folder / "logs.json"),
            keras.callbacks.ModelCheckpoint(folder / "best.keras", monitor="loss"),
            keras_grow.BackupAndRestore(folder / "backup"),
        ],
    )
    held = {f"model{i}": v.numpy() for i, v in enumerate(model.variables) if not _is_seed(v)}
    held |= {f"slot{i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
    held["logs"] = np.array((folder / "logs.json").read_text())
    _end(folder, held)


def _is_seed(variable: keras.Variable) -> bool:
    return "seed_generator" in variable.path


def export(scenario: str, folder: pathlib.Path) -> None:
    """Exports a new model over an old one, once what is there is found to be either."""
    (make, kind), models = EXPORTS[scenario], []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        models.append(make())
    path = folder / {"saved_model": "model", "tflite": "model.tflite", "onnx": "model.onnx"}.get(
        kind, "model.keras"
    )
    write = {
        "saved_model": keras_grow.export_saved_model,
        "tflite": keras_grow.export_litert,
        "onnx": keras_grow.export_onnx,
        "keras": lambda model, path: model.save(path),
    }[kind]
    was_written = folder / "written"
    if was_written.exists() and not path.exists():
        sys.exit(NEITHER)
    if path.exists():
        x = _data()[0][:4]
        try:
            found = _outputs(kind, path, x)
        except Exception:
            if kind != "keras":
                raise
            # Keras's own `save` writes in place; what was cut short its loader refuses.
            sys.exit(REFUSED)
        expected = [np.asarray(model(x)) for model in models]
        if not any(np.allclose(found, each, rtol=1e-3, atol=1e-5) for each in expected):
            sys.exit(NEITHER)
    write(models[1 if path.exists() else 0], str(path))
    was_written.touch()
    write(models[1], str(path))
    _end(folder, {"exported": np.array(kind)})


def _outputs(kind: str, path: pathlib.Path, x: np.ndarray) -> np.ndarray:
    if kind == "keras":
        return np.asarray(keras.saving.load_model(path)(x))
    if kind == "saved_model":
        served = tf.saved_model.load(str(path)).signatures["serving_default"]
        (name,) = served.structured_input_signature[1]
        return next(iter(served(**{name: tf.constant(x)}).values())).numpy()
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        return session.run(None, {session.get_inputs()[0].name: x})[0]
    interpreter = tf.lite.Interpreter(str(path))
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])


def live(scenario: str, folder: str) -> None:
    """Does what a scenario says."""
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    (train if scenario in TRAININGS else export)(scenario, pathlib.Path(folder))
