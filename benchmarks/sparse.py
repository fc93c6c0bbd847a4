"""Sparse layers beside masked and dense ones: the time and the memory of a training step.

    python -m benchmarks.sparse

takes about ten minutes and 20 GiB; `--quick` leaves out what needs more than 4 GiB or a minute.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness

COMMAND = "python -m benchmarks.sparse"
# Inputs, units, connections, batch.
SIDE_BY_SIDE = [
    (784, 300, 3_900, 128),
    (4096, 4096, 167_772, 128),
    (4096, 4096, 838_860, 128),
    (4096, 4096, 1_677_721, 128),
    (16384, 16384, 2_684_355, 128),
]
ALONE = [(65536, 65536, 10_000_000, 128), (1_000_000, 1_000_000, 10_000_000, 32)]
KINDS = {"sparse": "SparseDense", "masked": "GrowableDense", "dense": "keras.layers.Dense"}


def make_layer(kind: str, num_inputs: int, units: int, connections: int) -> keras.Layer:
    """A built layer with about `connections` active connections; `dense` has all."""
    density = connections / (num_inputs * units)
    layer = {
        "sparse": lambda: keras_grow.SparseDense(units, capacity=connections, seed=0),
        "masked": lambda: keras_grow.GrowableDense(units, initial_density=density, seed=0),
        "dense": lambda: keras.layers.Dense(units),
    }[kind]()
    layer.build((None, num_inputs))
    return layer


def make_step(
    layer: keras.Layer, num_inputs: int, batch: int, optimizer: keras.Optimizer | None = None
) -> Callable[[], float]:
    """A training step of a layer inside a network: the gradients of its inputs count too."""
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(batch, num_inputs)).astype("float32"))
    target = tf.constant(random.normal(size=(batch, layer.units)).astype("float32"))
    optimizer = keras.optimizers.Adam() if optimizer is None else optimizer
    optimizer.build(layer.trainable_variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(layer(x) - target))
        of_x, *gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        optimizer.apply(gradients, layer.trainable_variables)
        return tf.reduce_sum(of_x)

    return lambda: float(step())


def train_steps(
    kind: str, num_inputs: int, units: int, connections: int, batch: int, steps: int = 4
) -> float:
    """Builds a layer and trains it; the median seconds of a step after the first."""
    step = make_step(make_layer(kind, num_inputs, units, connections), num_inputs, batch)
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def measure_limits() -> tuple[float, float]:
    """What the machine can do: floating-point operations, and bytes moved, per second."""
    a = tf.random.normal((4096, 4096))
    source = np.ones(2**27, "float32")
    target = np.empty_like(source)

    def best(run, count=5):
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    flops = 2 * 4096**3 / best(lambda: tf.matmul(a, a).numpy())
    return flops, 2 * source.nbytes / best(lambda: np.copyto(target, source))


def bound(
    num_inputs: int, units: int, connections: int, batch: int, limits: tuple[float, float]
) -> float:
    """Seconds that no step can do without: the larger of the FLOP and the byte bound.

    Three products of 2 operations per connection and sample. Of each connection, the weight is
    read twice and the gradient written and read, Adam reads and writes weight and moments, and
    each product reads one index of 4 bytes: 13 numbers. Inputs and their gradients, outputs and
    theirs are read and written three times each.
    """
    flops_per_second, bytes_per_second = limits
    flops = 6 * connections * batch
    num_bytes = 4 * (13 * connections + 3 * batch * (num_inputs + units))
    return max(flops / flops_per_second, num_bytes / bytes_per_second)


def interleave(num_inputs: int, units: int, connections: int, batch: int) -> dict:
    """All kinds of layers interleaved in one process: a `harness.Timing` of each, as a dict."""
    shape = (num_inputs, units, connections)
    steps = {kind: make_step(make_layer(kind, *shape), num_inputs, batch) for kind in KINDS}
    times = harness.compare(steps, "sparse", rounds=15, max_seconds=30)
    return {kind: dataclasses.asdict(timing) for kind, timing in times.items()}


def side_by_side(sizes, limits) -> list[dict]:
    """All kinds of layers: times interleaved, and the memory of each in a process of its own."""
    found = []
    for num_inputs, units, connections, batch in sizes:
        shape = {"num_inputs": num_inputs, "units": units, "connections": connections}
        shape["batch"] = batch
        times = harness.run_alone("benchmarks.sparse:interleave", **shape).result
        for kind, timing in times.items():
            peak_bytes = 0
            if kind in KINDS:
                function = "benchmarks.sparse:train_steps"
                peak_bytes = harness.run_alone(function, kind=kind, **shape).peak_bytes
            row = _row(kind, *shape.values(), timing["median"], peak_bytes, limits)
            found.append(row | {"ratio": timing["ratio"], "interval": timing["interval"]})
            print(found[-1], flush=True)
    return found


def alone(sizes, limits, steps: int = 4) -> list[dict]:
    """Sparse layers that have no dense counterpart here."""
    found = []
    for num_inputs, units, connections, batch in sizes:
        run = harness.run_alone(
            "benchmarks.sparse:train_steps",
            kind="sparse",
            num_inputs=num_inputs,
            units=units,
            connections=connections,
            batch=batch,
            steps=steps,
        )
        found.append(
            _row(
                "sparse", num_inputs, units, connections, batch, run.result, run.peak_bytes, limits
            )
        )
        print(found[-1], flush=True)
    return found


def _row(kind, num_inputs, units, connections, batch, seconds, peak_bytes, limits) -> dict:
    return {
        "kind": kind,
        "inputs": num_inputs,
        "units": units,
        "connections": connections,
        "batch": batch,
        "seconds": seconds,
        "peak_bytes": peak_bytes,
        "bound_seconds": bound(num_inputs, units, connections, batch, limits),
    }


def _table(rows: list[dict]) -> str:
    header = ["layer", "kind", "batch", "step, ms", "by sparse (95%)", "memory, MB"]
    lines = []
    for row in rows:
        ratio = ""
        if "ratio" in row:
            low, high = row["interval"]
            ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        times_bound, per_connection = "", ""
        if row["kind"] == "sparse":
            times_bound = f"{row['seconds'] / row['bound_seconds']:.1f}"
            activations = 4 * row["batch"] * (row["inputs"] + row["units"])
            left = row["peak_bytes"] - 12 * activations
            per_connection = f"{left / row['connections']:.0f}"
        lines.append(
            [
                f"{row['inputs']:,} x {row['units']:,}, {row['connections']:,}",
                KINDS.get(row["kind"], row["kind"]),
                row["batch"],
                f"{1e3 * row['seconds']:.2f}",
                ratio,
                f"{row['peak_bytes'] / 1e6:,.0f}" if row["peak_bytes"] else "",
                f"{1e3 * row['bound_seconds']:.2f}" if times_bound else "",
                times_bound,
                per_connection,
            ]
        )
    header += ["bound, ms", "by bound", "bytes per connection beyond 12 x activations"]
    return harness.table(header, lines)


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes tables and figures to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    limits = measure_limits()
    compared = side_by_side(SIDE_BY_SIDE[:1] if quick else SIDE_BY_SIDE, limits)
    single = [] if quick else alone(ALONE, limits, steps=20)

    width = 1024 if quick else 16384
    counts = [2**i for i in (range(12, 15) if quick else range(17, 24, 2))]
    by_count = alone([(width, width, count, 128) for count in counts], limits)
    count = 2**12 if quick else 2**20
    widths = [2**i for i in (range(8, 11) if quick else range(11, 19, 2))]
    by_width = alone([(side, side, count, 128) for side in widths], limits)
    batches = [32, 128] if quick else [32, 128, 512]
    by_batch = alone([(width, width, counts[-2], batch) for batch in batches], limits)

    exponents = {}
    for name, rows, key, label in [
        ("connections", by_count, "connections", f"connections, at a width of {width:,}"),
        ("width", by_width, "units", f"width, at {count:,} connections"),
    ]:
        x = [row[key] for row in rows]
        for quantity, field, unit in [
            ("time", "seconds", "seconds per step"),
            ("memory", "peak_bytes", "bytes above import"),
        ]:
            exponents[f"{quantity} by {name}"] = harness.log_log_figure(
                {"SparseDense": (x, [row[field] for row in rows])},
                arguments.output / f"sparse_{quantity}_by_{name}.png",
                label,
                unit,
                f"A training step of SparseDense: {quantity}",
            )["SparseDense"]

    text = [
        "A training step is the forward pass of one layer, the gradients of its inputs and "
        "weights, and Adam. Layers named together ran interleaved in one process; memory is the "
        "peak above what the process held after its imports, in a process of its own, "
        "TensorFlow's own start included.",
        f"The machine multiplies matrices at {limits[0] / 1e9:.0f} GFLOP/s and copies memory at "
        f"{limits[1] / 1e9:.1f} GB/s (read and written); the bound is the larger of what these "
        "allow, see `bound` in the source.",
        _table(compared + single),
        f"## By connections, at a width of {width:,}",
        _table(by_count),
        f"## By width, at {count:,} connections",
        _table(by_width),
        f"## By batch, {width:,} wide",
        "Nothing of the size batch x connections is held: the memory beyond activations does not "
        "grow with the batch.",
        _table(by_batch),
        "## Fitted exponents",
        harness.table(["quantity", "exponent"], [[k, f"{v:.2f}"] for k, v in exponents.items()]),
        *(
            f"![{quantity} by {name}](sparse_{quantity}_by_{name}.png)"
            for name in ("connections", "width")
            for quantity in ("time", "memory")
        ),
    ]
    data = {
        "flops_per_second": limits[0],
        "bytes_per_second": limits[1],
        "side_by_side": compared,
        "alone": single,
        "by_connections": by_count,
        "by_width": by_width,
        "by_batch": by_batch,
        "exponents": exponents,
    }
    harness.write("sparse", "Sparse layers: time and memory", text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
