"""The exact choice of the largest of many scores, and what pruning and growing models take.

    python -m benchmarks.ranking

takes about five minutes and 4 GiB; `--quick` measures little.
"""

import argparse
import dataclasses
import itertools
import pathlib
import time
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from keras_grow.search.flat_arrays import in_place
from keras_grow.search.ranking import largest
from keras_grow.search.selection import best_candidates

COMMAND = "python -m benchmarks.ranking"
SIZES = (10**6, 2**24, 10**8)
SHARES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
PARTITION = "numpy.argpartition"
# 20.9 million connections.
WIDTHS = (1000, 4096, 4096, 10)


def choices(size: int, shares: list[float], zeros: float, rounds: int) -> list[dict]:
    """The largest of random scores, a share of which is 0: a `harness.Timing` of each way."""
    random = np.random.default_rng(0)
    scores = np.abs(random.standard_normal(size, "float32"))
    if zeros:
        scores[random.random(size, "float32") < zeros] = 0
    scores, everyone = tf.constant(scores), tf.ones(size, tf.bool)
    array = in_place(scores)
    found = []
    for share in shares:
        count = round(share * size)
        least = np.partition(array, size - count)[size - count]
        chosen = largest(array, count)
        assert len(chosen) == count
        assert np.all(array[chosen] >= least)
        variants = {
            PARTITION: lambda count=count: np.argpartition(array, size - count)[-count:],
            "keras_grow": lambda count=count: largest(array, count),
            "with scores": lambda count=count: best_candidates(scores, everyone, count),
        }
        times = harness.compare(variants, PARTITION, rounds=rounds, max_seconds=15.0, warm_up=1)
        timings = {name: dataclasses.asdict(timing) for name, timing in times.items()}
        found.append({"size": size, "share": share, "zeros": zeros, "times": timings})
    return found


def verbs(widths: list[int], rounds: int) -> dict[str, float]:
    """Median seconds of pruning and growing a compiled stack of dense layers, Adam's slots too."""
    keras.utils.set_random_seed(0)
    inputs, *units = widths
    model = keras.Sequential([keras.Input((inputs,)), *map(keras_grow.GrowableDense, units)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    layers = keras_grow.growable_layers(model)
    dense = model.get_weights()
    flat = np.concatenate([np.abs(layer.kernel.numpy()).reshape(-1) for layer in layers])
    median = float(np.median(flat))
    keras_grow.prune(model, density=0.05)
    sparse = model.get_weights()
    by_chance = keras_grow.scores.Random(0)
    runs = {
        "prune to 50%": (dense, lambda: keras_grow.prune(model, density=0.5)),
        "prune to 50%, per layer": (
            dense,
            lambda: keras_grow.prune(model, density=0.5, per_layer=True),
        ),
        "prune half by a threshold": (dense, lambda: keras_grow.prune(model, threshold=median)),
        "prune to 5%": (dense, lambda: keras_grow.prune(model, density=0.05)),
        "prune to 5%, per layer": (
            dense,
            lambda: keras_grow.prune(model, density=0.05, per_layer=True),
        ),
        "prune from 5% to 4%": (sparse, lambda: keras_grow.prune(model, density=0.04)),
        "grow from 5% to 6%": (
            sparse,
            lambda: keras_grow.grow(model, density=0.06, score=by_chance),
        ),
        "grow from 5% to 55%": (
            sparse,
            lambda: keras_grow.grow(model, density=0.55, score=by_chance),
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (weights, run) in runs.items():
            model.set_weights(weights)
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def neurons(num_samples: int) -> float:
    """Seconds of `prune_neurons` on a growable ResNet50 for images of 64 x 64."""
    keras.utils.set_random_seed(0)
    plain = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    model = keras_grow.make_growable(plain)
    x = np.random.default_rng(0).normal(size=(num_samples, 64, 64, 3)).astype("float32")
    started = time.perf_counter()
    keras_grow.prune_neurons(model, count=100, data=(x,))
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes tables to benchmarks/results."""
    warnings.simplefilter("ignore")  # That little is left is what is asked for here.
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of each")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    asked = [(size, SHARES, 0.0) for size in SIZES[: 1 if quick else None]]
    asked += [(size, (0.1, 0.5, 0.9), 0.5) for size in SIZES[: 1 if quick else 2]]
    rows = []
    for size, shares, zeros in asked:
        rows += harness.run_alone(
            "benchmarks.ranking:choices",
            size=size,
            shares=shares,
            zeros=zeros,
            rounds=3 if quick else 101,
        ).result
        for row in rows[-len(shares) :]:
            print(size, row["share"], {n: t["ratio"] for n, t in row["times"].items()}, flush=True)
    widths = (100, 200, 10) if quick else WIDTHS
    seconds = harness.run_alone(
        "benchmarks.ranking:verbs", widths=widths, rounds=1 if quick else 3
    ).result
    print(seconds, flush=True)
    num_samples = 8
    of_neurons = None
    if not quick:
        of_neurons = harness.run_alone("benchmarks.ranking:neurons", num_samples=num_samples).result
        print(of_neurons, flush=True)

    def line(row):
        times = row["times"]
        low, high = times["keras_grow"]["interval"]
        control_low, control_high = times[harness.CONTROL]["interval"]
        return [
            f"{row['size']:,}" + (f", {row['zeros']:.0%} of them 0" if row["zeros"] else ""),
            f"{row['share']:.1%}",
            *(f"{1e3 * times[name]['median']:.1f}" for name in (PARTITION, "keras_grow")),
            f"{times['keras_grow']['ratio']:.2f} ({low:.2f} to {high:.2f})",
            f"{control_low:.2f} to {control_high:.2f}",
            f"{times['with scores']['ratio']:.2f}",
        ]

    header = ["scores", "chosen", f"{PARTITION}, ms", "keras_grow, ms", "by argpartition (95%)"]
    header += ["A/A", "with scores, as tensors"]
    connections = sum(a * b for a, b in itertools.pairwise(widths))
    text = [
        "## The largest of many, exactly",
        "Random scores and the positions of the largest, interleaved. Both leave them unsorted by "
        "score; keras_grow's ascend, and of equals it takes the first. The last column is what a "
        "layer finds: positions and scores as new tensors, whose memory costs as much again.",
        harness.table(header, [line(row) for row in rows]),
        "## Whole changes",
        f"A compiled {'-'.join(map(str, widths))} of masked layers, {connections:,} connections, "
        "with Adam's slots: scores, choice, masks, weights and slots. Growth is by random scores, "
        "without a measurement.",
        harness.table(["", "seconds"], [[name, f"{t:.2f}"] for name, t in seconds.items()]),
    ]
    if of_neurons is not None:
        text.append(
            f"`prune_neurons` of 100 units of a growable ResNet50 for images of 64 x 64, with "
            f"{num_samples} samples: {of_neurons:.1f} s, most of it one trace of the model."
        )
    data = {"choices": rows, "seconds": seconds, "neurons": of_neurons}
    harness.write("ranking", "Ranking connections", text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
