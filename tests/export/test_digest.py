"""An export that is damaged is told from one that is whole, wherever it is damaged."""

import pathlib
import shutil

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, export_litert, export_onnx, export_saved_model, formats

_EXPORTS = {"m.tflite": export_litert, "m.onnx": export_onnx, "saved": export_saved_model}


def _network():
    layer = GrowableDense(6, "relu", initial_density=0.4, seed=0)
    return keras.Sequential([keras.Input((8,)), layer, keras.layers.Dense(3)])


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    model = _network()
    for name, export in _EXPORTS.items():
        export(model, folder / name)
    return folder


def _files(path):
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]


@pytest.mark.parametrize("name", _EXPORTS)
def test_a_bit_anywhere_is_noticed(name, exports):
    formats.check_file(exports / name)
    random = np.random.default_rng(0)
    for file in _files(exports / name):
        if file.name == "keras_grow.json":  # It describes, and nothing is computed from it.
            continue
        whole = file.read_bytes()
        ends = {0, len(whole) - 1, *random.integers(0, len(whole), 20)}
        for place in ends if whole else ():
            damaged = bytearray(whole)
            damaged[place] ^= 1 << random.integers(8)
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match="not what was written"):
                formats.check_file(exports / name)
        file.write_bytes(whole)
    formats.check_file(exports / name)


@pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
@pytest.mark.parametrize("kept", [0, 63, 64, 500, -1, -64, -100])
def test_an_end_that_is_missing_is_noticed(name, kept, exports, tmp_path):
    whole = (exports / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:kept])
    with pytest.raises(ValueError, match="its end is not the digest"):
        formats.check_file(tmp_path / name)


def test_files_that_are_missing_or_new_are_named(exports, tmp_path):
    path = tmp_path / "saved"
    shutil.copytree(exports / "saved", path)
    (path / "fingerprint.pb").unlink()
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets/words.txt").write_text("one")
    with pytest.raises(ValueError, match=r"\['assets/words.txt', 'fingerprint.pb'\]"):
        formats.check_file(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "has no assets.extra"),
        ("{", "no digests"),
        ("[]", "no digests"),
        ("{}", "no digests"),
    ],
)
def test_a_directory_of_somebody_else_is_refused(text, reason, exports, tmp_path):
    shutil.copytree(exports / "saved", tmp_path / "saved")
    description = tmp_path / "saved/assets.extra/keras_grow.json"
    description.unlink()
    if text is not None:
        description.write_text(text)
    with pytest.raises(ValueError, match=reason):
        formats.check_file(tmp_path / "saved")


def test_what_is_not_there_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        formats.check_file(tmp_path / "nothing.tflite")


def test_an_onnx_file_holds_its_digest_as_metadata(exports):
    onnx = pytest.importorskip("onnx")
    path = exports / "m.onnx"
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded)
    (entry,) = [each for each in loaded.metadata_props if each.key == "keras_grow_sha256"]
    assert pathlib.Path(path).read_bytes().endswith(entry.value.encode())
