"""The training step of masked layers beside Dense, weight norm by hand, and tfmot: time and memory.

    python -m benchmarks.training

takes about twenty minutes and 6 GiB; `--quick` measures little. The rows of tfmot need
`pip install tensorflow-model-optimization tf_keras`, and are left out without them.
"""

import argparse
import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness

COMMAND = "python -m benchmarks.training"
DENSITY = 0.1
NETWORKS = {
    "784-300-100-10": (784, 300, 100, 10),
    "1024-4096-4096-10": (1024, 4096, 4096, 10),
    "LeNet-5 (20, 50 maps, 500 units)": (28, 28, 1),
}
LENET_5 = "LeNet-5 (20, 50 maps, 500 units)"
WIDTHS = (256, 512, 1024, 2048, 4096, 8192)


class WeightNormByHand(keras.layers.Dense):
    """Weight normalization as one writes it around a Dense: w = g v / ||v||, and autodiff."""

    def build(self, input_shape):
        """As Dense, and a gain that leaves the initial kernel as it is."""
        super().build(input_shape)
        norm = keras.ops.norm(self.kernel, axis=0)
        self.g = self.add_weight(name="g", shape=(self.units,), initializer=lambda *_, **__: norm)

    def call(self, inputs):
        """As Dense, with the normalized kernel."""
        kernel = self.g * self.kernel / keras.ops.norm(self.kernel, axis=0)
        return self.activation(keras.ops.matmul(inputs, kernel) + self.bias)


KINDS = {
    "keras.layers.Dense": (keras.layers.Dense, keras.layers.Conv2D, {}),
    "GrowableDense": (
        keras_grow.GrowableDense,
        keras_grow.GrowableConv2D,
        {"initial_density": DENSITY, "seed": 0},
    ),
    "WeightNormDense": (
        keras_grow.WeightNormDense,
        keras_grow.WeightNormConv2D,
        {"initial_density": DENSITY, "seed": 0},
    ),
    "weight norm by hand": (WeightNormByHand, None, {}),
}
BASELINE = "keras.layers.Dense"
TFMOT = "tfmot prune_low_magnitude"


def make_model(kind: str, network: str, optimizer: str, xla: bool) -> keras.Model:
    """A compiled classifier of ten classes; convolutions stand in for dense layers in LeNet-5."""
    keras.utils.set_random_seed(0)
    dense, conv, options = KINDS[kind]
    if network == LENET_5:
        layers = [keras.Input(NETWORKS[network])]
        for maps in (20, 50):
            layers += [conv(maps, 5, activation="relu", **options), keras.layers.MaxPooling2D()]
        layers += [keras.layers.Flatten(), dense(500, "relu", **options), dense(10, **options)]
    else:
        inputs, *hidden, outputs = NETWORKS.get(network) or (int(network), int(network), 10)
        layers = [keras.Input((inputs,))]
        layers += [dense(units, "relu", **options) for units in hidden]
        layers += [dense(outputs, **options)]
    model = keras.Sequential(layers)
    model.compile(
        {"Adam": keras.optimizers.Adam, "SGD": keras.optimizers.SGD}[optimizer](1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=xla,
    )
    return model


def make_steps(model: Any, batch: int, count: int = 1) -> Callable[[], float]:
    """A function that makes `count` of the steps that `model.fit` makes, on one batch."""
    random = np.random.default_rng(0)
    x = random.normal(size=(batch, *model.input_shape[1:])).astype("float32")
    y = random.integers(10, size=batch)
    data = iter(tf.data.Dataset.from_tensors((x, y)).cache().repeat())
    train = model.make_train_function() or model.train_function

    def run() -> float:
        for _ in range(count):
            logs = train(data)
        return float(logs["loss"])

    return run


def interleave(network: str, batch: int, xla: bool, optimizer: str, seconds: float) -> dict:
    """All kinds of layers interleaved in one process: a `harness.Timing` of each, as a dict."""
    is_conv = network == LENET_5
    # Calls of a millisecond are timed in runs of ten.
    count = 1 if "4096" in network else 10

    def steps(kind):
        return make_steps(make_model(kind, network, optimizer, xla), batch, count)

    kinds = [kind for kind, (_, conv, _) in KINDS.items() if conv is not None or not is_conv]
    variants = {kind: steps(kind) for kind in kinds}
    return _timings(variants, BASELINE, steps(BASELINE), seconds, count)


def interleave_tfmot(network: str, batch: int, xla: bool, optimizer: str, seconds: float) -> dict:
    """tfmot's pruning wrapper beside the Dense of tf_keras, in a process without Keras 3's step."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    count = 1 if "4096" in network else 10
    inputs, *hidden, outputs = NETWORKS[network]

    def steps(is_pruned):
        tf_keras.utils.set_random_seed(0)
        layers = [tf_keras.layers.Dense(units, "relu") for units in hidden]
        layers += [tf_keras.layers.Dense(outputs)]
        model = tf_keras.Sequential([tf_keras.Input((inputs,)), *layers])
        if is_pruned:
            schedule = tfmot.sparsity.keras.ConstantSparsity(1 - DENSITY, 0, frequency=1_000_000)
            model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        model.compile(
            {"Adam": tf_keras.optimizers.Adam, "SGD": tf_keras.optimizers.SGD}[optimizer](1e-3),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=xla,
        )
        if is_pruned:
            callback = tfmot.sparsity.keras.UpdatePruningStep()
            callback.set_model(model)
            callback.on_train_begin()
            callback.on_train_batch_begin(0)
        return make_steps(model, batch, count)

    variants = {"tf_keras.layers.Dense": steps(False), TFMOT: steps(True)}
    return _timings(variants, "tf_keras.layers.Dense", steps(False), seconds, count)


def _timings(variants, baseline, control, seconds, count) -> dict:
    times = harness.compare(variants, baseline, rounds=10_000, max_seconds=seconds, control=control)
    rows = {kind: dataclasses.asdict(timing) for kind, timing in times.items()}
    for row in rows.values():
        del row["seconds"]
        for key in ("median", "lower", "upper"):
            row[key] /= count
    return rows


def train_alone(kind: str, width: int, batch: int = 128, steps: int = 5) -> int | None:
    """Fits a square layer and an output layer with Adam; the peak of a GPU's memory, if any."""
    model = make_model(kind, str(width), "Adam", xla=False)
    random = np.random.default_rng(0)
    x = random.normal(size=(batch * steps, width)).astype("float32")
    model.fit(x, random.integers(10, size=len(x)), batch_size=batch, verbose=0)
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def by_width(widths: list[int], seconds: float) -> dict[str, list[dict]]:
    """Steps of square layers, all kinds interleaved at each width."""
    rows: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for width in widths:
        found = harness.run_alone(
            "benchmarks.training:interleave",
            network=str(width),
            batch=128,
            xla=False,
            optimizer="Adam",
            seconds=seconds,
        ).result
        for kind in KINDS:
            rows[kind].append({"width": width, **found[kind]})
        print(width, {kind: found[kind]["ratio"] for kind in found}, flush=True)
    return rows


def side_by_side(settings: list[dict], seconds: float) -> list[dict]:
    """Every setting in a process of its own, and tfmot in another."""
    has_tfmot = all(
        importlib.util.find_spec(name) for name in ("tensorflow_model_optimization", "tf_keras")
    )
    found = []
    for setting in settings:
        functions = ["interleave"]
        if has_tfmot and setting["network"] != LENET_5:
            functions.append("interleave_tfmot")
        for function in functions:
            try:
                result = harness.run_alone(
                    f"benchmarks.training:{function}", **setting, seconds=seconds
                ).result
            except RuntimeError as error:
                if function == "interleave":
                    raise
                # tfmot's wrapper does not compile everywhere; what it says is kept.
                found.append({**setting, "kind": TFMOT, "failed": str(error)[-300:]})
                continue
            for kind, timing in result.items():
                if function == "interleave_tfmot" and kind == harness.CONTROL:
                    kind = f"{kind} of tf_keras"
                found.append({**setting, "kind": kind, **timing})
            print(setting, {kind: round(t["ratio"], 3) for kind, t in result.items()}, flush=True)
    return found


def memory(width: int, repetitions: int) -> dict[str, list[int]]:
    """The peak of each kind in bytes: of a GPU's memory, or else above what imports take."""
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for _ in range(repetitions):
        for kind in KINDS:
            run = harness.run_alone("benchmarks.training:train_alone", kind=kind, width=width)
            found[kind].append(run.result or run.peak_bytes)
    print(found, flush=True)
    return found


def _step_table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        setting = [
            row["network"],
            row["batch"],
            row["optimizer"],
            "on" if row["xla"] else "off",
            row["kind"],
        ]
        if "failed" in row:
            lines.append([*setting, "does not run", "", "", ""])
            continue
        low, high = row["interval"]
        lines.append(
            [
                *setting,
                f"{1e3 * row['median']:.3g}",
                f"{row['ratio']:.3f}",
                f"{low:.3f} to {high:.3f}",
                row["rounds"],
            ]
        )
    header = ["network", "batch", "optimizer", "XLA", "layers", "step, ms", "by Dense", "95%"]
    return harness.table([*header, "rounds"], lines)


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes tables and a figure to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of each")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    small, large, lenet = NETWORKS
    settings = [
        {"network": network, "batch": batch, "xla": xla, "optimizer": optimizer}
        for network in (small, large)
        for batch in (128, 1024)
        for optimizer in ("Adam", "SGD")
        for xla in (False, True)
    ] + [{"network": lenet, "batch": 128, "xla": xla, "optimizer": "Adam"} for xla in (False, True)]
    steps = side_by_side(settings[:2] if quick else settings, 1.0 if quick else 10.0)
    widths = [64, 128, 256] if quick else list(WIDTHS)
    curves = by_width(widths, 1.0 if quick else 12.0)
    width = widths[-1] if quick else 4096
    peaks = memory(width, 1 if quick else 3)

    exponents = harness.log_log_figure(
        {
            kind: (widths, [1e3 * row["median"] for row in rows])
            for kind, rows in curves.items()
            if kind != "weight norm by hand"
        },
        arguments.output / "training_by_width.png",
        "width of a square layer",
        "ms per step",
        "A training step, batch 128, Adam",
    )
    medians = {kind: float(np.median(peak)) for kind, peak in peaks.items()}
    text = [
        "A step is the one that `model.fit` makes. All layers of a network are of the kind "
        f"named, masked ones at a density of {DENSITY:.0%}; those of one setting ran interleaved "
        "in one process, tfmot beside the Dense of tf_keras in another. "
        f'"{harness.CONTROL}" is a second copy of the dense network: what noise alone does. '
        "Ratios are medians over rounds, with 95% intervals.",
        _step_table(steps),
        f"## Memory: a layer of {width} x {width}, batch 128, Adam",
        "The peak of a GPU's memory, or without one, above what the process held after its "
        "imports, median of "
        f"{len(next(iter(peaks.values())))} processes.",
        harness.table(
            ["layers", "peak, MB", "by Dense"],
            [
                [kind, f"{peak / 1e6:.0f}", f"{peak / medians[BASELINE]:.3f}"]
                for kind, peak in medians.items()
            ],
        ),
        "## By width",
        "A square layer and an output layer, batch 128, Adam, without XLA.",
        harness.table(
            ["width", *(f"{kind}, ms" for kind in curves)],
            [
                [width, *(f"{1e3 * rows[i]['median']:.3g}" for rows in curves.values())]
                for i, width in enumerate(widths)
            ],
        ),
        "Fitted exponents: " + ", ".join(f"{k} {v:.2f}" for k, v in exponents.items()) + ".",
        "![A training step by width](training_by_width.png)",
    ]
    data = {"steps": steps, "by_width": curves, "exponents": exponents, "peak_bytes": peaks}
    title = "The training step of masked layers: time and memory"
    harness.write("training", title, text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
