"""Runtimes that serve exports, called alike; as a script, what memory one takes in a process.

    python serving.py RUNTIME PATH INPUTS.npz

prints by how many bytes the resident memory of the process grew while it loaded the export at PATH
and computed the inputs twice, once the runtime had started. It imports the runtime and no more.
"""

import functools
import importlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Serve = Callable[[Arrays], dict[str, np.ndarray]]


def open_saved_model(path: str) -> Serve:
    """Serves a SavedModel by its signature, with TensorFlow's threads."""
    tf = importlib.import_module("tensorflow")
    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    names = list(serve.structured_input_signature[1])

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        if set(names) != set(inputs):  # Those of Keras's own exports.
            inputs = dict(zip(names, inputs.values(), strict=True))
        outputs = serve(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    # TensorFlow drops the weights with what was loaded, so the function holds on to it.
    return functools.partial(_with, loaded, call)


def _with(loaded: Any, call: Serve, inputs: Arrays) -> dict[str, np.ndarray]:
    return call(inputs)


def open_litert(path: str) -> Serve:
    """Serves a LiteRT file, with one thread."""
    try:
        interpreter_class = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        interpreter_class = importlib.import_module("tensorflow").lite.Interpreter
    interpreter = interpreter_class(model_path=path, num_threads=1)
    signature = interpreter.get_signature_list()["serving_default"]
    runner = interpreter.get_signature_runner("serving_default")
    inputs_of = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
    details = runner.get_input_details()
    places = {name: inputs_of[details[name]["name"]] for name in signature["inputs"]}
    outputs = {name: d["index"] for name, d in runner.get_output_details().items()}
    shapes: list[tuple[int, ...]] = []

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        # The runner of a signature copies and looks up names at every call; this does not.
        now = [value.shape for value in inputs.values()]
        if now != shapes:
            for name, value in inputs.items():
                interpreter.resize_tensor_input(places[name], value.shape)
            interpreter.allocate_tensors()
            shapes[:] = now
        for name, value in inputs.items():
            interpreter.set_tensor(places[name], value)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return call


def open_onnx(path: str) -> Serve:
    """Serves an ONNX file with ONNX Runtime's threads."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, dict(inputs)), strict=True))

    return call


OPEN: dict[str, Callable[[str], Serve]] = {
    "SavedModel": open_saved_model,
    "LiteRT": open_litert,
    "ONNX": open_onnx,
}


def _start(runtime: str) -> None:
    """Lets a runtime make its threads and pools."""
    if runtime == "SavedModel":
        tf = importlib.import_module("tensorflow")
        matrix = tf.ones((64, 64))
        tf.function(lambda x: tf.matmul(x, x))(matrix).numpy()
    else:
        try:
            importlib.import_module(
                "onnxruntime" if runtime == "ONNX" else "ai_edge_litert.interpreter"
            )
        except ImportError:
            importlib.import_module("tensorflow")  # Its interpreter takes the place of LiteRT's.


def _resident_bytes() -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def main(runtime: str, path: str, inputs: str) -> None:
    """Prints the growth of the resident memory, in bytes."""
    with np.load(inputs) as file:
        arrays = {name: file[name] for name in file.files}
    _start(runtime)
    before = _resident_bytes()
    serve = OPEN[runtime](path)
    for _ in range(2):
        serve(arrays)
    print(_resident_bytes() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
