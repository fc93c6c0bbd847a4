"""Inference: what exports of grown networks cost beside dense ones, in files and in time.

    python -m benchmarks.inference --data-dir DIR

measures LeNet-300-100 of 3,800 weights on MNIST, grown and pruned by `benchmarks.mnist_training` (a
quarter of an hour, kept under `output/`; `--network FILE` takes a `.keras` file instead), and
single layers of several sizes and densities, in about ten minutes. `--quick` leaves out the large
layers and takes an untrained network.
"""

import argparse
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
from keras_grow import storages
from keras_grow.export import serving
from keras_grow.export.quiet import silent
from keras_grow.export.writing import num_bytes

COMMAND = "python -m benchmarks.inference"
WEIGHTS = 3_800
BATCH_SIZES = (1, 32, 256)
# Inputs, units.
SHAPES = [(784, 300), (1024, 1024), (4096, 4096)]
DENSITIES = [0.01, 0.05, 0.1]
STORAGES = {
    "dense": storages.Dense(),
    "packed": storages.Packed(),
    "sparse": storages.Sparse(),
}


def grown_network(arguments: argparse.Namespace) -> keras.Model:
    """LeNet-300-100 of 3,800 weights, as a model of masked layers."""
    if arguments.quick:
        keras.utils.set_random_seed(0)
        hidden = [keras_grow.GrowableDense(units, "relu") for units in (300, 100)]
        network = keras.Sequential([keras.Input((784,)), *hidden, keras_grow.GrowableDense(10)])
        keras_grow.prune(network, count=266_200 - WEIGHTS)
        return network
    path = arguments.network
    if path is None:
        folder = arguments.scratch / "kept"
        path = folder / f"{WEIGHTS}.keras"
        if not path.exists():
            harness.run_alone(
                "benchmarks.mnist_training:train",
                timeout=4 * 3600,
                network="lenet_300_100",
                start="grown",
                is_distorted=True,
                seed=0,
                data_dir=arguments.data_dir,
                cache=str(arguments.scratch),
                keep=str(folder),
                stages=[[15_000, 8, 6], [7_800, 12, 24], [WEIGHTS, 16, 40]],
            )
    network = keras.models.load_model(path)
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
    serve = serving.open_litert(str(path))
    import ai_edge_litert.interpreter as runtime

    names = runtime.Interpreter(str(path)).get_signature_list()["serving_default"]["inputs"]
    return lambda: serve({names[0]: inputs})


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
        keras_grow.export_saved_model(compact, root / "compact")
        keras_grow.export_saved_model(compaction.model, root / "narrow")
        for size in BATCH_SIZES:
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
            for baseline in ("dense SavedModel", "dense LiteRT"):
                times = harness.compare(
                    {name: repeated(call) for name, call in calls.items()},
                    baseline,
                    rounds=200,
                    max_seconds=seconds,
                )
                for name, timing in times.items():
                    found.append(_row(name, baseline, size, timing))
    return found


def dispatch(inputs: np.ndarray) -> Callable[[], Any]:
    """A call of a function of TensorFlow that computes next to nothing."""
    signature = [tf.TensorSpec([None, *inputs.shape[1:]], tf.float32)]
    function = tf.function(lambda x: x[:, :1], input_signature=signature).get_concrete_function()
    tensor = tf.constant(inputs)
    return lambda: function(tensor).numpy()


def repeated(call: Callable[[], Any], count: int = 10) -> Callable[[], None]:
    """Ten calls in a row: a fast one finds its data where its last call left them."""

    def calls():
        for _ in range(count):
            call()

    return calls


def dense_like(network: keras.Model) -> keras.Model:
    """A plain copy with random weights in the place of zeros: a network of the same shape."""
    plain = keras_grow.make_plain(network)
    random = np.random.default_rng(0)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.Dense):
            kernel = layer.kernel.numpy()
            noise = random.normal(scale=0.05, size=kernel.shape)
            layer.kernel.assign(np.where(kernel == 0, noise, kernel))
    return plain


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


def layers_side_by_side(
    shapes: list[tuple[int, int]], seconds: float
) -> tuple[list[dict], list[dict]]:
    """Storages of single layers, loaded from disk and interleaved; and the rule's choices."""
    found, chosen = [], []
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
                    times = harness.compare(calls, "dense", rounds=400, max_seconds=seconds)
                    for name, timing in times.items():
                        row = _row(name, "dense", size, timing)
                        row |= {"inputs": num_inputs, "units": units, "density": density}
                        row["bytes"] = num_bytes(paths[name]) if name in paths else None
                        row["is_the_rules"] = name == choice
                        found.append(row)
                        print(row, flush=True)
    return found, chosen


def _row(name: str, baseline: str, size: int, timing: harness.Timing) -> dict:
    low, high = timing.interval
    return {
        "form": name,
        "baseline": baseline,
        "batch": size,
        "seconds": timing.median,
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
            # Each baseline's run times ten calls.
            cells.append(f"{1e2 * own[0]['seconds']:.3g}")
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


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the tables to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--network", type=pathlib.Path, help="a .keras file")
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("output/mnist"))
    parser.add_argument("--quick", action="store_true", help="small layers, no training")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    seconds = 0.2 if arguments.quick else 6.0
    network = grown_network(arguments)
    data = test_data(arguments)
    images = np.random.default_rng(0).random((256, 784), "float32") if data is None else data[0]
    measured = keras_grow.measure(network, data, seconds=seconds)
    print(measured, flush=True)
    ratios = compare_with_dense(network, images, seconds)
    print(ratios_table(ratios), flush=True)
    files, files_data = files_table(network, data)
    print(files, flush=True)
    layers, _ = layers_side_by_side(SHAPES[:1] if arguments.quick else SHAPES, seconds / 2)
    compaction = keras_grow.compact(network, drop_inputs=True)
    widths = [len(layer.units) for layer in compaction.layers]
    text = [
        f"LeNet-300-100 of {keras_grow.report(network).num_active:,} weights on MNIST, grown from "
        "10% of its connections and pruned in stages. Its compact form has "
        f"{len(compaction.input_indices[0])} used inputs and {widths} units.",
        "## All forms",
        "From `keras_grow.measure`: turns of about two milliseconds, forms interleaved; medians "
        "and quartiles. LiteRT has one thread, TensorFlow and ONNX Runtime have all. Memory is "
        "what a process that has started the runtime takes more when it loads and serves the "
        "export; the error is max|a - b| / max|b| by the masked model's outputs.",
        str(measured),
        "## Ratios",
        "Ten calls in a row of each form, in a random order in every round: milliseconds of a "
        "call, and how many times as fast as the dense original as Keras exports it and as LiteRT "
        "file, median over rounds with a 95% interval. Inputs are tensors already. `A/A control` "
        "is the baseline once more.",
        ratios_table(ratios),
        "## Files",
        "float16 and int8 of LiteRT are storage, products stay float32; calibrated, activations "
        "are int8 too.",
        files,
        "## Single layers as SavedModels",
        "Loaded from disk and called through their signature, interleaved.",
        layers_table(layers),
    ]
    found = {
        "measured": measured.as_dict(),
        "ratios": ratios,
        "files": files_data,
        "layers": layers,
    }
    harness.write("inference", "Inference", text, found, COMMAND, arguments.output)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
