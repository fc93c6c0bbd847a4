"""Growth of sparse layers: the search by tiles beside one matrix product, and what a change costs.

    python -m benchmarks.tiled_growth --data-dir DIR

takes about three minutes; DIR is where `tensorflow_datasets` keeps MNIST.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from benchmarks.sparse import make_step
from keras_grow.search.tiled_array import FactoredArray
from keras_grow.search.tiled_search import best_dormant

COMMAND = "python -m benchmarks.tiled_growth"
SAMPLES = 1000


class CountedGradient(FactoredArray):
    """Counts the tiles that are computed."""

    num_tiles = 0

    def tiles(self, blocks):
        """As the base does."""
        self.num_tiles += len(blocks)
        return super().tiles(blocks)


def multiply(gradient: FactoredArray, tile_shape: tuple[int, int]) -> None:
    """All of X^T D, tile by tile, and nothing else: what the search is measured by."""
    height, width = tile_shape
    for row in range(0, gradient.shape[0], height):
        x = gradient.inputs[row : row + height]
        for column in range(0, gradient.shape[1], width):
            d = gradient.output_gradients[column : column + width]
            tile = tf.matmul(x, d, transpose_b=True)
    tile.numpy()


def measure_search(name: str, inputs, output_gradients, count: int, rounds: int) -> dict:
    """The search's time by that of the product, interleaved, and its share of the tiles."""
    gradient = CountedGradient(inputs, output_gradients)
    search = keras_grow.TiledSearch(verbose=0)
    score = keras_grow.scores.GradientMagnitude()
    active = np.zeros(0, np.int64)
    statistics = {keras_grow.statistics.Gradient(): gradient}

    def run():
        best_dormant(gradient.shape, active, count, score, statistics, search=search)

    run()
    tiles = [-(-side // step) for side, step in zip(gradient.shape, search.tile_shape, strict=True)]
    share = gradient.num_tiles / (tiles[0] * tiles[1])
    variants = {"product": lambda: multiply(gradient, search.tile_shape), "search": run}
    times = harness.compare(variants, "product", rounds=rounds, warm_up=1)
    found = {
        "data": name,
        "shape": gradient.shape,
        "count": count,
        "share_of_tiles": share,
        "product_seconds": times["product"].median,
        "search_seconds": times["search"].median,
        "ratio": times["search"].ratio,
        "interval": times["search"].interval,
        "control_interval": times[harness.CONTROL].interval,
    }
    print(found, flush=True)
    return found


def trained_factors(width: int, steps: list[int], data_dir: str | None):
    """Activities of the second hidden layer of a wide sparse network, at moments of training."""
    import tensorflow_datasets as tfds

    images, labels = tfds.as_numpy(
        tfds.load("mnist", split="train", data_dir=data_dir, batch_size=-1, as_supervised=True)
    )
    images = images.reshape(len(images), -1).astype("float32") / 255
    keras.utils.set_random_seed(0)
    hidden = [
        keras_grow.SparseDense(
            width,
            "relu",
            kernel_initializer=keras_grow.ActiveFanIn("he_normal"),
            capacity=keras_grow.densities.FanIn(8),
            name=name,
        )
        for name in ("first", "second")
    ]
    network = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss)
    chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLES]
    done = 0
    for step in steps:
        while done < step:
            some = slice(256 * (done % 234), 256 * (done % 234 + 1))
            network.train_on_batch(images[some], labels[some])
            done += 1
        meter = keras_grow.GradientMeter(batch_size=250, verbose=0)
        search = keras_grow.TiledSearch(max_bytes=2**32)
        layer = network.get_layer("second")
        measured = meter.measure(network, (images[chosen], labels[chosen]), [layer], search=search)
        yield step, measured.gradients[layer]


def measure_change(width: int, connections: int, share: float) -> dict:
    """Growing and pruning a share of a layer's connections, slots moved, in steps."""
    layer = keras_grow.SparseDense(
        width, capacity=connections, initial_density=0.9 * connections / width**2, seed=0
    )
    layer.build((None, width))
    optimizer = keras.optimizers.Adam()
    step = make_step(layer, width, 128, optimizer)
    count = int(share * connections)
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"step": [], "grow": [], "prune": []}
    step()
    for _ in range(5):
        active = layer.active_connections()[0].numpy()
        new = np.setdiff1d(np.unique(random.integers(width**2, size=count)), active)
        old = random.choice(active, len(new), replace=False)
        for name, run in [
            ("step", step),
            ("grow", lambda new=new: _change(optimizer, layer.grow_connections(new))),
            ("prune", lambda old=old: _change(optimizer, layer.prune_connections(old))),
        ]:
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    found = {name: float(np.median(times)) for name, times in seconds.items()}
    print(found, flush=True)
    return found | {"width": width, "connections": connections, "changed": count}


def _change(optimizer, changes) -> None:
    keras_grow.optimizer_slots.reset_slots(optimizer, changes)


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the tables to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--width", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    width, rounds = arguments.width, arguments.rounds
    counts = [width**2 // 10_000, width**2 // 100_000]

    searches = []
    x, d = (tf.random.stateless_normal((width, SAMPLES), (seed, 0)) for seed in (1, 2))
    for count in counts:
        searches.append(measure_search("no structure", x, d, count, rounds))
    del x, d
    for step, gradient in trained_factors(width, [20, 234, 702], arguments.data_dir):
        for count in counts:
            found = measure_search(
                f"MNIST, after {step} steps",
                gradient.inputs,
                gradient.output_gradients,
                count,
                rounds,
            )
            searches.append(found)
    change = measure_change(width, int(0.01 * width**2), 0.01)

    def line(found):
        low, high = found["interval"]
        control_low, control_high = found["control_interval"]
        return [
            found["data"],
            f"{found['count']:,}",
            f"{found['share_of_tiles']:.0%}",
            f"{found['product_seconds']:.2f}",
            f"{found['search_seconds']:.2f}",
            f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{control_low:.2f} to {control_high:.2f}",
        ]

    header = ["activities", "connections to grow", "tiles computed", "product, s", "search, s"]
    header += ["search by product (95%)", "A/A"]
    text = [
        f"The best dormant of the {width:,} x {width:,} connections of a layer, from {SAMPLES:,} "
        "samples, beside the bare product X^T D over all tiles, interleaved. The trained network "
        f"is 784-{width}-{width}-10 with 8 connections per unit, its second hidden layer.",
        harness.table(header, [line(found) for found in searches]),
        f"## Changing connections: {change['changed']:,} of {change['connections']:,}",
        harness.table(
            ["", "seconds", "in steps"],
            [
                [name, f"{change[key]:.3f}", f"{change[key] / change['step']:.2f}"]
                for name, key in [
                    ("training step, batch 128", "step"),
                    ("grow, with Adam's slots", "grow"),
                    ("prune, with Adam's slots", "prune"),
                ]
            ],
        ),
    ]
    data = {"searches": searches, "change": change}
    title = "Growth of sparse layers: the search by tiles"
    harness.write("tiled_growth", title, text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
