"""LeNet-300-100, grown and pruned, beside a dense network and growth at random.

The recipe of NeST (Dai, Yin, Jha, arXiv:1711.02017): a seed with 10% of its connections grows by
the gradient to 30%, is pruned by magnitude, and is trained on as it is. The two controls train
for the same epochs with the same optimizer, batch size and learning rates: a dense network, and
a network that grows and is pruned alike but wakes connections at random.

    python tutorials/lenet_300_100.py                                  # 8x8 digits, no network
    python tutorials/lenet_300_100.py --dataset mnist --epochs 40 --density 0.05

The recipe was chosen by cross-validation within the training images of the digits, whose split
is the same for every seed; each network sees the test images once, at the end.
"""

import argparse
import os
import pathlib
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

import keras_grow

GROWN_DENSITY = 0.3
LEARNING_RATE = 2e-3
GROWTH_IMAGES = 10_000
DIGITS_SPLIT = 100


class Data(NamedTuple):
    """Images as rows of pixels from 0 to 1, and their classes."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Result(NamedTuple):
    """A line of the table: test accuracy, and the active weights of every epoch."""

    name: str
    accuracy: float
    weights: list[int]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--epochs", type=int, default=120, help="of each network, at least 8")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--initial-density", type=float, default=0.1, help="of the seed")
    parser.add_argument("--density", type=float, default=0.1, help="after pruning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("output"))
    arguments = parser.parse_args(argv)
    for option, least in {"epochs": 8, "batch_size": 1, "seed": 0}.items():
        if getattr(arguments, option) < least:
            parser.error(f"--{option.replace('_', '-')} must be at least {least}")
    for option in ("initial_density", "density"):
        if not 0 < getattr(arguments, option) < GROWN_DENSITY:
            parser.error(
                f"--{option.replace('_', '-')} must lie between 0 and {GROWN_DENSITY}, the "
                "density to which the network grows"
            )
    if arguments.data_dir is not None and arguments.dataset != "mnist":
        parser.error("--data-dir goes with --dataset mnist")
    return arguments


def load_data(dataset: str, data_dir: str | None) -> Data:
    """scikit-learn's 8x8 digits, a quarter of them to test, or MNIST as it is split."""
    if dataset == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        x = (images / 16).astype("float32")
        x_train, x_test, y_train, y_test = train_test_split(
            x, labels, test_size=0.25, stratify=labels, random_state=DIGITS_SPLIT
        )
        return Data(x_train, y_train, x_test, y_test)
    import tensorflow_datasets as tfds

    arrays = []
    for split in ("train", "test"):
        images, labels = tfds.as_numpy(
            tfds.load("mnist", split=split, data_dir=data_dir, batch_size=-1, as_supervised=True)
        )
        arrays += [images.reshape(len(images), -1).astype("float32") / 255, labels]
    return Data(*arrays)


def build_network(num_inputs: int, initial_density: float | None) -> keras.Sequential:
    """LeNet-300-100, growable from `initial_density`, or plain and dense where that is None."""

    def dense(units: int, activation: str, name: str) -> keras.Layer:
        # Without it, weights of pixels that are always 0 get no gradient and never fade.
        fading = keras.regularizers.L2(1e-5)
        if initial_density is None:
            return keras.layers.Dense(units, activation, kernel_regularizer=fading, name=name)
        return keras_grow.GrowableDense(
            units,
            activation,
            # Units with few inputs would start too quiet.
            kernel_initializer=keras_grow.ActiveFanIn("glorot_uniform"),
            kernel_regularizer=fading,
            initial_density=initial_density,
            name=name,
        )

    return keras.Sequential(
        [
            keras.Input((num_inputs,), name="pixels"),
            keras.layers.Dropout(0.1),
            dense(300, "relu", "hidden_300"),
            dense(100, "relu", "hidden_100"),
            dense(10, "softmax", "classes"),
        ]
    )


def compile_network(network: keras.Model, num_images: int, arguments: argparse.Namespace) -> None:
    """Adam, whose learning rate falls to 0 over all epochs along a cosine."""
    num_steps = arguments.epochs * -(-num_images // arguments.batch_size)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, num_steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=10,
    )


def fit(network: keras.Model, data: Data, batch_size: int, epochs: int, **options) -> dict:
    """Trains until `epochs`; returns what was logged of each epoch."""
    return network.fit(
        data.x_train, data.y_train, batch_size=batch_size, epochs=epochs, verbose=0, **options
    ).history


def connections_per_pixel(network: keras.Model) -> np.ndarray:
    """How many active connections leave each pixel, as an image."""
    mask = network.get_layer("hidden_300").kernel_mask.numpy()
    side = int(len(mask) ** 0.5)
    return mask.sum(axis=1).reshape(side, side)


def train_dense(data: Data, arguments: argparse.Namespace) -> tuple[keras.Model, Result]:
    """The first control: all connections, from the first epoch to the last."""
    keras.utils.set_random_seed(arguments.seed)
    network = build_network(data.x_train.shape[1], None)
    compile_network(network, len(data.x_train), arguments)
    fit(network, data, arguments.batch_size, arguments.epochs)
    weights = sum(layer.kernel.shape.num_elements() for layer in network.layers[1:])
    return network, Result("dense", test_accuracy(network, data), [weights])


def train_grown(
    name: str, score: keras_grow.scores.Score, data: Data, arguments: argparse.Namespace
) -> tuple[keras.Model, Result, dict[str, np.ndarray]]:
    """Grows in the first quarter of the epochs, prunes until two thirds, and trains on."""
    keras.utils.set_random_seed(arguments.seed)
    network = build_network(data.x_train.shape[1], arguments.initial_density)
    compile_network(network, len(data.x_train), arguments)
    growth_end, pruning_end = arguments.epochs // 4, 2 * arguments.epochs // 3
    images = {"seed": connections_per_pixel(network)}

    rising = keras.optimizers.schedules.PolynomialDecay(
        arguments.initial_density, growth_end - 1, end_learning_rate=GROWN_DENSITY
    )
    growth = keras_grow.GrowthCallback(
        (data.x_train[:GROWTH_IMAGES], data.y_train[:GROWTH_IMAGES]), density=rising, score=score
    )
    logs = fit(network, data, arguments.batch_size, growth_end, callbacks=[growth])
    weights = logs["connections"]
    images["grown"] = connections_per_pixel(network)

    falling = keras.optimizers.schedules.PolynomialDecay(
        GROWN_DENSITY, pruning_end - growth_end, end_learning_rate=arguments.density, power=3.0
    )
    # The schedule counts from 0, the epochs of this second call of fit from `growth_end`.
    pruning = keras_grow.PruningCallback(density=lambda epoch: falling(epoch - growth_end))
    options = {"callbacks": [pruning], "initial_epoch": growth_end}
    logs = fit(network, data, arguments.batch_size, arguments.epochs, **options)
    weights += logs["connections"]
    images["pruned"] = connections_per_pixel(network)
    return network, Result(name, test_accuracy(network, data), weights), images


def test_accuracy(network: keras.Model, data: Data) -> float:
    """The share of test images in their right class."""
    return network.evaluate(data.x_test, data.y_test, batch_size=1000, verbose=0)[1]


def draw_connections(images: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Active connections of each pixel on one scale, which cividis keeps in gray and for all."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, len(images))
    most = max(image.max() for image in images.values())
    for axis, (name, image) in zip(axes, images.items(), strict=True):
        # A scale that spreads small counts, for what is left after pruning.
        drawn = axis.imshow(image, cmap="cividis", norm=PowerNorm(0.5, 0, most))
        axis.set_title(f"{name}: {image.sum():,} connections")
        axis.set_xlabel("pixel column")
    axes[0].set_ylabel("pixel row")
    figure.colorbar(drawn, ax=axes, label="active connections per pixel (of 300)", shrink=0.85)
    figure.suptitle("Connections from the input to the first hidden layer")
    figure.savefig(path, dpi=150)


def save(network: keras.Model, dense: keras.Model, x: np.ndarray, output: pathlib.Path) -> None:
    """Saves the grown network, and checks on `x` that the SavedModel is the same network."""
    network.save(output / "model.keras")
    compaction = keras_grow.compact(network)
    print(compaction)
    keras_grow.export_saved_model(compaction.model, output / "saved_model", data=x[:1000])
    litert = keras_grow.export_litert(compaction.model, output / "model.tflite", data=x[:1000])
    print(f"LiteRT: {litert.num_bytes / 1000:,.0f} kB, outputs differ by {litert.error:.1e}")
    dense.export(output / "dense_saved_model", verbose=False)
    served = tf.saved_model.load(output / "saved_model")
    difference = np.abs(served.serve(x)["classes"] - network(x, training=False)).max()
    if difference > 1e-6:
        raise RuntimeError(f"The SavedModel differs from the network by {difference:.1e}")
    print(f"SavedModel: outputs on the test images differ by at most {difference:.1e}")
    for name in ("saved_model", "dense_saved_model"):
        size = sum(path.stat().st_size for path in (output / name).rglob("*") if path.is_file())
        print(f"{name}: {size / 1000:,.0f} kB")


def print_table(results: list[Result]) -> None:
    """One line for each network; weights are those of kernels, without biases."""
    print("network          accuracy     error    weights       peak       mean")
    for result in results:
        print(
            f"{result.name:15}  {result.accuracy:8.2%}  {1 - result.accuracy:8.2%} "
            f"{result.weights[-1]:10,} {max(result.weights):10,} {np.mean(result.weights):10,.0f}"
        )
    print("Accuracy and error on the test images; active weights at the end, and their peak and")
    print("mean during training. In time, masked weights cost what dense ones cost.")


def main(argv: list[str] | None = None) -> None:
    """Trains the three networks, and prints, draws and saves what came out."""
    started = time.perf_counter()
    arguments = parse_arguments(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    data = load_data(arguments.dataset, arguments.data_dir)

    by_gradient = keras_grow.scores.GradientMagnitude()
    at_random = keras_grow.scores.Random(arguments.seed)
    network, grown, images = train_grown("gradient growth", by_gradient, data, arguments)
    _, random, _ = train_grown("random growth", at_random, data, arguments)
    dense_network, dense = train_dense(data, arguments)

    print(keras_grow.report(network, (data.x_train,)), end="\n\n")
    print_table([grown, random, dense])
    print()
    save(network, dense_network, data.x_test, arguments.output)
    draw_connections(images, arguments.output / "connections.png")
    print(f"{time.perf_counter() - started:.0f} seconds; files in {arguments.output}")


if __name__ == "__main__":
    main()
