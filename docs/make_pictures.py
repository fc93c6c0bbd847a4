"""Makes the README's pictures of growth: where connections grow on MNIST, epoch by epoch.

    python docs/make_pictures.py --data-dir DIR

A seed of LeNet-300-100 with 10% of its connections grows by the gradient to 30%, over eleven of
twelve epochs; a minute or two on two cores. It writes docs/growth.gif, an animation, and
docs/grown.png, what grew (NeST's figure 3). `--dataset digits` needs no download.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_grow

HERE = pathlib.Path(__file__).parent
EPOCHS = 12


def load(dataset: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Images of numbers from 0 to 1, flat, and their classes."""
    if dataset == "digits":
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        return (images / 16).astype("float32"), classes
    import tensorflow_datasets as tfds

    images, classes = tfds.as_numpy(
        tfds.load("mnist", split="train", data_dir=data_dir, batch_size=-1, as_supervised=True)
    )
    return images.reshape(len(images), -1).astype("float32") / 255, classes


def main(argv: list[str] | None = None) -> None:
    """Grows the network and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist")
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--output", type=pathlib.Path, default=HERE)
    arguments = parser.parse_args(argv)
    x, y = load(arguments.dataset, arguments.data_dir)
    side = round(x.shape[1] ** 0.5)
    keras.utils.set_random_seed(0)
    options = {
        "initial_density": 0.1,
        "kernel_initializer": keras_grow.ActiveFanIn("he_normal"),
    }
    model = keras.Sequential(
        [
            keras.Input((side * side,)),
            keras_grow.GrowableDense(300, "relu", **options),
            keras_grow.GrowableDense(100, "relu", **options),
            keras_grow.GrowableDense(10, "softmax", **options),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    seed = keras_grow.plotting.count_per_input(model)
    density = keras.optimizers.schedules.PolynomialDecay(0.1, EPOCHS - 1, end_learning_rate=0.3)
    growth = keras_grow.GrowthCallback((x[:10_000], y[:10_000]), density=density)
    history = keras_grow.ConnectionHistory()
    model.fit(x, y, batch_size=128, epochs=EPOCHS, callbacks=[growth, history], verbose=2)
    arguments.output.mkdir(parents=True, exist_ok=True)
    keras_grow.plotting.animate_growth(
        history.connections_per_input, arguments.output / "growth.gif", (side, side)
    )
    figure = keras_grow.plotting.connections_per_input(model, (side, side), since=seed)
    figure.savefig(arguments.output / "grown.png", dpi=110)


if __name__ == "__main__":
    main()
