import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableConv1D,
    GrowableConv2D,
    GrowableDense,
    WeightNormConv2D,
    WeightNormDense,
    export_saved_model,
    make_growable,
    prune,
)

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")

# Loads and calls SavedModels where neither keras_grow nor Keras can be imported.
SERVE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
for name in ("keras_grow", "keras", "tf_keras", "tensorflow.keras"):
    sys.modules[name] = None
import numpy as np, tensorflow as tf
for folder in sys.argv[1:]:
    served = tf.saved_model.load(folder + "/served").signatures["serving_default"]
    inputs = np.load(folder + "/in.npz")
    outputs = served(**{name: tf.constant(inputs[name]) for name in inputs})
    np.savez(folder + "/out.npz", **{name: y.numpy() for name, y in outputs.items()})
assert not any(name.split(".")[0] in ("keras", "keras_grow") and module is not None
               for name, module in sys.modules.items())
"""


def _sequential():
    model = keras.Sequential(
        [
            keras.Input((8,), name="features"),
            GrowableDense(64, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            WeightNormDense(32, "relu"),
            keras.layers.Dense(5),
            GrowableDense(3, "softmax", name="classes"),
        ]
    )
    prune(model, density=0.1)
    return model


def _functional():
    shared = GrowableDense(8, "tanh", name="shared", initial_density=0.5, seed=0)
    inner = keras.Sequential([keras.Input((8,)), WeightNormDense(5)], name="nest")
    x, z = keras.Input((8,), name="x"), keras.Input((8,), name="z")
    h = keras.layers.Add()([shared(shared(x)), z])
    return keras.Model(
        [x, z], [keras.layers.Identity(name="a")(inner(h)), keras.layers.Softmax(name="b")(h)]
    )


def _dictionaries():
    x = keras.Input((8,), name="the x")
    return keras.Model({"x": x}, {"out": GrowableDense(2, initial_density=0.5, seed=1)(x)})


# A model; its inputs as it takes them, and by name; the names of its outputs.
CASES = {
    "sequential": (_sequential, X, {"features": X}, ["classes"]),
    "functional": (_functional, [X, -X], {"x": X, "z": -X}, ["a", "b"]),
    "dictionaries": (_dictionaries, {"x": X}, {"the_x": X}, ["out"]),
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """What each model computes, and what its export does in one process for all of them."""
    folder, expected = tmp_path_factory.mktemp("exports"), {}
    for case, (build, x, named, names) in CASES.items():
        model = build()
        export_saved_model(model, folder / case / "served")
        np.savez(folder / case / "in.npz", **named)
        outputs = keras.tree.flatten(model(x, training=False))
        expected[case] = dict(zip(names, (y.numpy() for y in outputs), strict=True))
    subprocess.run([sys.executable, "-c", SERVE, *CASES], cwd=folder, check=True)
    return {case: (y, dict(np.load(folder / case / "out.npz"))) for case, y in expected.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_export_computes_the_same_without_keras(case, computed):
    expected, served = computed[case]
    assert sorted(served) == CASES[case][-1]
    for name, outputs in expected.items():
        np.testing.assert_allclose(served[name], outputs, rtol=0, atol=1e-6)


def test_the_batch_size_is_free_and_serve_can_be_called_by_position(tmp_path):
    model = _sequential()
    export_saved_model(model, tmp_path / "served")
    loaded = tf.saved_model.load(tmp_path / "served")
    for size in (1, 7, 32):
        np.testing.assert_allclose(
            loaded.serve(X[:size])["classes"], model(X[:size]), rtol=0, atol=1e-6
        )


def test_convolutions_are_exported_with_their_active_connections_alone(tmp_path):
    layers = [
        keras.layers.Reshape((4, 2)),
        GrowableConv1D(8, 3, padding="causal", activation="relu", name="steps"),
        keras.layers.Reshape((4, 4, 2)),
        GrowableConv2D(32, 3, padding="same", activation="relu"),
        WeightNormConv2D(32, (3, 2), strides=2, padding="same"),
        keras.layers.GlobalAveragePooling2D(name="means"),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    prune(model, density=0.1)
    export_saved_model(model, tmp_path / "served")
    loaded = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(loaded.serve(X)["means"], model(X), rtol=0, atol=1e-6)
    # A tenth of 6,768 weights, of 4 + 4 bytes each, and 72 biases of 4; dense it were 27,360.
    assert _weight_bytes(tmp_path / "served") < 8_000


def test_dormant_connections_are_not_stored(tmp_path):
    dense = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, "relu")])
    model = make_growable(dense)
    prune(model, density=0.01)
    dense.export(tmp_path / "dense", verbose=False)
    export_saved_model(model, tmp_path / "grown")
    # 2,621 connections of 4 + 1 bytes, and 2 for gaps beyond 255, and 512 biases of 4.
    assert 15_000 < _weight_bytes(tmp_path / "grown") < 17_000
    assert _weight_bytes(tmp_path / "dense") > 1_000_000


def _weight_bytes(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in (path / "variables").glob("*.data*"))


def test_an_export_replaces_an_earlier_one_and_leaves_nothing_beside_it(tmp_path):
    model = _sequential()
    path = tmp_path / "new folder" / "served"
    export_saved_model(model, path)
    model.get_layer("classes").bias.assign([1.0, 2.0, 3.0])
    export_saved_model(model, str(path))
    loaded = tf.saved_model.load(path)
    np.testing.assert_allclose(loaded.serve(X)["classes"], model(X), rtol=0, atol=1e-6)
    assert os.listdir(path.parent) == ["served"]


def test_something_else_than_a_saved_model_is_never_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="something else stands"):
        export_saved_model(_sequential(), tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = GrowableDense(4, "tanh", initial_density=0.5, seed=0)

    def call(self, x):
        return self.hidden(x)


class Untraceable(Subclassed):
    def call(self, x):
        return self.hidden(x.numpy()) if isinstance(x, tf.Tensor) else self.hidden(x)


def test_a_subclassed_model_is_exported_with_a_signature_and_refused_without(tmp_path):
    model = Subclassed()
    model(X)
    with pytest.raises(ValueError, match="Pass `input_signature="):
        export_saved_model(model, tmp_path / "served")
    signature = tf.TensorSpec((None, 8), "float32", name="rows")
    export_saved_model(model, tmp_path / "served", input_signature=signature)
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    np.testing.assert_allclose(served(rows=X)["output_0"], model(X), rtol=0, atol=1e-6)


def test_what_cannot_be_exported_is_refused_in_words_and_writes_nothing(tmp_path):
    untraceable = Untraceable()
    untraceable(X)
    signature = tf.TensorSpec((None, 8), "float32", name="rows")
    with pytest.raises(ValueError, match="can't be exported"):
        export_saved_model(untraceable, tmp_path / "served", input_signature=signature)
    with pytest.raises(ValueError, match="no growable layer"):
        export_saved_model(
            keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)]), tmp_path / "served"
        )
    broken = _sequential()
    broken.layers[0].kernel.assign(np.full((8, 64), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        export_saved_model(broken, tmp_path / "served")
    assert os.listdir(tmp_path) == []
