"""Inference: what exports of grown networks cost beside dense ones, in files and in time.

    python -m benchmarks.inference --data-dir DIR

measures LeNet-300-100 of 3,800 weights on MNIST, grown and pruned by `benchmarks.mnist_training` (a
quarter of an hour, kept under `output/`), and single layers of several sizes and densities, in
about ten minutes. `--quick` leaves out the large layers and takes an untrained network.
"""

import argparse
import dataclasses
import math
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from benchmarks.serving import dense_like, dispatch, memory_bytes
from keras_grow import formats, storages
from keras_grow.export.quiet import silent
from keras_grow.export.writing import num_bytes

COMMAND = "python -m benchmarks.inference"
WEIGHTS = 3_800
BATCH_SIZES = (1, 32, 256)
CALLS = 10
# Inputs, units.
SHAPES = [(784, 300), (1024, 1024), (4096, 4096)]
DENSITIES = [0.01, 0.05, 0.1]
STORAGES = {
    "dense": storages.Dense(),
    "packed": storages.Packed(),
    "sparse": storages.Sparse(),
}


def kept_network(arguments: argparse.Namespace, weights: int) -> keras.Model:
    """LeNet-300-100 of so many weights, as a model of masked layers; untrained in a quick run."""
    if arguments.quick:
        keras.utils.set_random_seed(0)
        hidden = [keras_grow.GrowableDense(units, "relu") for units in (300, 100)]
        network = keras.Sequential([keras.Input((784,)), *hidden, keras_grow.GrowableDense(10)])
        keras_grow.prune(network, density=weights / 266_200, per_layer=True)
        return network
    if not (arguments.kept / f"{weights}.keras").exists():
        harness.run_alone(
            "benchmarks.mnist_training:train",
            timeout=4 * 3600,
            network="lenet_300_100",
            start="grown",
            is_distorted=True,
            seed=0,
            data_dir=arguments.data_dir,
            cache=str(arguments.kept),
            keep=str(arguments.kept),
            stages=[[15_000, 8, 6], [7_800, 12, 24], [WEIGHTS, 16, 40]],
        )
    network = keras.models.load_model(arguments.kept / f"{weights}.keras")
    has_sparse = any(layer.is_sparse for layer in keras_grow.growable_layers(network))
    return keras_grow.make_growable(network) if has_sparse else network


def test_data(arguments: argparse.Namespace) -> Any:
    """MNIST's test images and classes; nothing for a quick run."""
    if arguments.quick:
        return None
    from benchmarks import mnist_data

    _, _, x, y = mnist_data.load(arguments.data_dir)
    return x.astype("float32") / 255, y


def saved_model(path: pathlib.Path, inputs: np.ndarray) -> Callable[[], Any]:
    """A call of a SavedModel's signature, its input a tensor of TensorFlow's already."""
    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    tensor = tf.constant(inputs)

    def call(keep=loaded):  # TensorFlow drops the weights with what was loaded.
        (output,) = function(**{name: tensor}).values()
        return output.numpy()

    return call


def litert(path: pathlib.Path, inputs: np.ndarray) -> Callable[[], Any]:
    """A call of a LiteRT file's signature, with one thread."""
    serve = formats.LiteRT().open(str(path))
    import ai_edge_litert.interpreter as runtime

    names = runtime.Interpreter(str(path)).get_signature_list()["serving_default"]["inputs"]
    return lambda: serve({names[0]: inputs})


def with_fewer_neurons(arguments: argparse.Namespace) -> keras.Model:
    """A network of 15,000 weights, pruned to 64 and 32 hidden neurons and then to 3,800 weights.

    Five rounds remove neurons, and five more weights, with three epochs of training after each.
    """
    network, data, classes, epochs = kept_network(arguments, 15_000), None, None, 3
    if arguments.quick:
        data, epochs = np.random.default_rng(0).random((256, 784), "float32"), 0
    else:
        from benchmarks import mnist_data

        images, classes, _, _ = mnist_data.load(arguments.data_dir)
        data = images.astype("float32") / 255
        network.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=59,
        )
    layers = keras_grow.growable_layers(network)[:2]
    units = [row.connected_units for row in keras_grow.report(network).layers[:2]]
    rounds = 10
    for done in range(rounds):
        if done < 5:
            for layer, start, goal in zip(layers, units, (64, 32), strict=True):
                living = {
                    row.name: row.connected_units for row in keras_grow.report(network).layers
                }
                count = living[layer.name] - round(start + (goal - start) * (done + 1) / 5)
                if count > 0:
                    keras_grow.prune_neurons(
                        network, count=count, layers=[layer], data=(data[:10_000],)
                    )
        else:
            active = keras_grow.report(network).num_active
            if active > WEIGHTS:
                keras_grow.prune(network, count=(active - WEIGHTS) // (rounds - done))
        for epoch in range(epochs):
            share = (done * epochs + epoch) / (rounds * epochs)
            network.optimizer.learning_rate = 1e-3 * (1 + math.cos(math.pi * share)) / 2
            network.fit(data, classes, batch_size=128, verbose=0)
    return network


def compare_with_dense(network: keras.Model, images: np.ndarray, seconds: float) -> list[dict]:
    """Ratios of the time of the dense original's SavedModel and LiteRT file to other forms'."""
    dense = dense_like(network)
    compaction = keras_grow.compact(network, drop_inputs=True)
    few = compaction.input_indices[0]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        with silent():
            dense.export(str(root / "dense"), verbose=False)
            keras_grow.export_litert(dense, root / "dense.tflite")
        compact = keras_grow.compact(network).model
        keras_grow.export_litert(compact, root / "compact.tflite")
        keras_grow.export_litert(compaction.model, root / "narrow.tflite")
        for size in BATCH_SIZES:
            keras_grow.export_saved_model(compact, root / "compact", batch_size=size)
            keras_grow.export_saved_model(compaction.model, root / "narrow", batch_size=size)
            x = np.resize(images, (size, images.shape[1]))
            narrow = np.ascontiguousarray(x[:, few])
            with silent():
                calls = {
                    "dense SavedModel": saved_model(root / "dense", x),
                    "compact SavedModel": saved_model(root / "compact", x),
                    "compact SavedModel, used inputs only": saved_model(root / "narrow", narrow),
                    "dense LiteRT": litert(root / "dense.tflite", x),
                    "compact LiteRT": litert(root / "compact.tflite", x),
                    "compact LiteRT, used inputs only": litert(root / "narrow.tflite", narrow),
                    "nothing (TensorFlow's dispatch)": dispatch(x),
                }
                controls = {
                    "dense SavedModel": saved_model(root / "dense", x),
                    "dense LiteRT": litert(root / "dense.tflite", x),
                }
            for baseline, control in controls.items():
                times = harness.compare(
                    {name: repeated(call) for name, call in calls.items()},
                    baseline,
                    rounds=200,
                    max_seconds=seconds,
                    control=repeated(control),
                )
                for name, timing in times.items():
                    found.append(_row(name, baseline, size, timing))
    return found


def repeated(call: Callable[[], Any]) -> Callable[[], None]:
    """Ten calls in a row: in use, too, a call finds its data where the last one left them."""

    def calls():
        for _ in range(CALLS):
            call()

    return calls


def memory_table(network: keras.Model) -> tuple[str, list[dict]]:
    """What the compact network's exports take: memory to load and serve 256, and FLOPs."""
    found = []
    source = keras_grow.compact(network).model
    with tempfile.TemporaryDirectory() as folder:
        for kind in formats.FORMATS:
            record = kind().export(source, pathlib.Path(folder) / kind.name)
            name, shape = source.inputs[0].name, (256, *source.inputs[0].shape[1:])
            taken = memory_bytes(kind(), record.path, name, shape)
            flops = 2 * sum(
                row.num_active if row.name in record.computed_sparsely else row.num_connections
                for row in keras_grow.report(source).layers
            )
            found.append({"form": kind.name, "bytes": taken, "flops": flops})
    rows = [[row["form"], f"{row['bytes'] / 1e6:,.1f}", f"{row['flops']:,}"] for row in found]
    return harness.table(["form", "memory, MB", "FLOPs"], rows), found


def files_table(network: keras.Model, data: Any) -> tuple[str, list[dict]]:
    """Every dtype and storage of the network and of the compact one: bytes, error, accuracy."""
    rows, found = [], []
    forms = {
        "SavedModel": lambda model, path, dtype: keras_grow.export_saved_model(
            model, path, dtype=dtype
        ),
        "LiteRT": lambda model, path, dtype: keras_grow.export_litert(model, path, dtype=dtype),
    }
    calibration = None if data is None else data[0][:500]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        jobs = [("SavedModel", dtype) for dtype in ("float32", "float16", "bfloat16")]
        jobs += [("LiteRT", dtype) for dtype in ("float32", "float16", "int8", "int8, calibrated")]
        models = {
            "dense": dense_like(network),
            "masked": network,
            "compact": keras_grow.compact(network).model,
        }
        for form, dtype in jobs:
            for name, model in models.items():
                path = root / f"{form}-{dtype}-{name}".replace(", ", "-")
                if dtype == "int8, calibrated":
                    if calibration is None:
                        continue
                    record = keras_grow.export_litert(
                        model, path, dtype="int8", calibration_data=calibration
                    )
                elif name == "dense" and form == "SavedModel":
                    growable = keras_grow.make_growable(model)
                    record = keras_grow.export_saved_model(growable, path, dtype=dtype)
                else:
                    record = forms[form](model, path, dtype)
                weights = record.num_bytes
                if form == "SavedModel":
                    weights = sum(f.stat().st_size for f in (path / "variables").glob("*.data*"))
                accuracy = None if data is None or name == "dense" else _accuracy(form, path, data)
                found.append(
                    {
                        "form": form,
                        "dtype": dtype,
                        "network": name,
                        "bytes": record.num_bytes,
                        "weight_bytes": weights,
                        "error": record.error,
                        "accuracy": accuracy,
                    }
                )
                rows.append(
                    [
                        f"{form}, {dtype}, {name}",
                        f"{record.num_bytes:,}",
                        f"{weights:,}",
                        f"{record.error:.0e}",
                        "-" if accuracy is None else f"{100 * (1 - accuracy):.2f}",
                    ]
                )
    header = ["file", "bytes", "of weights", "error by the model", "test error, %"]
    return harness.table(header, rows), found


def _accuracy(form: str, path: pathlib.Path, data: tuple[np.ndarray, np.ndarray]) -> float:
    x, classes = data
    serve = saved_model if form == "SavedModel" else litert
    right = 0
    for start in range(0, len(x), 1000):
        outputs = serve(path, x[start : start + 1000])()
        if isinstance(outputs, dict):
            (outputs,) = outputs.values()
        right += int(np.sum(np.argmax(outputs, -1) == classes[start : start + 1000]))
    return right / len(x)


def layers_side_by_side(shapes: list[tuple[int, int]], seconds: float) -> list[dict]:
    """Storages of single layers, loaded from disk and interleaved; and the rule's choices."""
    found = []
    for num_inputs, units in shapes:
        for density in DENSITIES:
            keras.utils.set_random_seed(0)
            layer = keras_grow.GrowableDense(units, initial_density=density, seed=0, name="layer")
            model = keras.Sequential([keras.Input((num_inputs,)), layer])
            with tempfile.TemporaryDirectory() as folder:
                paths = {name: pathlib.Path(folder) / name for name in STORAGES}
                for name, storage in STORAGES.items():
                    keras_grow.export_saved_model(model, paths[name], storage=storage)
                for size in BATCH_SIZES:
                    random = np.random.default_rng(1)
                    x = random.normal(size=(size, num_inputs)).astype("float32")
                    calls = {name: saved_model(path, x) for name, path in paths.items()}
                    record = keras_grow.export_saved_model(
                        model, pathlib.Path(folder) / "rule", batch_size=size
                    )
                    choice = record.storages["layer"].split(",")[0]
                    calls["nothing (TensorFlow's dispatch)"] = dispatch(x)
                    times = harness.compare(
                        {name: repeated(call) for name, call in calls.items()},
                        "dense",
                        rounds=400,
                        max_seconds=seconds,
                        control=repeated(saved_model(paths["dense"], x)),
                    )
                    for name, timing in times.items():
                        row = _row(name, "dense", size, timing)
                        row |= {"inputs": num_inputs, "units": units, "density": density}
                        row["bytes"] = num_bytes(paths[name]) if name in paths else None
                        row["is_the_rules"] = name == choice
                        found.append(row)
                        print(row, flush=True)
    return found


def _row(name: str, baseline: str, size: int, timing: harness.Timing) -> dict:
    low, high = timing.interval
    return {
        "form": name,
        "baseline": baseline,
        "batch": size,
        "seconds": timing.median / CALLS,
        # How many times as fast as the baseline.
        "speedup": 1 / timing.ratio,
        "interval": [1 / high, 1 / low],
    }


def _speedup(row: dict) -> str:
    low, high = row["interval"]
    return f"{row['speedup']:.2f} ({low:.2f} to {high:.2f})"


def ratios_table(rows: list[dict]) -> str:
    """Times and ratios of the network's forms, by batch size."""
    lines = []
    for name in dict.fromkeys(row["form"] for row in rows):
        cells = [name]
        for size in BATCH_SIZES:
            own = [row for row in rows if row["form"] == name and row["batch"] == size]
            cells.append(f"{1e3 * own[0]['seconds']:.3g}")
            cells += [_speedup(row) for row in own]
        lines.append(cells)
    header = ["form"]
    for size in BATCH_SIZES:
        header += [f"batch {size}, ms", "by dense SavedModel", "by dense LiteRT"]
    return harness.table(header, lines)


def layers_table(rows: list[dict]) -> str:
    """Times and ratios of single layers."""
    lines = []
    for row in rows:
        lines.append(
            [
                f"{row['inputs']:,} x {row['units']:,}, {row['density']:.0%}",
                row["batch"],
                row["form"] + (" (the rule's)" if row["is_the_rules"] else ""),
                "" if row["bytes"] is None else f"{row['bytes'] / 1e3:,.0f}",
                f"{1e3 * row['seconds']:.3f}",
                _speedup(row),
            ]
        )
    header = ["layer", "batch", "storage", "kB on disk", "ms", "times as fast as dense (95%)"]
    return harness.table(header, lines)


def _widths(network: keras.Model) -> str:
    compaction = keras_grow.compact(network, drop_inputs=True)
    units = "-".join(str(len(layer.units)) for layer in compaction.layers)
    return f"{len(compaction.input_indices[0])} used inputs and {units} units"


def _error(network: keras.Model, data: tuple[np.ndarray, np.ndarray]) -> float:
    x, classes = data
    return 100 * float(np.mean(np.argmax(network.predict(x, verbose=0), axis=-1) != classes))


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the tables to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument(
        "--kept",
        type=pathlib.Path,
        default=pathlib.Path("output/mnist/kept"),
        help="where the trained networks are kept",
    )
    parser.add_argument("--quick", action="store_true", help="small layers, no training")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    seconds = 0.2 if arguments.quick else 6.0
    network = kept_network(arguments, WEIGHTS)
    data = test_data(arguments)
    images = np.random.default_rng(0).random((256, 784), "float32") if data is None else data[0]
    calibration = np.asarray(images[:500], "float32")
    forms = [kind() for kind in formats.FORMATS]
    forms += [formats.LiteRT("float16"), formats.LiteRT("int8", calibration_data=calibration)]
    dense = dense_like(network)
    measured = keras_grow.measure(network, data, dense=dense, formats=forms, seconds=seconds)
    print(measured, flush=True)
    memory, memory_data = memory_table(network)
    ratios = compare_with_dense(network, images, seconds)
    print(ratios_table(ratios), flush=True)
    fewer = with_fewer_neurons(arguments)
    fewer_ratios = compare_with_dense(fewer, images, seconds)
    print(ratios_table(fewer_ratios), flush=True)
    files, files_data = files_table(network, data)
    print(files, flush=True)
    layers = layers_side_by_side(SHAPES[:1] if arguments.quick else SHAPES, seconds / 2)
    error = "" if data is None else f", {_error(fewer, data):.2f}% test error"
    text = [
        f"LeNet-300-100 of {keras_grow.report(network).num_active:,} weights on MNIST, grown from "
        f"10% of its connections and pruned in stages. Its compact form has {_widths(network)}.",
        "## All forms",
        "From `keras_grow.measure`: turns of about two milliseconds, forms interleaved; medians "
        "and quartiles. LiteRT has one thread, TensorFlow and ONNX Runtime have all. The error is "
        "max|a - b| / max|b| by the masked model's outputs.",
        str(measured),
        "Memory is what a process that has started the runtime takes more when it loads and "
        "serves the export; FLOPs are 2 x the connections that it multiplies with, for one sample.",
        memory,
        "## Ratios",
        "Ten calls in a row of each form, in a random order in every round: milliseconds of a "
        "call, and how many times as fast as the dense original as Keras exports it and as LiteRT "
        "file, median over rounds with a 95% interval. Inputs are tensors already. `A/A control` "
        "is the baseline loaded once more.",
        ratios_table(ratios),
        "### With fewer neurons",
        "The network as it was at 15,000 weights, from which neurons and then weights were "
        "removed, in ten rounds with three epochs of training on undistorted images after each: "
        f"{keras_grow.report(fewer).num_active:,} weights, {_widths(fewer)}{error}.",
        ratios_table(fewer_ratios),
        "## Files",
        "float16 and int8 of LiteRT are storage, products stay float32; calibrated, activations "
        "are int8 too.",
        files,
        "## Single layers as SavedModels",
        "Loaded from disk and called through their signature, ten calls in a row, interleaved.",
        layers_table(layers),
    ]
    found = {
        "measured": dataclasses.asdict(measured),
        "memory": memory_data,
        "ratios": ratios,
        "ratios_with_fewer_neurons": fewer_ratios,
        "files": files_data,
        "layers": layers,
    }
    harness.write("inference", "Inference", text, found, COMMAND, arguments.output)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
