"""Small models of all that is stored: masks, norms, sparse connections; and stock Keras's."""

from collections.abc import Callable

import keras
import numpy as np

import keras_grow


def _classifier(hidden: list[keras.layers.Layer], seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((6, 6, 1), name="images"), *hidden])


def masked(seed: int) -> keras.Model:
    """Masked layers, and others of Keras's."""
    density = {"initial_density": 0.5, "seed": seed}
    return _classifier(
        [
            keras_grow.GrowableConv2D(3, 3, activation="relu", **density),
            keras_grow.MeanOnlyBatchNormalization(),
            keras.layers.Flatten(),
            keras_grow.WeightNormDense(8, "tanh", **density),
            keras_grow.GrowableDense(8, "relu", **density),
            keras.layers.Dense(3, "softmax"),
        ],
        seed,
    )


def sparse(seed: int) -> keras.Model:
    """Layers that hold their connections, one by one and in groups."""
    return _classifier(
        [
            keras.layers.Flatten(),
            keras_grow.SparseDense(8, "relu", initial_density=0.3, capacity=0.5, seed=seed),
            keras_grow.SparseDense(8, "tanh", initial_density=0.5, group_size=4, seed=seed),
            keras.layers.Dense(3, "softmax"),
        ],
        seed,
    )


def stock(seed: int) -> keras.Model:
    """The control: nothing but Keras's."""
    return _classifier(
        [
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dense(3, "softmax"),
        ],
        seed,
    )


MODELS: dict[str, Callable[[int], keras.Model]] = {
    "masked": masked,
    "sparse": sparse,
    "stock": stock,
}


def inputs() -> np.ndarray:
    """A batch that tells models apart."""
    return np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype("float32")
