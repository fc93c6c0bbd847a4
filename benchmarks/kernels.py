"""The training step of Keras's layers with growable kernels beside the plain layers: time.

    python -m benchmarks.kernels

takes about half an hour; `--quick` measures little, and `--kinds` only some.
"""

import argparse
import collections
import dataclasses
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness

COMMAND = "python -m benchmarks.kernels"
DENSITY = 0.1
PLAIN, GROWABLE = "plain", "GrowableKernels"
# Unsafe: shows what setting dormant weights to 0 after each update costs.
UNCONSTRAINED = "GrowableKernels without constraint"
OPTIMIZERS = {"Adam": keras.optimizers.Adam, "SGD": keras.optimizers.SGD}
TARGET, AIM = 1.10, 1.03


@dataclasses.dataclass(frozen=True)
class Kind:
    """A layer as people use it.

    Attributes:
        about: the layer, and the inputs of a step, in words.
        layer: makes it.
        shape: of a batch of inputs.
        vocabulary: how many integers there are, where inputs are such.
        calls_itself: whether it is called with its inputs twice, as an attention is.
    """

    about: str
    layer: Callable[[], keras.Layer]
    shape: tuple[int, ...]
    vocabulary: int | None = None
    calls_itself: bool = False


def _embedding(vocabulary: int) -> Kind:
    return Kind(
        f"Embedding({vocabulary:,}, 128), 64 x 50",
        lambda: keras.layers.Embedding(vocabulary, 128),
        (64, 50),
        vocabulary,
    )


_layers = keras.layers
KINDS = {
    "EinsumDense": Kind(
        'EinsumDense("btd,dhk->bthk", 8 heads of 64), 32 x 128 x 256',
        lambda: _layers.EinsumDense("btd,dhk->bthk", (None, 8, 64)),
        (32, 128, 256),
    ),
    "Conv2D in groups": Kind(
        "Conv2D(32, 3, groups=4), 8 x 14 x 14 x 32",
        lambda: _layers.Conv2D(32, 3, padding="same", groups=4),
        (8, 14, 14, 32),
    ),
    "Conv2DTranspose": Kind(
        "Conv2DTranspose(32, 3, strides=2), 32 x 14 x 14 x 64",
        lambda: _layers.Conv2DTranspose(32, 3, strides=2, padding="same"),
        (32, 14, 14, 64),
    ),
    "DepthwiseConv2D": Kind(
        "DepthwiseConv2D(3), 32 x 28 x 28 x 64",
        lambda: _layers.DepthwiseConv2D(3, padding="same"),
        (32, 28, 28, 64),
    ),
    "SeparableConv2D": Kind(
        "SeparableConv2D(128, 3), 32 x 28 x 28 x 64",
        lambda: _layers.SeparableConv2D(128, 3, padding="same"),
        (32, 28, 28, 64),
    ),
    "Embedding, 1,000": _embedding(1_000),
    "Embedding, 10,000": _embedding(10_000),
    "Embedding, 50,000": _embedding(50_000),
    "SimpleRNN": Kind("SimpleRNN(128), 64 x 50 x 64", lambda: _layers.SimpleRNN(128), (64, 50, 64)),
    "LSTM": Kind("LSTM(128), 64 x 50 x 64", lambda: _layers.LSTM(128), (64, 50, 64)),
    "GRU": Kind("GRU(128), 64 x 50 x 64", lambda: _layers.GRU(128), (64, 50, 64)),
    "Bidirectional": Kind(
        "Bidirectional(LSTM(64)), 64 x 50 x 64",
        lambda: _layers.Bidirectional(_layers.LSTM(64)),
        (64, 50, 64),
    ),
    "ConvLSTM2D": Kind(
        "ConvLSTM2D(16, 3), 8 x 8 x 20 x 20 x 3",
        lambda: _layers.ConvLSTM2D(16, 3, padding="same"),
        (8, 8, 20, 20, 3),
    ),
    "MultiHeadAttention": Kind(
        "MultiHeadAttention(8, 32), 32 x 64 x 256",
        lambda: _layers.MultiHeadAttention(8, 32),
        (32, 64, 256),
        calls_itself=True,
    ),
}


def make_model(kind: Kind, is_growable: bool, optimizer: str, xla: bool) -> keras.Model:
    """A compiled classifier of ten classes: the layer, the mean of its outputs, and a Dense."""
    keras.utils.set_random_seed(0)
    layer = kind.layer()
    if is_growable:
        layer = keras_grow.GrowableKernels(layer, initial_density=DENSITY, seed=0)
    dtype = "float32" if kind.vocabulary is None else "int32"
    inputs = keras.Input(kind.shape[1:], dtype=dtype)
    outputs = layer(inputs, inputs) if kind.calls_itself else layer(inputs)
    if len(outputs.shape) > 2:
        outputs = keras.ops.mean(outputs, axis=tuple(range(1, len(outputs.shape) - 1)))
    model = keras.Model(inputs, _layers.Dense(10)(outputs))
    model.compile(
        OPTIMIZERS[optimizer](1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=xla,
    )
    return model


def make_batch(kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and classes: what a step costs does not depend on what they are."""
    random = np.random.default_rng(0)
    if kind.vocabulary is None:
        x = random.normal(size=kind.shape).astype("float32")
    else:
        x = random.integers(kind.vocabulary, size=kind.shape).astype("int32")
    return x, random.integers(10, size=len(x))


def make_step(model: keras.Model, batch: tuple[np.ndarray, np.ndarray]) -> Callable[[], float]:
    """A function that makes the step of `model.fit` on one batch."""
    data = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
    train = model.make_train_function() or model.train_function
    return lambda: float(train(data)["loss"])


def operations(model: keras.Model, batch: tuple[np.ndarray, np.ndarray]) -> collections.Counter:
    """How many operations of each type a training step has, those of loops included."""
    step = tf.function(model.train_step).get_concrete_function(tuple(map(tf.constant, batch)))
    definition = step.graph.as_graph_def()
    nodes = list(definition.node)
    for function in definition.library.function:
        nodes += function.node_def
    return collections.Counter(node.op for node in nodes)


def interleave(name: str, optimizer: str, xla: bool, seconds: float) -> dict:
    """Both layers interleaved in one process: a `harness.Timing` of each, and what is added."""
    kind = KINDS[name]
    batch = make_batch(kind)
    models = {
        variant: make_model(kind, variant in (GROWABLE, UNCONSTRAINED), optimizer, xla)
        for variant in (PLAIN, GROWABLE, UNCONSTRAINED, harness.CONTROL)
    }
    for weight in models[UNCONSTRAINED].trainable_weights:
        weight.constraint = None
    steps = {variant: make_step(model, batch) for variant, model in models.items()}
    control = steps.pop(harness.CONTROL)
    times = harness.compare(steps, PLAIN, rounds=10_000, max_seconds=seconds, control=control)
    rows = {variant: dataclasses.asdict(timing) for variant, timing in times.items()}
    for row in rows.values():
        del row["seconds"]
    counts = {variant: operations(models[variant], batch) for variant in (PLAIN, GROWABLE)}
    added = counts[GROWABLE].copy()
    added.subtract(counts[PLAIN])
    return {
        "timings": rows,
        "operations": sum(counts[PLAIN].values()),
        "added_operations": {op: count for op, count in sorted(added.items()) if count},
    }


def measure(settings: list[dict], seconds: float) -> list[dict]:
    """Every setting in a process of its own."""
    found = []
    for setting in settings:
        try:
            done = harness.run_alone("benchmarks.kernels:interleave", **setting, seconds=seconds)
        except RuntimeError as error:
            # Where TensorFlow can't run a layer, the plain one neither, the others go on.
            found.append({**setting, "failed": str(error)[-300:]})
            print(setting, "failed", flush=True)
            continue
        found.append({**setting, **done.result})
        ratios = {kind: round(row["ratio"], 3) for kind, row in done.result["timings"].items()}
        print(setting, ratios, flush=True)
    return found


def _table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        setting = [KINDS[row["name"]].about, row["optimizer"], "on" if row["xla"] else "off"]
        if "failed" in row:
            lines.append([*setting, "does not run", *[""] * 8])
            continue
        plain, growable, unconstrained, control = (
            row["timings"][kind] for kind in (PLAIN, GROWABLE, UNCONSTRAINED, harness.CONTROL)
        )
        lines.append(
            [
                *setting,
                f"{1e3 * plain['median']:.3g}",
                f"{1e3 * growable['median']:.3g}",
                f"**{growable['ratio']:.3f}**",
                f"{growable['interval'][0]:.3f} to {growable['interval'][1]:.3f}",
                f"{unconstrained['ratio']:.3f}",
                f"{control['ratio']:.3f}",
                f"{control['interval'][0]:.3f} to {control['interval'][1]:.3f}",
                plain["rounds"],
            ]
        )
    header = ["layer, inputs", "optimizer", "XLA", "plain, ms", "growable, ms", "ratio", "95%"]
    header += ["without constraint", harness.CONTROL, "95%", "rounds"]
    return harness.table(header, lines)


def _verdict(rows: list[dict]) -> str:
    """Which layers meet the target, in words."""
    ratios = [
        (f"{row['name']} ({row['optimizer']}{', XLA' if row['xla'] else ''})", timing["ratio"])
        for row in rows
        if "failed" not in row
        for timing in (row["timings"][GROWABLE],)
    ]
    above = [f"{name} {ratio:.2f}" for name, ratio in ratios if ratio > TARGET]
    aimed = sum(ratio <= AIM for _, ratio in ratios)
    return (
        f"The target is {TARGET:.2f}, and {AIM:.2f} what is aimed at. Of {len(ratios)} rows "
        f"{len(ratios) - len(above)} meet the target, {aimed} the aim. Above the target: "
        f"{'; '.join(above) or 'none'}."
    )


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the table to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two layers, for a second each")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--seconds", type=float, default=8.0, help="of timing, for each row")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    kinds, seconds = arguments.kinds, arguments.seconds
    steps = [("Adam", False), ("SGD", False), ("Adam", True)]
    if arguments.quick:
        kinds, seconds, steps = ["EinsumDense", "Embedding, 1,000"], 1.0, steps[:1]
    settings = [
        {"name": name, "optimizer": optimizer, "xla": xla}
        for optimizer, xla in steps
        for name in kinds
    ]
    rows = measure(settings, seconds)
    text = [
        "A step is the one that `model.fit` makes, of a classifier: the layer, the mean of its "
        "outputs, and a Dense of ten classes. The layer is as Keras has it, or inside "
        f"`keras_grow.GrowableKernels` at a density of {DENSITY:.0%}; both ran interleaved in one "
        f'process. "{harness.CONTROL}" is a second copy of the plain network: what noise alone '
        "does. Ratios are to the plain layer, medians over rounds, with 95% intervals. "
        '"Without constraint" leaves out what sets dormant weights to 0 after each update, which '
        "nobody can: it shows what this part costs.",
        _verdict(rows),
        _table(rows),
        "What a mask adds to a step is a selection of the kernel, one of its gradient, and one "
        "after the update: its share is that of the kernel's size in the work of the step. For an "
        "Embedding this is most, as it does little else: the rows looked up are selected forward "
        "and backward, and the whole table after the update. SGD without momentum updates rows "
        "only, so that the whole table is what it would not touch at all; and TensorFlow copies a "
        "variable that is updated by rows each time that it is read or assigned as a whole.",
    ]
    title = "The training step of growable kernels in Keras's layers"
    harness.write("kernels", title, text, rows, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
