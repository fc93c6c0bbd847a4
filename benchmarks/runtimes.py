"""What runtimes make of zeros: the same network, dense and pruned, in files of several kinds.

    pip install openvino
    python -m benchmarks.runtimes

times three dense layers at some densities in LiteRT, ONNX Runtime, OpenVINO and TensorFlow, one
thread each, in about five minutes. `--quick` takes small layers.
"""

import argparse
import importlib
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import harness
from keras_grow import storages
from keras_grow.export.quiet import silent

COMMAND = "python -m benchmarks.runtimes"
DENSITIES = (1.0, 0.1, 0.05, 0.01)
BATCHES = (1, 32)
HIDDEN = 3


def network(width: int, density: float) -> keras.Model:
    """Three masked layers of a width, and a dense one."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((width,), name="x")])
    for number in range(HIDDEN):
        options = {"initial_density": density, "seed": number}
        model.add(keras_grow.GrowableDense(width, "relu", **options))
    model.add(keras.layers.Dense(10, name="answer"))
    return model


def _litert(model: keras.Model, path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    keras_grow.export_litert(model, path)
    serve = keras_grow.formats.LiteRT().open(str(path))
    return lambda: serve({"x": x})


def _onnx(model: keras.Model, path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    keras_grow.export_onnx(model, path)
    return _run_onnx(path, x)


def _onnx_of_keras(model: keras.Model, path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    keras_grow.make_plain(model).export(str(path), format="onnx", verbose=False)
    return _run_onnx(path, x)


def _run_onnx(path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})


def _openvino_of_onnx(model: keras.Model, path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    keras_grow.export_onnx(model, path)
    return _run_openvino(path, x)


def _openvino_of_saved_model(
    model: keras.Model, path: pathlib.Path, x: np.ndarray
) -> Callable[[], Any]:
    keras_grow.export_saved_model(model, path, storage=storages.Dense())
    return _run_openvino(path, x)


def _run_openvino(path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    core = importlib.import_module("openvino").Core()
    read = core.read_model(str(path))
    read.reshape({read.inputs[0].get_any_name(): list(x.shape)})
    # By default it computes in bfloat16 where the processor can.
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(read, "CPU", options)
    request = compiled.create_infer_request()
    return lambda: request.infer([x])


def _saved_model(model: keras.Model, path: pathlib.Path, x: np.ndarray) -> Callable[[], Any]:
    keras_grow.export_saved_model(model, path, batch_size=len(x))
    serve = keras_grow.formats.SavedModel().open(str(path))
    return lambda: serve({"x": x})


RUNTIMES: dict[str, tuple[str, Callable]] = {
    "LiteRT": (".tflite", _litert),
    "ONNX Runtime": (".onnx", _onnx),
    "ONNX Runtime, exported by Keras": (".onnx", _onnx_of_keras),
    "OpenVINO, our ONNX file": (".onnx", _openvino_of_onnx),
    "OpenVINO, SavedModel stored dense": ("", _openvino_of_saved_model),
    "TensorFlow, SavedModel": ("", _saved_model),
}


def measured(width: int, batches: Sequence[int], seconds: float) -> list[dict]:
    """A row for each runtime, batch size and density."""
    models = {density: network(width, density) for density in DENSITIES}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for batch in batches:
            x = np.random.default_rng(0).normal(size=(batch, width)).astype("float32")
            for runtime, (ending, opened) in RUNTIMES.items():
                calls, sizes = {}, {}
                with silent():
                    for density, model in models.items():
                        path = pathlib.Path(name, f"{runtime}-{batch}-{density}{ending}")
                        calls[f"{density:.0%}"] = opened(model, path, x)
                        sizes[f"{density:.0%}"] = keras_grow.export.writing.num_bytes(path)
                    path = pathlib.Path(name, f"{runtime}-{batch}-control{ending}")
                    control = opened(models[1.0], path, x)
                _check_alike(calls, models, x)
                timings = harness.compare(
                    calls, "100%", rounds=400, max_seconds=seconds, control=control
                )
                for what, timing in timings.items():
                    rows.append(
                        {
                            "runtime": runtime,
                            "batch": batch,
                            "density": what,
                            "bytes": sizes.get(what),
                            "seconds": timing.median,
                            "ratio": timing.ratio,
                            "interval": timing.interval,
                        }
                    )
    return rows


def _check_alike(calls: dict, models: dict[float, keras.Model], x: np.ndarray) -> None:
    """Raises `RuntimeError` unless each file answers as its model does."""
    for (what, call), model in zip(calls.items(), models.values(), strict=True):
        (found,) = _arrays(call())
        expected = model(x).numpy()
        error = np.abs(found - expected).max() / np.abs(expected).max()
        if error > 1e-3:
            raise RuntimeError(f"A file computes something else, at {what}: {error:.1e}")


def _arrays(outputs: Any) -> list[np.ndarray]:
    values = outputs if isinstance(outputs, list) else outputs.values()
    return [np.asarray(value) for value in values]


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    width, batches, seconds = (64, (1,), 0.2) if arguments.quick else (1024, BATCHES, 8.0)
    rows = measured(width, batches, seconds)
    table = harness.table(
        ["runtime and file", "batch", "connections", "kB", "us", "by the dense file", "95%"],
        [
            [
                row["runtime"],
                row["batch"],
                row["density"],
                "" if row["bytes"] is None else f"{row['bytes'] / 1e3:,.0f}",
                f"{1e6 * row['seconds']:,.1f}",
                f"{row['ratio']:.2f}",
                "{:.2f} to {:.2f}".format(*row["interval"]),
            ]
            for row in rows
        ],
    )
    text = [
        f"Three dense layers of {width} units, as many inputs, and a last one of 10; one thread; "
        "files of one kind interleaved in one process, compared with the dense one's; each was "
        f"compared with the model first. OpenVINO {importlib.import_module('openvino').__version__}"
        f", ONNX Runtime {importlib.import_module('onnxruntime').__version__}.",
        table,
    ]
    harness.write("runtimes", "Zeros in other runtimes", text, rows, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
