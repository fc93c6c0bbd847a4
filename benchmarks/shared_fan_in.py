"""Sparse layers whose units share their inputs in groups beside dense ones: time and memory.

    python -m benchmarks.shared_fan_in

takes about five minutes and 2 GiB; `--quick` measures one small layer.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness

COMMAND = "python -m benchmarks.shared_fan_in"
BATCH = 128
# Inputs and units, density.
LAYERS = [(4096, 0.1), (4096, 0.02), (1024, 0.1), (1024, 0.02)]
GROUP_SIZES = [8, 16, 32, 64]
DENSE, MASKED = "keras.layers.Dense", "GrowableDense"
UNEQUAL = "group_size=64, unequal groups"


def kinds() -> list[str]:
    """What is compared."""
    groups = [f"group_size={size}" for size in GROUP_SIZES]
    return [DENSE, MASKED, "SparseDense", *groups, UNEQUAL]


def make_layer(kind: str, width: int, density: float) -> keras.Layer:
    """A built layer of `width` inputs and units with that share of its connections."""
    if kind == DENSE:
        layer = keras.layers.Dense(width)
    elif kind == MASKED:
        layer = keras_grow.GrowableDense(width, initial_density=density, seed=0)
    else:
        size = int(kind.removeprefix("group_size=").partition(",")[0]) if "=" in kind else 1
        layer = keras_grow.SparseDense(width, capacity=density, group_size=size, seed=0)
    layer.build((None, width))
    if kind == UNEQUAL:
        _spread_unequally(layer)
    return layer


def _spread_unequally(layer: keras_grow.SparseDense) -> None:
    """Gives groups fan-ins whose logarithms deviate by 0.5, as growth over all groups may."""
    random = np.random.default_rng(0)
    num_inputs, num_units = layer.kernel_shape
    size, num_groups = layer.group_size, num_units // layer.group_size
    shares = np.exp(0.5 * random.normal(size=num_groups))
    counts = np.floor(shares / shares.sum() * layer.capacity / size).astype(int)
    counts = np.minimum(counts, num_inputs)
    inputs = [random.choice(num_inputs, count, replace=False) for count in counts]
    atoms = np.concatenate(inputs) * num_groups + np.repeat(np.arange(num_groups), counts)
    connections = np.sort(atoms)[:, None] * size + np.arange(size)
    layer.prune_connections(layer.active_connections()[0])
    values = random.normal(size=connections.size) / np.sqrt(num_inputs)
    layer.grow_connections(connections.reshape(-1), values)


def make_step(layer: keras.Layer) -> Callable[[], float]:
    """The forward pass of a layer inside a network, and the gradients of inputs and weights."""
    random = np.random.default_rng(0)
    num_inputs = layer.kernel_shape[0] if hasattr(layer, "kernel_shape") else layer.kernel.shape[0]
    x, upstream = (
        tf.constant(random.normal(size=(BATCH, size)).astype("float32"))
        for size in (num_inputs, layer.units)
    )

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
        gradients = tape.gradient(outputs, [x, *layer.trainable_variables], upstream)
        return outputs, gradients

    return lambda: float(step()[0][0, 0])


def interleave(width: int, density: float, rounds: int) -> dict:
    """All kinds interleaved in one process: a `harness.Timing` of each, as a dict."""
    steps = {kind: make_step(make_layer(kind, width, density)) for kind in kinds()}
    control = make_step(make_layer(DENSE, width, density))
    times = harness.compare(steps, DENSE, rounds=rounds, control=control)
    return {kind: dataclasses.asdict(timing) for kind, timing in times.items()}


def run_steps(kind: str, width: int, density: float) -> None:
    """Makes a layer and takes a few steps."""
    step = make_step(make_layer(kind, width, density))
    for _ in range(3):
        step()


def measure(layers: list[tuple[int, float]], rounds: int) -> list[dict]:
    """Times interleaved, and the memory of each kind in a process of its own."""
    found = []
    for width, density in layers:
        shape = {"width": width, "density": density}
        times = harness.run_alone(
            "benchmarks.shared_fan_in:interleave", rounds=rounds, **shape
        ).result
        for kind, timing in times.items():
            row = {"kind": kind, **shape, "seconds": timing["median"]}
            # As many times as fast: the inverse of its time by that of the dense layer.
            low, high = timing["interval"]
            row |= {"speedup": 1 / timing["ratio"], "interval": [1 / high, 1 / low]}
            if kind != harness.CONTROL:
                function = "benchmarks.shared_fan_in:run_steps"
                row["peak_bytes"] = harness.run_alone(function, kind=kind, **shape).peak_bytes
            found.append(row)
            print(row, flush=True)
    return found


def _table(rows: list[dict]) -> str:
    header = ["layer", "kind", "step, ms", "as many times as fast as Dense (95%)", "memory, MB"]
    lines = []
    for row in rows:
        low, high = row["interval"]
        lines.append(
            [
                f"{row['width']:,} x {row['width']:,}, {row['density']:.0%}",
                row["kind"],
                f"{1e3 * row['seconds']:.2f}",
                f"{row['speedup']:.2f} ({low:.2f} to {high:.2f})",
                f"{row['peak_bytes'] / 1e6:,.0f}" if "peak_bytes" in row else "",
            ]
        )
    return harness.table(header, lines)


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes a table to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small layer only")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    layers, rounds = ([(256, 0.1)], 5) if arguments.quick else (LAYERS, 40)
    rows = measure(layers, rounds)
    text = [
        f"A step is the forward pass of one layer at a batch of {BATCH} and the gradients of its "
        "inputs and weights, in a plain `tf.function`, without an optimizer. Layers named together "
        "ran interleaved in one process, and are compared by the ratio within a round; memory is "
        "the peak above what the process held after its imports, in a process of its own, "
        "TensorFlow's own start included.",
        "Layers start with equally many inputs for each group of units. In the one with unequal "
        "groups, the logarithms of their fan-ins deviate by 0.5.",
        _table(rows),
    ]
    harness.write(
        "shared_fan_in",
        "Sparse layers whose units share their inputs",
        text,
        rows,
        COMMAND,
        arguments.output,
    )


if __name__ == "__main__":
    main()
