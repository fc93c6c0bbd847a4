"""Networks whose channels, heads and units are pruned to a share of their FLOPs: how fast they are.

    python -m benchmarks.channels

takes about half an hour. The networks are not trained: it is their speed that is measured, beside
the dense one's, both exported by the same call. `--quick` measures little.
"""

import argparse
import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from keras_grow.neurons.budgets import Sizes
from keras_grow.structure.unit_graph import UnitGraph

COMMAND = "python -m benchmarks.channels"
SHARES = (0.5, 0.3)
BATCHES = (1, 8)
DENSE = "dense"


def _application(name: str, size: int) -> keras.Model:
    return getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )


def _convolution(x: Any, filters: int, stride: int = 1) -> Any:
    x = keras.layers.Conv2D(filters, 3, stride, "same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))


def _u_net(size: int) -> keras.Model:
    x = inputs = keras.Input((size, size, 3))
    skips = []
    for filters in (16, 32, 64):
        x = _convolution(_convolution(x, filters), filters)
        skips.append(x)
        x = keras.layers.MaxPooling2D()(x)
    x = _convolution(_convolution(x, 128), 128)
    for filters, skip in zip((64, 32, 16), skips[::-1], strict=True):
        x = keras.layers.Conv2DTranspose(filters, 2, 2)(x)
        x = keras.layers.Concatenate()([skip, x])
        x = _convolution(_convolution(x, filters), filters)
    return keras.Model(inputs, keras.layers.Conv2D(2, 1)(x))


def _detector(size: int) -> keras.Model:
    """As YOLO's: features of three scales, the coarse ones added to the fine, a head each."""
    x = inputs = keras.Input((size, size, 3))
    scales = []
    for filters in (16, 32, 64, 128, 256):
        x = _convolution(x, filters, 2)
        x = x + _convolution(_convolution(x, filters // 2), filters)
        scales.append(x)
    found, x = [], None
    for scale in scales[:1:-1]:
        y = keras.layers.Conv2D(96, 1)(scale)
        x = y if x is None else y + keras.layers.UpSampling2D()(x)
        found.append(keras.layers.Conv2D(18, 1)(_convolution(x, 96)))
    flat = [keras.layers.Reshape((-1, 6))(each) for each in found]
    return keras.Model(inputs, keras.layers.Concatenate(axis=1)(flat))


def _encoder(x: Any, blocks: int, heads: int) -> Any:
    width = x.shape[-1]
    for _ in range(blocks):
        normed = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(heads, width // heads)(normed, normed)
        hidden = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.Dense(width)(keras.layers.Dense(4 * width, "relu")(hidden))
    return keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))


def _vit(size: int) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(192, size // 14, size // 14)(inputs)
    x = keras.layers.Reshape((-1, 192))(x)
    return keras.Model(inputs, keras.layers.Dense(100)(_encoder(x, 6, 3)))


def _text(size: int) -> keras.Model:
    tokens = keras.Input((128,), dtype="int32")
    x = keras.layers.Embedding(8000, 256)(tokens)
    return keras.Model(tokens, keras.layers.Dense(4)(_encoder(x, 4, 4)))


NETWORKS: dict[str, Callable[[int], keras.Model]] = {
    "MobileNetV2": lambda size: _application("MobileNetV2", size),
    "ResNet50": lambda size: _application("ResNet50", size),
    "U-Net": _u_net,
    "detector": _detector,
    "ViT": _vit,
    "text transformer": _text,
}


def litert(path: pathlib.Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    return lambda: runner(**{name: images})


def onnx(path: pathlib.Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda: session.run(None, {given.name: images})


def saved_model(path: pathlib.Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of a SavedModel, which uses the threads that the process has."""
    loaded = tf.saved_model.load(str(path))
    given = tf.constant(images)
    return lambda: loaded.serve(given)


FORMATS = {
    "LiteRT": (keras_grow.export_litert, litert),
    "ONNX": (keras_grow.export_onnx, onnx),
    "SavedModel": (keras_grow.export_saved_model, saved_model),
}


def inputs_of(model: keras.Model, count: int) -> np.ndarray:
    """Random images, or words."""
    random, (given,) = np.random.default_rng(0), model.inputs
    shape = (count, *given.shape[1:])
    if "int" in given.dtype:
        return random.integers(0, 8000, shape, "int32")
    return random.normal(size=shape).astype("float32")


def networks(name: str, size: int, shares: tuple[float, ...]) -> dict[str, keras.Model]:
    """A network and what is left of it at each share of its FLOPs, compact."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name](size)
    random = np.random.default_rng(0)
    for variable in model.weights:  # As if it were trained: no two channels are alike.
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    x = inputs_of(model, 4)
    found = {DENSE: keras_grow.make_growable(model, verify=x)}
    for share in shares:
        pruned = keras_grow.make_growable(model, verify=False)
        keras_grow.prune_neurons(
            pruned,
            budget=keras_grow.budgets.FLOPs(share),
            multiple_of=16,
            score=keras_grow.neuron_scores.Relative(),
            data=(x,),
        )
        found[f"{share:.0%} of the FLOPs"] = keras_grow.compact(pruned, verify=x).model
    return found


def flops(model: keras.Model) -> float:
    """Its FLOPs, of layers that are followed."""
    graph = UnitGraph(model)
    every = np.ones(graph.num_units, bool)
    return Sizes(graph).cost(every, keras_grow.budgets.FLOPs(0.5))


def measured(
    name: str,
    size: int,
    shares: tuple[float, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
) -> list[dict]:
    """A row for each format, batch size, number of threads and share."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = networks(name, size, shares)
        costs = {what: flops(model) for what, model in models.items()}
        x = inputs_of(models[DENSE], max(batches))
        for form, (export, opened) in FORMATS.items():
            sizes = {}
            for what, model in models.items():
                path = pathlib.Path(folder, f"{form}-{what}")
                sizes[what] = export(model, path, data=(x,), tolerance=1e-3).num_bytes
            # The threads of TensorFlow are the process's.
            counts = threads if form != "SavedModel" else threads[-1:]
            for batch, count in itertools.product(batches, counts):
                calls = {
                    what: opened(pathlib.Path(folder, f"{form}-{what}"), x[:batch], count)
                    for what in models
                }
                control = opened(pathlib.Path(folder, f"{form}-{DENSE}"), x[:batch], count)
                timings = harness.compare(
                    calls, DENSE, rounds=400, max_seconds=seconds, control=control
                )
                for what, timing in timings.items():
                    rows.append(
                        {
                            "network": name,
                            "format": form,
                            "batch": batch,
                            "threads": count,
                            "what": what,
                            "flops": costs[what] / costs[DENSE] if what in costs else None,
                            "bytes": sizes.get(what),
                            "parameters": models[what].count_params() if what in models else None,
                            **dataclasses.asdict(timing),
                        }
                    )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    size, seconds = (32, 0.5) if arguments.quick else (224, 8.0)
    names = arguments.networks[:1] if arguments.quick else arguments.networks
    shares, batches, threads = SHARES, BATCHES, (1, 2)
    if arguments.quick:
        shares, batches, threads = SHARES[:1], BATCHES[:1], (1,)
    rows = []
    for name in names:
        rows += measured(name, size, shares, batches, threads, seconds)
        print(f"{name}: measured", flush=True)
    table = harness.table(
        [
            "network, format",
            "batch",
            "threads",
            "what",
            "ms",
            "time by the dense one's",
            "95%",
            "FLOPs by its",
            "MB",
            "rounds",
        ],
        [
            [
                f"{row['network']}, {row['format']}",
                row["batch"],
                row["threads"],
                row["what"],
                f"{1000 * row['median']:.3g}",
                f"**{row['ratio']:.3f}**",
                "{:.3f} to {:.3f}".format(*row["interval"]),
                "" if row["flops"] is None else f"{row['flops']:.3f}",
                "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
                row["rounds"],
            ]
            for row in rows
        ],
    )
    text = [
        f"Networks of keras.applications at {size} x {size}, a U-Net of widths 16 to 128, a "
        "detector of three scales, a ViT (6 blocks of 192, 3 heads) and a text transformer (4 "
        "blocks of 256, 4 heads, 128 words), pruned by "
        "`prune_neurons(budget=FLOPs(share), multiple_of=16, score=Relative())` and made compact; "
        "interleaved in one process, ratios to the dense network's file, medians over rounds with "
        "95% intervals. The control is a second copy of the dense one. They are not trained: what "
        "pruning costs in accuracy is not measured here.",
        table,
    ]
    title = "Networks whose channels are gone"
    harness.write("channels", title, text, rows, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
