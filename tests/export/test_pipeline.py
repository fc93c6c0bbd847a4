"""The way out is the same for every format: compared before it stands at its path, or not there."""

import os
import pathlib
import pickle

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, SparseDense, formats
from keras_grow.errors import NotVerified
from keras_grow.export import writing
from keras_grow.export.stored import StoredKernel
from tests.export.models import draw, stirred


def _model():
    layers = [GrowableDense(6, "relu", initial_density=0.4, seed=0, name="a")]
    layers += [SparseDense(3, initial_density=0.5, seed=1, name="b")]
    return stirred(keras.Sequential([keras.Input((8,), name="x"), *layers]))


class _Kernel(StoredKernel):
    words = "an array"
    is_computed_sparsely = True


class _Arrays(formats.Format):
    """Pickled arrays of a chain of dense layers, `factor` times as large as they should be."""

    name = "pickle"
    runtime = "Python"

    def __init__(self, factor=1.0):
        self.factor = factor

    def is_own(self, path):
        return pathlib.Path(path).read_bytes()[:1] == b"\x80"

    def convert(self, inference, path, samples):
        kernels = [np.asarray(layer.effective_kernel()) for layer in inference.layers]
        biases = [np.asarray(layer.bias) for layer in inference.layers]
        content = [self.factor * kernels[0], kernels[1], *biases]
        pathlib.Path(path).write_bytes(pickle.dumps(content))
        return {layer.name: [_Kernel()] for layer in inference.layers}

    def open(self, path):
        first, second, *biases = pickle.loads(pathlib.Path(path).read_bytes())

        def serve(inputs):
            return {"b": np.maximum(inputs["x"] @ first + biases[0], 0) @ second + biases[1]}

        return serve


def test_a_format_of_ones_own_is_compared_and_moved_into_place_as_all_are(tmp_path):
    path, model = tmp_path / "m.pickle", _model()
    record = _Arrays().export(model, path, data=draw(70, 8))
    assert record.format == "pickle"
    assert record.num_bytes == os.path.getsize(path)
    assert record.storages == {"a": "an array", "b": "an array"}
    assert record.computed_sparsely == ("a", "b")
    assert record.error <= record.tolerance == 1e-5
    x = draw(3, 8)
    np.testing.assert_allclose(_Arrays().open(path)({"x": x})["b"], model(x), rtol=0, atol=1e-5)
    earlier = path.read_bytes()
    with pytest.raises(NotVerified, match="The pickle file does not compute what the model does"):
        _Arrays(1.01).export(model, path)
    assert path.read_bytes() == earlier
    assert 1e-5 < _Arrays(1.01).export(model, path, tolerance=0.1).error < 0.1
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="replaces earlier pickle files only"):
        _Arrays().export(model, tmp_path / "thesis.txt")
    assert sorted(os.listdir(tmp_path)) == ["m.pickle", "thesis.txt"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, can_exchange):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    if not can_exchange:
        monkeypatch.setattr(writing, "_exchanged", lambda *_: False)
    elif not writing._exchanged(str(one), str(other)):
        pytest.skip("this system exchanges no folders")
    else:
        # In one step: at no moment does nothing stand there.
        assert [os.listdir(one), os.listdir(other)] == [["other"], ["one"]]
        monkeypatch.setattr(writing.os, "rename", None)
        monkeypatch.setattr(writing.os, "replace", None)
    with writing.written_beside(one, lambda _: True, "folder") as path:
        os.mkdir(path)
        pathlib.Path(path, "new").touch()
    assert os.listdir(one) == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


def test_a_file_whose_outputs_have_other_names_is_refused_in_words(tmp_path):
    class Renamed(_Arrays):
        def open(self, path):
            serve = super().open(path)
            return lambda inputs: {"y": serve(inputs)["b"]}

    with pytest.raises(ValueError, match=r"Received: \['y'\], expected \['b'\]"):
        Renamed().export(_model(), tmp_path / "m.pickle")
    assert os.listdir(tmp_path) == []


def test_a_file_that_does_not_run_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "dumps", lambda _: b"\x80no pickle")
    with pytest.raises(ValueError, match="Python can't run the file that was made of the model"):
        _Arrays().export(_model(), tmp_path / "m.pickle")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_every_format_prints_nothing_and_leaves_the_model_as_it_was(
    kind, tmp_path, capfd, snapshot
):
    model = _model()
    before = snapshot(model)
    record = kind().export(model, tmp_path / "m")
    assert capfd.readouterr() == ("", "")
    snapshot.assert_same(model, before)
    assert record.format == kind.name
    x = draw(5, 8)
    served = kind().open(record.path)({"x": x})
    np.testing.assert_allclose(served["b"], model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_every_format_replaces_its_own_files_only(kind, tmp_path):
    for other in formats.FORMATS:
        other().export(_model(), tmp_path / other.name)
        if other is not kind:
            with pytest.raises(ValueError, match=f"replaces earlier {kind.name} files only"):
                kind().export(_model(), tmp_path / other.name)
    kind().export(_model(), tmp_path / kind.name)
    assert sorted(os.listdir(tmp_path)) == sorted(each.name for each in formats.FORMATS)


def test_labels_tell_formats_and_their_dtypes_apart():
    kinds = [formats.SavedModel(), formats.SavedModel(dtype="float16"), formats.ONNX()]
    kinds += [formats.LiteRT(), formats.LiteRT("float16"), formats.LiteRT("int8")]
    kinds += [formats.LiteRT("int8", calibration_data=draw(3, 8))]
    labels = [kind.label for kind in kinds]
    assert len(set(labels)) == len(labels)
    assert [kind().label for kind in formats.FORMATS] == [kind.name for kind in formats.FORMATS]
