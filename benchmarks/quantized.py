"""Pruned networks in fewer bits: what they take, how fast they answer, how well, and their zeros.

    TFDS_DATA_DIR=DIR python -m benchmarks.quantized

takes LeNet-300-100 of 3,800 weights on MNIST, grown and pruned by `benchmarks.mnist_training` (a
quarter of an hour), and ResNet-20 of half the width and the mobile network of `benchmarks.cifar`,
pruned to 30% of their connections while they train on CIFAR-10 (a quarter of an hour each); all are
kept under `output/`. `--networks` names some of them. `--quick` trains nothing.
"""

import argparse
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import cifar_data, harness
from benchmarks.cifar_networks import mobile, residual
from benchmarks.inference import WEIGHTS, kept_network, litert
from keras_grow.export.litert_format.schema import schema
from keras_grow.export.quiet import silent

COMMAND = "python -m benchmarks.quantized"
LENET = "LeNet-300-100"
CONVOLUTIONAL: dict[str, Callable[[], keras.Model]] = {
    "ResNet-20, half as wide": lambda: residual((8, 16, 32), (8, 16, 32), blocks=3),
    "mobile": lambda: mobile((8, 16, 32), (32, 48, 96)),
}
NAMES = (LENET, *CONVOLUTIONAL)
DENSITY, EPOCHS, BATCH = 0.3, 15, 128
PRUNED_IN = range(3, 10)
MODES = ("int8", "int4")
DTYPES = ("float32", "float16", "int8", "int8, calibrated")
NUM_CALIBRATION = 500


def pruned(name: str, folder: pathlib.Path, is_quick: bool) -> keras.Model:
    """A network of the study of channels, its connections pruned by a cubic schedule as it trains.

    Args:
        name: of the network.
        folder: where it is kept.
        is_quick: whether it is pruned untrained.
    """
    path = folder / f"{name}-{DENSITY}.keras"
    if path.exists() and not is_quick:
        return keras.models.load_model(path)
    keras.utils.set_random_seed(0)
    model = keras_grow.make_growable(CONVOLUTIONAL[name](), verify=False)
    if is_quick:
        keras_grow.prune(model, density=DENSITY, per_layer=True)
        return model
    problem, random = cifar_data.cifar10(), np.random.default_rng(0)
    x, y = problem.train
    rate = keras.optimizers.schedules.CosineDecay(0.3, EPOCHS * -(-len(x) // BATCH))
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    cubic = keras.optimizers.schedules.PolynomialDecay(
        1.0, len(PRUNED_IN) - 1, end_learning_rate=DENSITY, power=3
    )
    for epoch in range(EPOCHS):
        if epoch in PRUNED_IN[1:]:
            density = float(cubic(epoch - PRUNED_IN.start))
            keras_grow.prune(model, density=density, per_layer=True)
        images = cifar_data.scaled(cifar_data.augmented(x, random))
        model.fit(images, y, batch_size=BATCH, verbose=0)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def data_of(name: str, is_quick: bool, data_dir: str | None) -> tuple[np.ndarray, ...]:
    """Images to calibrate on, and images and classes of the test."""
    if is_quick:
        shape = (784,) if name == LENET else (cifar_data.SIDE, cifar_data.SIDE, 3)
        x = np.random.default_rng(0).random((64, *shape), "float32")
        return x, x, np.arange(64) % 10
    if name == LENET:
        from benchmarks import mnist_data

        x, _, *test = mnist_data.load(data_dir)
        return x[:NUM_CALIBRATION].astype("float32") / 255, test[0].astype("float32") / 255, test[1]
    problem = cifar_data.cifar10()
    train, (x, y) = problem.train[0], problem.test
    return cifar_data.scaled(train[:NUM_CALIBRATION]), cifar_data.scaled(x), y


def measure(network: keras.Model, data: Sequence[np.ndarray], seconds: float) -> list[dict]:
    """Every form of a network: bytes, latency at batch 1, accuracy, and zeros in its kernels."""
    calibration, x, y = data
    found, calls = [], {}
    plain = keras_grow.make_plain(network, verify=False)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        models = {"Keras, float32": plain}
        for mode in MODES:
            quantized = _quantized(network, mode)
            if quantized is not None:
                models[f"Keras, {mode}"] = quantized
        for form, model in models.items():
            path = folder / f"{form}.keras"
            model.save(path)
            answers = np.argmax(model.predict(x, batch_size=500, verbose=0), axis=-1)
            calls[form] = _call(model, x[:1])
            found.append(_row(form, path, answers, y, _zeros_in_keras(model)))
        for dtype in DTYPES:
            path = folder / f"{dtype}.tflite"
            is_calibrated = dtype.endswith("calibrated")
            keras_grow.export_litert(
                network,
                path,
                dtype=dtype.partition(",")[0],
                calibration_data=calibration if is_calibrated else None,
                data=x[:64],
                min_agreement=0.0,  # What is measured here.
            )
            form = f"LiteRT, {dtype}"
            outputs = [litert(path, part)() for part in np.array_split(x, max(1, len(x) // 500))]
            answers = np.argmax(np.concatenate([_only(each) for each in outputs]), axis=-1)
            calls[form] = litert(path, x[:1])
            found.append(_row(form, path, answers, y, _zeros_in_litert(path)))
        with silent():
            times = harness.compare(
                calls, "LiteRT, float32", rounds=200, max_seconds=seconds * len(calls)
            )
    for row in found:
        timing = times[row["form"]]
        row |= {"seconds": timing.median, "ratio": timing.ratio, "interval": timing.interval}
    return found


def _quantized(network: keras.Model, mode: str) -> keras.Model | None:
    """The network in integers, where Keras has any for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Convolutions stay: the zeros say so.
        try:
            return keras_grow.quantize(network, mode, verify=False)
        except ValueError:
            return None


def _call(model: keras.Model, x: np.ndarray) -> Callable[[], Any]:
    function, tensor = tf.function(lambda given: model(given, training=False)), tf.constant(x)
    return lambda: function(tensor).numpy()


def _only(outputs: Any) -> np.ndarray:
    (output,) = outputs.values() if isinstance(outputs, dict) else (outputs,)
    return output


def _row(form: str, path: pathlib.Path, answers: Any, y: np.ndarray, zeros: int) -> dict:
    accuracy = float(np.mean(answers == y))
    return {"form": form, "bytes": path.stat().st_size, "accuracy": accuracy, "zeros": zeros}


def _zeros_in_keras(model: keras.Model) -> int:
    """Zeros in the kernels of plain, perhaps quantized layers, integers of 4 bits unpacked."""
    total = 0
    for layer in model.layers:
        stored = {variable.name: np.asarray(variable.value) for variable in layer.weights}
        kernel = stored.get("kernel")
        if kernel is None:
            continue
        if getattr(layer, "quantization_mode", None) == "int4":
            kernel = np.asarray(keras.quantizers.unpack_int4(kernel, layer.units, axis=-1))
            zero = stored.get("kernel_zero", np.zeros((1, layer.units)))
            group = stored.get("g_idx", np.zeros(len(kernel))).astype(int)
            kernel = kernel - zero[group]
        total += int(np.sum(kernel == 0))
    return total


def _zeros_in_litert(path: pathlib.Path) -> int:
    """Zeros in constants of two axes and more, those that sparse ones leave out included."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    types = {
        schema.TensorType.FLOAT32: "float32",
        schema.TensorType.FLOAT16: "float16",
        schema.TensorType.INT8: "int8",
    }
    total = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            content = model.buffers[tensor.buffer].data
            if content is not None and len(tensor.shape) > 1 and tensor.type in types:
                values = np.frombuffer(np.asarray(content, np.uint8).tobytes(), types[tensor.type])
                total += int(np.prod(tensor.shape)) - int(np.count_nonzero(values))
    return total


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the tables to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=[*NAMES], choices=NAMES)
    parser.add_argument("--data-dir", default=os.environ.get("TFDS_DATA_DIR"))
    parser.add_argument("--kept", type=pathlib.Path, default=pathlib.Path("output/mnist/kept"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    rows, found = [], {}
    for name in arguments.networks:
        if name == LENET:
            network = kept_network(arguments, WEIGHTS)
        else:
            network = pruned(name, arguments.kept, arguments.quick)
        data = data_of(name, arguments.quick, arguments.data_dir)
        layers = keras_grow.growable_layers(network)
        dormant = sum(layer.num_connections - layer.num_active for layer in layers)
        found[name] = measure(network, data, 0.1 if arguments.quick else 3.0)
        for row in found[name]:
            rows.append(
                [
                    f"{name}, {row['form']}",
                    f"{row['bytes'] / 1e3:,.1f}",
                    f"{1e6 * row['seconds']:.1f}",
                    "{:.2f} ({:.2f} to {:.2f})".format(row["ratio"], *row["interval"]),
                    f"{100 * row['accuracy']:.2f}",
                    f"{row['zeros']:,} of {dormant:,}",
                ]
            )
        print(harness.table([name, "kB", "us", "ratio", "%", "zeros"], rows), flush=True)
    text = [
        f"LeNet-300-100 of {WEIGHTS:,} weights on MNIST, and two convolutional networks on "
        f"CIFAR-10 (JPEG copies of its images) of which {DENSITY:.0%} of the connections are left. "
        "Keras has integers for dense layers only: convolutions stay in float32 there. LiteRT's "
        "float16 and int8 are how kernels are stored, calibrated int8 how they are multiplied.",
        harness.table(
            [
                "network, form",
                "kB on disk",
                "batch 1, us",
                "by LiteRT's float32",
                "test %",
                "zeros of dormant connections",
            ],
            rows,
        ),
        "Times are medians of turns, forms interleaved in one process, LiteRT with one thread.",
    ]
    harness.write("quantized", "Pruned, then quantized", text, found, COMMAND, arguments.output)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
