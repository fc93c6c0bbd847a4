"""Growth over a whole training set in units of a training epoch, and its memory.

    python -m benchmarks.growth

takes about five minutes and 4 GiB; `--quick` measures little.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

import keras_grow
from benchmarks import harness
from keras_grow.connections.amounts import Group, choose
from keras_grow.connections.measured import measure_statistics

COMMAND = "python -m benchmarks.growth"
LENET = (784, 300, 100, 10)


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
    measured, _ = measure_statistics(
        model, data, layers, [score], meter=meters[1000], optimizer=model.optimizer
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
            [Group(layers, 5_000, [layer.num_free for layer in layers])],
            lambda layer, count: layer.growth_candidates(count, score, measured[layer]),
        )

    variants = {
        "training epoch, batch 128": epoch,
        "growth, batches of 1,000": lambda: grow(meters[1000]),
        "growth, batches of 5,000": lambda: grow(meters[5000]),
        "of it the selection": select,
    }
    times = harness.compare(variants, "training epoch, batch 128", rounds=rounds, warm_up=1)
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
        "## Memory",
        f"A masked layer of {width} x {width}, whose kernel takes {megabytes['kernel']}, in one "
        "process. Beyond what was held once the model was built, training with Adam took "
        f"{megabytes['training']} at most; before growth {megabytes['before']} were held, freed "
        f"buffers included, and {megabytes['growth']} at most while it ran.",
    ]
    data = {
        "epochs": {"XLA" if xla else "no XLA": times for xla, times in epochs.items()},
        "peak_bytes": memory,
    }
    title = "Growth: the cost of a step"
    harness.write("growth", title, text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
