"""Keras's and TensorFlow's exporters refuse what would fail when it is run; ours export it.

Run on Keras 3.10 to 3.15 and TensorFlow 2.19 to 2.21.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    SparseDense,
    export_litert,
    export_onnx,
    export_saved_model,
    make_growable,
    make_plain,
)
from keras_grow.policies.densities import FanIn
from tests.zoo.models import ZOO


@pytest.fixture(scope="module")
def model():
    layers = [SparseDense(6, "relu", initial_density=FanIn(3), seed=1), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model(X)
    return model


X = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")


@pytest.mark.parametrize("file_format", ["onnx", "litert"])
def test_kerass_exporters_are_refused_and_write_nothing(model, tmp_path, file_format):
    if file_format == "litert" and "litert" not in (keras.Model.export.__doc__ or ""):
        pytest.skip("this Keras has no exporter to LiteRT")
    if file_format == "onnx":
        pytest.importorskip("tf2onnx")
    path = tmp_path / {"onnx": "model.onnx", "litert": "model.tflite"}[file_format]
    with pytest.raises(ValueError, match=rf"Use `keras_grow.export_{file_format}\(model, path\)`"):
        model.export(path, format=file_format, verbose=False)
    assert not path.exists()
    plain = make_plain(model)
    plain(X)
    plain.export(path, format=file_format, verbose=False)


def test_tensorflows_converter_is_refused(model):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    # TensorFlow swallows the error, tries another way and fails on that with one of its own.
    with (
        pytest.warns(UserWarning, match="Use `keras_grow.export_litert"),
        pytest.raises((ValueError, TypeError, AttributeError)),
    ):
        converter.convert()


def test_tensorflows_converter_can_not_make_a_file_of_kerass_saved_model(model, tmp_path):
    model.export(tmp_path / "kerass", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "kerass"))
    with pytest.raises(Exception, match="TensorListReserve"):
        converter.convert()


def test_kerass_saved_model_and_all_of_ours_are_written(model, tmp_path):
    model.export(tmp_path / "kerass", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "kerass"))
    np.testing.assert_allclose(loaded.serve(X), model(X), rtol=0, atol=1e-6)
    export_saved_model(model, tmp_path / "ours")
    export_litert(model, tmp_path / "ours.tflite")
    export_onnx(model, tmp_path / "ours.onnx")


@pytest.mark.filterwarnings("ignore:Not all of the model can grow")
@pytest.mark.parametrize("name", ["string_lookup", "text_vectorization", "integer_lookup"])
def test_a_saved_model_takes_tables_along(tmp_path, name):
    model, inputs = ZOO[name]()
    record = export_saved_model(make_growable(model), tmp_path / name)
    assert record.error == 0
    loaded = tf.saved_model.load(str(tmp_path / name))
    (outputs,) = loaded.serve(tf.convert_to_tensor(inputs)).values()
    np.testing.assert_array_equal(outputs, model(inputs))


@tf.function
def _only_sevens(x):
    with tf.control_dependencies([tf.debugging.assert_equal(x, 7.0)]):
        return tf.identity(x)


@pytest.mark.filterwarnings("ignore:The copy was not checked")
@pytest.mark.filterwarnings("ignore:Not all of the model can grow")
@pytest.mark.parametrize(("export", "file"), [(export_litert, "a.tflite"), (export_onnx, "a.onnx")])
def test_a_model_that_fails_is_not_blamed_on_the_folder(tmp_path, export, file):
    layers = [keras.layers.Lambda(_only_sevens, output_shape=(3,)), keras.layers.Dense(2)]
    model = make_growable(keras.Sequential([keras.Input((3,)), *layers]))
    with pytest.raises(ValueError, match="could not be computed on this machine, and nothing was"):
        export(model, tmp_path / file)
    assert not (tmp_path / file).exists()
