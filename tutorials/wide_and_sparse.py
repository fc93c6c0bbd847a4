"""A network that could not be dense: two hidden layers of 65,536 units that grow on MNIST.

Between the two layers lie 4.3 billion possible connections: 17 GB as one dense matrix, 69 GB with
its gradient and Adam's moments. Here both layers hold a few connections per unit and grow by the
gradient to twice as many, on any machine with 4 GiB of memory, in a quarter of an hour. Controls:
a network with as many random connections from the start, one that grows at random, and a dense
one of as many weights that trains for the same time.

    python tutorials/wide_and_sparse.py                                # 8x8 digits, 512 units
    python tutorials/wide_and_sparse.py --dataset mnist --width 65536 --epochs 5 --batch-size 256

The recipe was fixed before the controls were run; each network sees the test images once, at the
end.
"""

import argparse
import os
import pathlib
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from lenet_300_100 import Data, load_data, test_accuracy

import keras_grow

LEARNING_RATE = 1e-3
# Connections per unit of the two hidden layers, at first and at last.
INITIAL_FAN_IN, FINAL_FAN_IN = 4, 8
NETWORKS = ("gradient growth", "random growth", "static random", "dense, same time")


class Result(NamedTuple):
    """A line of the table."""

    name: str
    accuracy: float
    weights: int
    epochs: int
    seconds: float
    growth_seconds: float
    peak_gib: float


class PeakMemory(keras.callbacks.Callback):
    """The largest memory that the process was seen to hold, in GiB, where the system tells."""

    def __init__(self):
        super().__init__()
        self.peak = 0.0
        # From here on, not from what came before.
        if (clear := pathlib.Path("/proc/self/clear_refs")).exists():
            clear.write_text("5")

    def on_epoch_end(self, epoch, logs=None):
        """Reads the system's high-water mark."""
        if (status := pathlib.Path("/proc/self/status")).exists():
            line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
            self.peak = int(line.split()[1]) / 2**20


class TimeLimit(keras.callbacks.Callback):
    """Stops the training after the first step that ends later than `seconds` from its begin."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        self.end = time.perf_counter() + self.seconds

    def on_train_batch_end(self, batch, logs=None):
        """Looks at it."""
        if time.perf_counter() > self.end:
            self.model.stop_training = True


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--width", type=int, default=512, help="units of both hidden layers")
    parser.add_argument("--epochs", type=int, default=60, help="of each network, at least 3")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--growth-images", type=int, default=500)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    least = {"width": 16, "epochs": 3, "batch_size": 1, "growth_images": 1, "seed": 0}
    for option, limit in least.items():
        if getattr(arguments, option) < limit:
            parser.error(f"--{option.replace('_', '-')} must be at least {limit}")
    return arguments


def build_sparse(num_inputs: int, width: int, initial_fan_in: float) -> keras.Sequential:
    """Two wide layers that hold `FINAL_FAN_IN` connections per unit at most."""

    def wide(name: str) -> keras_grow.SparseDense:
        return keras_grow.SparseDense(
            width,
            "relu",
            kernel_initializer=keras_grow.ActiveFanIn("he_normal"),
            initial_density=keras_grow.densities.FanIn(initial_fan_in),
            capacity=keras_grow.densities.FanIn(FINAL_FAN_IN),
            name=name,
        )

    classes = keras.layers.Dense(10, name="classes")
    return keras.Sequential([keras.Input((num_inputs,)), wide("first"), wide("second"), classes])


def build_dense(num_inputs: int, num_weights: int) -> keras.Sequential:
    """Two equal hidden layers with about `num_weights` weights in all."""
    # units^2 + (inputs + 10) units = weights
    half = (num_inputs + 10) / 2
    units = round((half**2 + num_weights) ** 0.5 - half)
    hidden = [keras.layers.Dense(units, "relu", kernel_initializer="he_normal") for _ in range(2)]
    return keras.Sequential([keras.Input((num_inputs,)), *hidden, keras.layers.Dense(10)])


def compile_network(network: keras.Model, num_steps: int) -> None:
    """Adam, whose learning rate falls to 0 along a cosine."""
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, num_steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def growth_callback(
    network: keras.Model, score: keras_grow.scores.Score, data: Data, arguments
) -> keras_grow.GrowthCallback:
    """Equal parts for both layers before each epoch of the first half of the training."""
    num_growths = max(1, arguments.epochs // 2)
    count = network.get_layer("first").num_free // num_growths
    images = np.random.default_rng(arguments.seed).permutation(len(data.x_train))
    images = images[: arguments.growth_images]
    return keras_grow.GrowthCallback(
        (data.x_train[images], data.y_train[images]),
        count=count,
        per_layer=True,
        score=score,
        when=keras_grow.Epochs(stop=num_growths + 1),
        meter=keras_grow.GradientMeter(batch_size=250),
        search=keras_grow.TiledSearch(max_seconds=120),
    )


def train_sparse(name: str, data: Data, arguments: argparse.Namespace) -> Result:
    """The network that grows, or one of its sparse controls."""
    keras.utils.set_random_seed(arguments.seed)
    fan_in = FINAL_FAN_IN if name == "static random" else INITIAL_FAN_IN
    memory = PeakMemory()
    network = build_sparse(data.x_train.shape[1], arguments.width, fan_in)
    compile_network(network, arguments.epochs * -(-len(data.x_train) // arguments.batch_size))
    callbacks: list[keras.callbacks.Callback] = [memory]
    if name != "static random":
        score = keras_grow.scores.GradientMagnitude()
        if name == "random growth":
            score = keras_grow.scores.Random(arguments.seed)
        callbacks.insert(0, growth_callback(network, score, data, arguments))
    started = time.perf_counter()
    logs = fit(network, data, arguments, callbacks)
    seconds = time.perf_counter() - started
    print(keras_grow.report(network), end="\n\n")
    output_weights = network.get_layer("classes").kernel.shape.num_elements()
    return Result(
        name,
        test_accuracy(network, data),
        keras_grow.report(network).num_active + output_weights,
        arguments.epochs,
        seconds,
        sum(logs.get("growth_seconds", [])),
        memory.peak,
    )


def train_dense(data: Data, arguments: argparse.Namespace, seconds: float, weights: int) -> Result:
    """The dense control: as many weights, and the same time.

    The learning rate falls over as many epochs as should fit into it; should the machine slow down,
    the training ends with the time.
    """
    keras.utils.set_random_seed(arguments.seed)
    network = build_dense(data.x_train.shape[1], weights)
    num_batches = -(-len(data.x_train) // arguments.batch_size)
    compile_network(network, num_batches)
    # The second epoch tells what an epoch takes; the first traces as well.
    fit(network, data, argparse.Namespace(**{**vars(arguments), "epochs": 1}), [])
    started = time.perf_counter()
    fit(network, data, argparse.Namespace(**{**vars(arguments), "epochs": 1}), [])
    epochs = max(1, int(seconds / (time.perf_counter() - started)))

    keras.utils.set_random_seed(arguments.seed)
    memory = PeakMemory()
    network = build_dense(data.x_train.shape[1], weights)
    compile_network(network, epochs * num_batches)
    started = time.perf_counter()
    planned = argparse.Namespace(**{**vars(arguments), "epochs": epochs})
    logs = fit(network, data, planned, [memory, TimeLimit(seconds)])
    epochs = len(logs["loss"])
    seconds = time.perf_counter() - started
    weights = sum(layer.kernel.shape.num_elements() for layer in network.layers)
    accuracy = test_accuracy(network, data)
    return Result("dense, same time", accuracy, weights, epochs, seconds, 0.0, memory.peak)


def fit(network: keras.Model, data: Data, arguments: argparse.Namespace, callbacks: list) -> dict:
    """Trains; returns what was logged of each epoch."""
    return network.fit(
        data.x_train,
        data.y_train,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        callbacks=callbacks,
        verbose=2 if arguments.width > 4096 and callbacks else 0,
    ).history


def print_table(results: list[Result]) -> None:
    """One line for each network."""
    print("network             accuracy     error    weights  epochs  seconds  growing  peak GiB")
    for result in results:
        print(
            f"{result.name:18}  {result.accuracy:8.2%}  {1 - result.accuracy:8.2%} "
            f"{result.weights:10,} {result.epochs:7,} {result.seconds:8.0f} "
            f"{result.growth_seconds:8.1f} {result.peak_gib:9.2f}"
        )
    print("Accuracy and error on the test images. Seconds of training, growth included. The peak")
    print("is that of the whole process, TensorFlow and the images included.")


def main(argv: list[str] | None = None) -> None:
    """Trains the networks one after the other, and prints how they compare."""
    arguments = parse_arguments(argv)
    data = load_data(arguments.dataset, arguments.data_dir)
    results: list[Result] = []
    for name in arguments.networks:
        if name != "dense, same time":
            results.append(train_sparse(name, data, arguments))
            print(results[-1], end="\n\n", flush=True)
    if "dense, same time" in arguments.networks:
        if not results:
            raise SystemExit("The dense network takes its time and size from a sparse one.")
        results.append(train_dense(data, arguments, results[0].seconds, results[0].weights))
    print_table(results)


if __name__ == "__main__":
    main()
