"""Writes models of every kind of layer as files, which later versions must load.

    python -m tests.golden.make_files

writes into a folder named by the version. A folder that is there stays as it is: what it holds was
written by that version, and is never written anew.
"""

import pathlib

import keras
import numpy as np

import keras_grow

FOLDER = pathlib.Path(__file__).parent


def dense() -> keras.Model:
    """Masked, weight-normalized and sparse layers, one by one and in groups."""
    density = {"initial_density": 0.5, "seed": 0}
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras_grow.GrowableDense(8, "relu", **density),
            keras_grow.WeightNormDense(8, "tanh", **density),
            keras_grow.SparseDense(8, "relu", capacity=0.75, **density),
            keras_grow.SparseDense(8, group_size=4, **density),
            keras_grow.MeanOnlyBatchNormalization(),
        ]
    )


def convolutions() -> keras.Model:
    """Convolutions, with partial areas too."""
    density = {"initial_density": 0.5, "seed": 0}
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras_grow.GrowableConv2D(4, 3, activation="relu", **density),
            keras_grow.areas.PartialAreaConv2D(3, 2, **density),
            keras.layers.Reshape((9, 3)),
            keras_grow.WeightNormConv1D(4, 3, groups=1, **density),
            keras_grow.GrowableConv1D(4, 3, groups=2, **density),
        ]
    )


def kernels() -> keras.Model:
    """Kernels in layers of Keras's."""
    density = {"initial_density": 0.5, "seed": 0}
    return keras.Sequential(
        [
            keras.Input((5, 4)),
            keras_grow.GrowableKernels(keras.layers.LSTM(3, return_sequences=True), **density),
            keras_grow.WeightNormKernels(
                keras.layers.EinsumDense("abc,cd->abd", (None, 3)), **density
            ),
        ]
    )


MODELS = {"dense": dense, "convolutions": convolutions, "kernels": kernels}


def inputs(model: keras.Model) -> np.ndarray:
    """A batch for a model."""
    shape = (3, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def main() -> None:
    """Writes the files of this version, if they are not there."""
    folder = FOLDER / keras_grow.__version__
    folder.mkdir(exist_ok=True)
    for name, make in MODELS.items():
        path = folder / f"{name}.keras"
        if path.exists():
            continue
        keras.utils.set_random_seed(0)
        model = make()
        model.compile("adam", "mse")
        x = inputs(model)
        model.fit(x, np.zeros_like(model(x)), epochs=2, verbose=0)
        model.save(path)
        model.save_weights(folder / f"{name}.weights.h5")
        np.save(folder / f"{name}.npy", np.asarray(model(x)))


if __name__ == "__main__":
    main()
