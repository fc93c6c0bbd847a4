"""The process that the campaign of leaks watches: makes models, and writes how large it is.

python -m tests.campaign.model_maker keras_grow 1000 0 curve.csv
"""

import gc
import os
import pathlib
import sys

import keras
import numpy as np

import keras_grow

_MODELS_PER_SAMPLE = 10


def _network(arm: str, number: int, seed: int) -> keras.Model:
    """Dense and convolutional layers by turns, or sparse ones and those that XLA compiles."""
    keras.utils.set_random_seed(seed + number)
    is_ours, is_dense = arm.startswith("keras_grow"), "," in arm or number % 2
    arguments = {"initial_density": 0.3, "seed": seed + number} if is_ours else {}
    dense = keras_grow.GrowableDense if is_ours else keras.layers.Dense
    if arm == "keras_grow, sparse":
        layers = [keras_grow.SparseDense(64, "relu", capacity=0.6, **arguments)]
    elif is_dense:
        layers = [dense(64, "relu", **arguments)]
    else:
        convolution = keras_grow.GrowableConv2D if is_ours else keras.layers.Conv2D
        layers = [
            keras.layers.Reshape((8, 8, 1)),
            convolution(8, 3, activation="relu", **arguments),
            keras.layers.Flatten(),
        ]
    return keras.Sequential([keras.Input((64,)), *layers, dense(4, **arguments)])


def _one(arm: str, number: int, seed: int, x: np.ndarray, y: np.ndarray) -> None:
    """Builds a model, trains it by a step, changes and copies it, and lets it go."""
    keras.backend.clear_session(free_memory=False)
    model = _network(arm, number, seed)
    model.compile("adam", "mse", jit_compile=True if arm == "plain Keras, XLA" else "auto")
    model.train_on_batch(x, y)
    if arm.startswith("keras_grow"):
        keras_grow.grow(model, (x, y), count=20)
        keras_grow.compact(model)
    else:
        keras.models.clone_model(model).set_weights(model.get_weights())


def _resident_mib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(arm: str, count: int, seed: int, curve: pathlib.Path) -> None:
    """Makes `count` models, and writes the curve as CSV once all are made."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(16, 64)).astype("float32")
    y = random.normal(size=(16, 4)).astype("float32")
    rows = ["models,MiB"]
    for number in range(count):
        _one(arm, number, seed, x, y)
        if number % _MODELS_PER_SAMPLE == _MODELS_PER_SAMPLE - 1:
            gc.collect()
            rows.append(f"{number + 1},{_resident_mib():.1f}")
    curve.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]))
