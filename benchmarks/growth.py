"""Growth over a whole training set in units of a training epoch, and the exact choice of the best.

    python -m benchmarks.growth

takes about five minutes and 4 GiB; `--quick` measures little.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from keras_grow.change import choose, gather_evidence
from keras_grow.connections.selection import best_candidates

COMMAND = "python -m benchmarks.growth"
LENET = (784, 300, 100, 10)
# Scores, and how many are chosen.
SELECTIONS = [
    (10**6, 10**4),
    (2**22, 2**22 // 100),
    (2**24, 10**4),
    (2**24, 2**24 // 100),
    (2**24, 2**24 // 10),
    (10**8, 10**6),
]
TOP_K = "tf.math.top_k"


def make_model(sizes: tuple[int, ...], xla: bool) -> keras.Model:
    """A compiled classifier of masked layers at a density of 10%."""
    keras.utils.set_random_seed(0)
    inputs, *hidden, outputs = sizes
    options = {"initial_density": 0.1, "seed": 0}
    model = keras.Sequential(
        [
            keras.Input((inputs,)),
            *(keras_grow.GrowableDense(units, "relu", **options) for units in hidden),
            keras_grow.GrowableDense(outputs, "softmax", **options),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=xla)
    return model


def make_data(num_samples: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and classes: what a step costs does not depend on what they are."""
    random = np.random.default_rng(0)
    x = random.random((num_samples, sizes[0]), dtype="float32")
    return x, random.integers(sizes[-1], size=num_samples)


def in_epochs(num_samples: int, xla: bool, rounds: int) -> dict:
    """A training epoch, growth, and its parts, interleaved: a `harness.Timing` of each."""
    model, data = make_model(LENET, xla), make_data(num_samples, LENET)
    meters = {size: keras_grow.GradientMeter(batch_size=size, verbose=0) for size in (1000, 5000)}
    layers = keras_grow.growable_layers(model)
    score = keras_grow.scores.GradientMagnitude()
    evidence, _ = gather_evidence(
        model,
        data,
        layers,
        needs_gradient=True,
        needs_input_rms=False,
        meter=meters[1000],
        optimizer=model.optimizer,
    )

    def epoch():
        model.fit(*data, batch_size=128, verbose=0)

    def grow(meter):
        # Pruned again, so that each round grows as many from as many.
        grown = keras_grow.grow(model, data, count=5_000, meter=meter)
        for layer, change in zip(layers, grown.layers, strict=True):
            layer.prune_connections(change.indices)

    def select():
        choose(
            [(layers, 5_000)],
            lambda layer, count: layer.propose_growth(count, score, evidence[layer]),
        )

    variants = {
        "training epoch, batch 128": epoch,
        "growth, batches of 1,000": lambda: grow(meters[1000]),
        "growth, batches of 5,000": lambda: grow(meters[5000]),
        "of it the selection": select,
    }
    times = harness.compare(variants, "training epoch, batch 128", rounds=rounds, warm_up=1)
    return {name: dataclasses.asdict(timing) for name, timing in times.items()}


def selection(size: int, count: int, seconds: float) -> dict:
    """The exact choice of the best by three ways, interleaved: a `harness.Timing` of each."""
    random = np.random.default_rng(0)
    scores = tf.abs(tf.constant(random.standard_normal(size, "float32")))
    everyone = tf.ones(size, tf.bool)
    expected = np.sort(tf.math.top_k(scores, count).indices)
    found = best_candidates(scores, everyone, count).indices
    assert np.array_equal(np.sort(found), expected)
    variants = {
        TOP_K: lambda: tf.math.top_k(scores, count).indices.numpy(),
        "numpy.argpartition": lambda: np.argpartition(scores.numpy(), size - count)[-count:],
        "keras_grow": lambda: best_candidates(scores, everyone, count).indices.numpy(),
    }
    times = harness.compare(variants, TOP_K, rounds=15, max_seconds=seconds, warm_up=1)
    return {name: dataclasses.asdict(timing) for name, timing in times.items()}


def peaks(width: int) -> dict[str, int]:
    """The memory that training and growth of one square layer take at most, in bytes."""
    sizes = (width, width, 10)
    model, (x, y) = make_model(sizes, xla=False), make_data(2_000, sizes)
    resident_before = harness.resident_bytes()
    model.fit(x, y, batch_size=128, verbose=0)
    training = harness.peak_bytes()
    harness.forget_peak()
    resident = harness.resident_bytes()
    keras_grow.grow(model, (x, y), count=10_000)
    return {
        "kernel": 4 * width * width,
        "training": training - resident_before,
        "before": resident - resident_before,
        "growth": harness.peak_bytes() - resident_before,
    }


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes tables to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of each")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    num_samples = 3_000 if quick else 60_000
    epochs = {}
    for xla in (False, True):
        epochs[xla] = harness.run_alone(
            "benchmarks.growth:in_epochs",
            num_samples=num_samples,
            xla=xla,
            rounds=3 if quick else 15,
        ).result
        print({name: t["ratio"] for name, t in epochs[xla].items()}, flush=True)
    selections = []
    for size, count in SELECTIONS[:1] if quick else SELECTIONS:
        times = harness.run_alone(
            "benchmarks.growth:selection", size=size, count=count, seconds=40.0
        ).result
        selections.append({"size": size, "count": count, "times": times})
        print(size, count, {name: t["ratio"] for name, t in times.items()}, flush=True)
    width = 512 if quick else 4096
    memory = harness.run_alone("benchmarks.growth:peaks", width=width).result
    print(memory, flush=True)

    def ratio(timing):
        low, high = timing["interval"]
        return f"{timing['ratio']:.3f} ({low:.3f} to {high:.3f})"

    megabytes = {name: f"{size / 1e6:.0f} MB" for name, size in memory.items()}
    text = [
        "## In units of a training epoch",
        f"LeNet-300-100 of masked layers at 10%, {num_samples:,} samples from memory, Adam; growth "
        "of 5,000 connections: gradients, selection and waking. Ratios are medians over rounds "
        "in which all ran, with 95% intervals.",
        *(
            part
            for xla, times in epochs.items()
            for part in (
                f"Training with{'' if xla else 'out'} XLA:",
                harness.table(
                    ["what", "seconds", "by epoch (95%)"],
                    [[name, f"{t['median']:.4f}", ratio(t)] for name, t in times.items()],
                ),
            )
        ),
        "## The best of many, exactly",
        "Random scores, the largest of them by three ways; the choices are the same. "
        "`numpy.argpartition` leaves them unsorted.",
        harness.table(
            ["scores", "chosen", *(f"{name}, ms" for name in selections[0]["times"]), "95%"],
            [
                [
                    f"{row['size']:,}",
                    f"{row['count']:,}",
                    *(f"{1e3 * t['median']:.1f}" for t in row["times"].values()),
                    f"keras_grow by top_k {ratio(row['times']['keras_grow'])}",
                ]
                for row in selections
            ],
        ),
        "## Memory",
        f"A masked layer of {width} x {width}, whose kernel takes {megabytes['kernel']}, in one "
        "process. Beyond what was held once the model was built, training with Adam took "
        f"{megabytes['training']} at most; before growth {megabytes['before']} were held, freed "
        f"buffers included, and {megabytes['growth']} at most while it ran.",
    ]
    data = {
        "epochs": {"XLA" if xla else "no XLA": times for xla, times in epochs.items()},
        "selections": selections,
        "peak_bytes": memory,
    }
    title = "Growth: the cost of a step, and of the choice"
    harness.write("growth", title, text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
