import logging
import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from keras_grow import GrowableConv2D, GrowableDense
from keras_grow.areas import make_partial_area
from keras_grow.export import onnx as onnx_export
from keras_grow.export.onnx import export_onnx
from keras_grow.export.verification import NotVerified
from tests.export.models import BUILDERS, Subclassed, build, draw, stirred

# Runs a file where neither TensorFlow, Keras nor keras_grow can be imported.
SERVE = """
import sys
for name in ("keras_grow", "keras", "tf_keras", "tensorflow", "tf2onnx", "onnx"):
    sys.modules[name] = None
import numpy as np, onnxruntime
inputs = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1])
names = [output.name for output in session.get_outputs()]
outputs = session.run(names, {name: inputs[name] for name in inputs})
np.savez(sys.argv[3], **dict(zip(names, outputs)))
assert not any(name.split(".")[0] in ("tensorflow", "keras", "keras_grow") and module is not None
               for name, module in sys.modules.items())
"""


def _small():
    layer = GrowableDense(3, "softmax", initial_density=0.5, seed=0, name="classes")
    return stirred(keras.Sequential([keras.Input((8,), name="x"), layer]))


def _session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_file_computes_the_same_at_every_batch_size(builder, tmp_path):
    model, x, named, names = build(builder)
    record = export_onnx(model, tmp_path / "m.onnx")
    assert record.error <= 1e-5
    assert record.num_bytes == os.path.getsize(tmp_path / "m.onnx")
    session = _session(tmp_path / "m.onnx")
    assert sorted(given.name for given in session.get_inputs()) == sorted(named)
    assert sorted(taken.name for taken in session.get_outputs()) == sorted(names)
    assert all(given.shape[0] == "batch" for given in session.get_inputs())
    expected = keras.tree.flatten(model(x, training=False))
    for size in (32, 1, 7):
        outputs = session.run(names, {name: array[:size] for name, array in named.items()})
        for a, b in zip(outputs, expected, strict=True):
            limit = 1e-5 * abs(b.numpy()).max()
            np.testing.assert_allclose(a, b[:size], rtol=0, atol=limit)


def test_kernels_are_stored_dense_with_exact_zeros(tmp_path):
    model = _small()
    record = export_onnx(model, tmp_path / "m.onnx")
    assert record.storages == {"classes": "dense float32, with 12 connections"}
    loaded = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(loaded, full_check=True)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer]
    kernel = model.layers[0].effective_kernel().numpy()
    assert np.count_nonzero(kernel) == 12
    assert any(array.shape == kernel.shape and np.all(array == kernel) for array in arrays)


def test_the_opset_can_be_chosen(tmp_path):
    for opset in (13, 18):
        export_onnx(_small(), tmp_path / "m.onnx", opset=opset)
        [used] = [o for o in onnx.load(tmp_path / "m.onnx").opset_import if o.domain == ""]
        assert used.version == opset


def test_recurrent_networks_and_float64_are_exported(tmp_path):
    layers = [keras.Input((5, 8), name="x"), keras.layers.LSTM(4), GrowableDense(2, name="y")]
    model = keras.Sequential(layers)
    export_onnx(model, tmp_path / "m.onnx")
    x = draw(3, 5, 8)
    [y] = _session(tmp_path / "m.onnx").run(["y"], {"x": x})
    np.testing.assert_allclose(y, model(x), rtol=0, atol=1e-5)
    assert export_onnx(_float64(), tmp_path / "m.onnx").error < 1e-14


def test_the_file_runs_where_there_is_no_tensorflow(tmp_path):
    model, x, named, names = build(BUILDERS[3])
    export_onnx(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", **named)
    subprocess.run(
        [sys.executable, "-c", SERVE, "m.onnx", "in.npz", "out.npz"], cwd=tmp_path, check=True
    )
    served = np.load(tmp_path / "out.npz")
    for name, b in zip(names, model(x, training=False), strict=True):
        np.testing.assert_allclose(served[name], b, rtol=0, atol=1e-5)


def test_a_subclassed_model_is_exported_with_a_signature(tmp_path):
    model = Subclassed()
    x = draw(9, 8)
    model(x)
    with pytest.raises(ValueError, match="Pass `input_signature="):
        export_onnx(model, tmp_path / "m.onnx")
    signature = tf.TensorSpec((None, 8), "float32", name="rows")
    export_onnx(model, tmp_path / "m.onnx", input_signature=signature)
    [outputs] = _session(tmp_path / "m.onnx").run(["output_0"], {"rows": x})
    np.testing.assert_allclose(outputs, model(x), rtol=0, atol=1e-6)


def _float64():
    layers = [keras.Input((8,), dtype="float64"), GrowableDense(2, dtype="float64")]
    return stirred(keras.Sequential(layers))


def test_nothing_is_printed_and_logging_stays_as_it_was(tmp_path, capfd, monkeypatch):
    # Of float64, tf2onnx warns through the root logger, which gets a handler by that.
    monkeypatch.setattr(logging.root, "handlers", [])
    export_onnx(_float64(), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
    assert logging.root.handlers == []
    assert logging.root.isEnabledFor(logging.WARNING)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(logging.root, "handlers", [handler])
    export_onnx(_float64(), tmp_path / "m.onnx")
    assert records == []
    logging.warning("heard again")
    assert len(records) == 1


@pytest.mark.parametrize("missing", ["tf2onnx.convert", "onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'{missing}.*pip install "keras_grow\[onnx\]"'):
        export_onnx(_small(), tmp_path / "m.onnx")


def test_a_file_that_computes_something_else_is_refused_and_the_earlier_one_stays(
    tmp_path, monkeypatch
):
    path = tmp_path / "m.onnx"
    export_onnx(_small(), path)
    earlier = path.read_bytes()
    other = _small()
    other.layers[0].kernel.assign(2 * other.layers[0].kernel)
    export_onnx(other, tmp_path / "other.onnx")
    wrong = onnx.load(tmp_path / "other.onnx")
    os.remove(tmp_path / "other.onnx")
    monkeypatch.setattr(onnx_export, "_converted", lambda *_: wrong)
    with pytest.raises(NotVerified, match="ONNX file does not compute what the model does"):
        export_onnx(_small(), path)
    wrong.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ValueError, match="ONNX Runtime can't run the file"):
        export_onnx(_small(), path)
    assert path.read_bytes() == earlier
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_an_export_replaces_an_onnx_file_and_nothing_else(tmp_path):
    (tmp_path / "thesis.onnx").write_text("years of work")
    (tmp_path / "empty.onnx").write_text("")
    for name in ("thesis.onnx", "empty.onnx", "."):
        with pytest.raises(ValueError, match="replaces earlier ONNX files only"):
            export_onnx(_small(), tmp_path / name)
    assert (tmp_path / "thesis.onnx").read_text() == "years of work"
    model = _small()
    export_onnx(model, tmp_path / "m.onnx")
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    export_onnx(model, tmp_path / "m.onnx")
    x = draw(3, 8)
    [outputs] = _session(tmp_path / "m.onnx").run(None, {"x": x})
    np.testing.assert_allclose(outputs, model(x), rtol=0, atol=1e-6)


def test_a_path_that_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "m.onnx", "/proc/self/m.onnx"):
        with pytest.raises(OSError, match="could not be written, and nothing was changed"):
            export_onnx(_small(), path)


def test_what_cannot_be_exported_is_refused_in_words_and_writes_nothing(tmp_path):
    layers = [keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3), GrowableConv2D(2, 3)]
    with pytest.raises(ValueError, match="can't run the file that was made of the model"):
        export_onnx(make_partial_area(keras.Sequential(layers)), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="ONNX can't express the model"):
        export_onnx(_small(), tmp_path / "m.onnx", opset=999)
    broken = _small()
    broken.layers[0].kernel.assign(np.full((8, 3), np.inf))
    with pytest.raises(ValueError, match="NaN or infinite"):
        export_onnx(broken, tmp_path / "m.onnx")
    with pytest.raises(TypeError, match=r"expected a `keras.Model`"):
        export_onnx("model", tmp_path / "m.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("opset", [13, None])
@pytest.mark.parametrize("activation", ["gelu", "celu", "elu"])
def test_activations_that_tf2onnx_does_not_know_are_exported(activation, opset, tmp_path):
    layers = [GrowableDense(16, activation), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8,), name="x"), *layers])
    assert export_onnx(model, tmp_path / "m.onnx", opset=opset).error < 1e-6


@pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13),
    reason="Keras 3.10 makes integers of what a Discretization is given, in predict, not in a call",
)
def test_values_on_a_boundary_fall_into_the_bucket_above_it(tmp_path):
    boundaries = [-0.5, 0.0, 0.75]
    layers = [keras.layers.Discretization(boundaries), keras.layers.Rescaling(1.0)]
    model = keras.Sequential([keras.Input((3, 2), name="x"), *layers])
    export_onnx(model, tmp_path / "m.onnx")
    x = np.array([-9, -0.5, -0.1, 0, 0.5, 0.75, 0.7, 2, np.inf, -np.inf, 0.74999, -0.0])
    x = x.reshape(2, 3, 2).astype("float32")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    [found] = session.run(None, {"x": x})
    np.testing.assert_array_equal(found, np.searchsorted(boundaries, x, side="right"))
    np.testing.assert_array_equal(found, model(x))


def test_a_double_just_below_a_boundary_is_not_rounded_onto_it(tmp_path):
    def bucket(x):
        return tf.cast(tf.raw_ops.Bucketize(input=x, boundaries=[0.75]), tf.float64)

    x = keras.Input((2,), dtype="float64", name="x")
    model = keras.Model(x, keras.layers.Lambda(bucket, (2,), dtype="float64")(x))
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    [found] = session.run(None, {"x": np.array([[0.75 - 1e-12, 0.75]])})
    np.testing.assert_array_equal(found, [[0, 1]])


def test_a_layer_that_onnx_has_no_operator_for_is_named(tmp_path):
    x = keras.Input((8,), name="x")
    inner = keras.Sequential(
        [keras.Input((8,)), keras.layers.Lambda(keras.ops.erfinv, name="inverse")], name="block"
    )
    hashed = keras.layers.Hashing(5, name="hashed")(x)
    y = GrowableDense(2)(inner(0.1 * x)) + GrowableDense(2)(keras.layers.Rescaling(0.1)(hashed))
    with pytest.raises(ValueError, match="it has no operator for some of TensorFlow's") as refused:
        export_onnx(keras.Model(x, y), tmp_path / "m.onnx")
    assert "Erfinv in layer 'block/inverse' (Lambda)" in str(refused.value)
    assert "StringToHashBucketFast in layer 'hashed' (Hashing)" in str(refused.value)
    assert not list(tmp_path.iterdir())
