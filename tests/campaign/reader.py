"""Loads files that may be damaged, one after the other, in a process of its own.

It reads a line of JSON for each, `{"path": ..., "model": ..., "whole": ...}`, and answers with one.
"""

import functools
import json
import pathlib
import sys

import keras
import numpy as np

import keras_grow
from keras_grow import formats
from tests.campaign.models import MODELS, inputs

EXPORTS = (".tflite", ".saved_model")


def _reset_peak() -> None:
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def _growable_state(model: keras.Model) -> list[np.ndarray]:
    """What growable layers hold, biases included."""
    return [
        keras.ops.convert_to_numpy(variable.value)
        for layer in model.layers
        if isinstance(layer, keras_grow.Growable)
        for variable in layer.variables
    ]


def _same(ones: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(ones) == len(others) and all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(ones, others, strict=True)
    )


def load(path: str, name: str) -> keras.Model:
    """The model in a file; the weights of one, loaded into a new model."""
    if path.endswith(".keras"):
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    model = MODELS[name](1)  # Other weights and connections than those that were saved.
    model.load_weights(path)
    return model


def compare_models(path: str, name: str, whole: str) -> str:
    """Equal, undetectable or wrong, of a file that Keras loads."""
    model, expected = load(path, name), _loaded(whole, name)
    same_growable = _same(_growable_state(model), _growable_state(expected))
    weights = [np.asarray(w) for w in model.get_weights()]
    is_equal = _same(weights, [np.asarray(w) for w in expected.get_weights()])
    is_equal &= _same([np.asarray(model(inputs()))], [np.asarray(expected(inputs()))])
    return "equal" if is_equal else "undetectable" if same_growable else "wrong"


def compare_exports(path: str, name: str, whole: str) -> str:
    """Equal or wrong, of an export, by what its runtime computes."""
    if name != "stock":
        formats.check_file(path)
    return "equal" if _same(_outputs(path), _expected_outputs(whole)) else "wrong"


def _outputs(path: str) -> list[np.ndarray]:
    form = formats.LiteRT() if path.endswith(".tflite") else formats.SavedModel()
    outputs = form.open(path)({"images": inputs()})
    return [outputs[name] for name in sorted(outputs)]


_expected_outputs = functools.cache(_outputs)


@functools.cache
def _loaded(whole: str, name: str) -> keras.Model:
    return load(whole, name)


def judge(path: str, name: str, whole: str) -> dict:
    """What comes of a file: refused, equal, undetectable or wrong."""
    compare = compare_exports if path.endswith(EXPORTS) else compare_models
    before = _memory("VmRSS")
    _reset_peak()
    try:
        verdict, said = compare(path, name, whole), ""
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        verdict = "refused" if str(error) else "wrong: no word of why"
    grown = _memory("VmHWM") - before
    if grown > 2**30:
        verdict = "wrong: more than 1 GiB"
    return {"verdict": verdict, "said": said[:300], "bytes": grown}


def main() -> None:
    """Answers until there is nothing more to read."""
    for line in sys.stdin:
        asked = json.loads(line)
        answer = judge(asked["path"], asked["model"], asked["whole"])
        keras.backend.clear_session(free_memory=False)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
