import os
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_grow import GrowableConv2D, GrowableDense
from keras_grow.areas import make_partial_area
from keras_grow.export import litert
from keras_grow.export.litert import export_litert
from keras_grow.export.litert_format import sparsity
from keras_grow.export.verification import NotVerified
from tests.export.models import BUILDERS, Subclassed, build, draw, stirred

# Runs a file where neither TensorFlow, Keras nor keras_grow can be imported.
SERVE = """
import sys
for name in ("keras_grow", "keras", "tf_keras", "tensorflow"):
    sys.modules[name] = None
import numpy as np
from ai_edge_litert.interpreter import Interpreter
inputs = np.load(sys.argv[2])
runner = Interpreter(sys.argv[1]).get_signature_runner()
np.savez(sys.argv[3], **runner(**{name: inputs[name] for name in inputs}))
assert not any(name.split(".")[0] in ("tensorflow", "keras", "keras_grow") and module is not None
               for name, module in sys.modules.items())
"""
_DTYPES = {0: np.float32, 1: np.float16, 9: np.int8}


def _run(path, **inputs):
    return Interpreter(str(path)).get_signature_runner()(**inputs)


def _mlp(sizes, densities, seed=0):
    layers = [keras.Input((sizes[0],), name="x")]
    for i, (units, density) in enumerate(zip(sizes[1:], densities, strict=True)):
        activation = "relu" if i < len(densities) - 1 else "softmax"
        layers.append(
            GrowableDense(
                units, activation, initial_density=density, seed=seed + i, name=f"layer_{i}"
            )
        )
    return stirred(keras.Sequential(layers), seed)


def _lenet():
    """LeNet-300-100 with 3,800 connections."""
    return _mlp([784, 300, 100, 10], [2800 / 235_200, 800 / 30_000, 0.2])


def _set_kernels(model, change):
    for layer in model.layers:
        layer.kernel.assign(change(layer.kernel.numpy()))


def _file(path):
    content = path.read_bytes()
    return schema.Model.GetRootAs(content, 0), content


def _decoded(path):
    """Every constant of two axes or more, made dense entry by entry, and whether it is sparse."""
    model, _ = _file(path)
    graph = model.Subgraphs(0)
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.ShapeLength() < 2 or not buffer.DataLength():
            continue
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _DTYPES[tensor.Type()])
        sparsity = tensor.Sparsity()
        if sparsity is None:
            yield values.reshape(tensor.ShapeAsNumpy()), False
            continue
        rank = tensor.ShapeLength()
        order = sparsity.TraversalOrderAsNumpy()
        assert [sparsity.DimMetadata(d).Format() for d in range(rank)] == [0] * (rank - 1) + [1]
        assert sparsity.BlockMapLength() == 0
        sizes = [tensor.Shape(axis) for axis in order]
        assert [sparsity.DimMetadata(d).DenseSize() for d in range(rank - 1)] == sizes[:-1]
        last = sparsity.DimMetadata(rank - 1)
        segments = _vector(last.ArraySegmentsType(), last.ArraySegments())
        places = _vector(last.ArrayIndicesType(), last.ArrayIndices())
        assert len(places) == len(values) == segments[-1]
        dense = np.zeros((int(np.prod(sizes[:-1])), sizes[-1]), values.dtype)
        for row in range(len(dense)):
            for k in range(segments[row], segments[row + 1]):
                dense[row, places[k]] = values[k]
        yield dense.reshape(sizes).transpose(np.argsort(order)), True


def _vector(kind, table):
    classes = {1: schema.Int32Vector, 2: schema.Uint16Vector, 3: schema.Uint8Vector}
    vector = classes[kind]()
    vector.Init(table.Bytes, table.Pos)
    values = vector.ValuesAsNumpy()
    smaller = {2: 255, 1: 65_535}.get(kind, -1)
    assert values.max() > smaller, "A smaller type would hold these indices."
    return values.astype(int)


def _operators(path):
    """The code and the version of each operator, in order."""
    model, _ = _file(path)
    graph = model.Subgraphs(0)
    codes = [
        model.OperatorCodes(graph.Operators(i).OpcodeIndex())
        for i in range(graph.OperatorsLength())
    ]
    return [(code.BuiltinCode(), code.Version()) for code in codes]


_FULLY_CONNECTED = schema.BuiltinOperator.FULLY_CONNECTED
_DENSIFY = schema.BuiltinOperator.DENSIFY


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_file_computes_the_same_at_every_batch_size(builder, tmp_path):
    model, x, named, names = build(builder)
    record = export_litert(model, tmp_path / "m.tflite")
    assert record.error <= 1e-5
    assert record.num_bytes == os.path.getsize(tmp_path / "m.tflite")
    expected = dict(zip(names, keras.tree.flatten(model(x, training=False)), strict=True))
    runner = Interpreter(str(tmp_path / "m.tflite")).get_signature_runner()
    for size in (32, 1, 7):
        outputs = runner(**{name: array[:size] for name, array in named.items()})
        assert sorted(outputs) == sorted(names)
        for name in names:
            b = expected[name].numpy()
            np.testing.assert_allclose(outputs[name], b[:size], rtol=0, atol=1e-5 * abs(b).max())


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_are_stored_and_computed_exactly(seed, tmp_path):
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 400, size=4).tolist()
    densities = random.choice([0.0, 0.004, 0.03, 0.05, 0.2, 0.6, 1.0], size=3).tolist()
    model = _mlp(sizes, densities, seed)
    path = tmp_path / "m.tflite"
    record = export_litert(model, path)
    assert record.error <= 1e-5
    # TensorFlow's own interpreter, which export leaves alone where ai-edge-litert is installed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = tf.lite.Interpreter(str(path)).get_signature_runner()
    x = draw(5, sizes[0], seed=seed)
    expected = model(x).numpy()
    np.testing.assert_allclose(runner(x=x)["layer_2"], expected, atol=1e-5 * expected.max())
    stored = [array for array, _ in _decoded(path)]
    for layer in model.layers:
        kernel = layer.effective_kernel().numpy().T
        assert any(array.shape == kernel.shape and np.all(array == kernel) for array in stored)


def test_the_batch_can_be_resized_by_hand(tmp_path):
    model = _mlp([60, 40, 5], [0.03, 0.3])
    export_litert(model, tmp_path / "m.tflite")
    interpreter = Interpreter(str(tmp_path / "m.tflite"))
    [given], [taken] = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["name"] == "x"
    assert taken["name"] == "layer_1"
    for size in (1, 7, 32):
        x = draw(size, 60, seed=size)
        interpreter.resize_tensor_input(given["index"], [size, 60])
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        outputs = interpreter.get_tensor(taken["index"])
        np.testing.assert_allclose(outputs, model(x), rtol=0, atol=1e-6)


def test_convolutions_are_stored_along_the_axis_of_fewest_bytes(tmp_path):
    # One input map: rows of input maps would be 9 x 64 segments for 58 connections.
    layer = GrowableConv2D(64, 3, initial_density=0.1, seed=0, name="maps")
    model = stirred(keras.Sequential([keras.Input((8, 8, 1)), layer]))
    record = export_litert(model, tmp_path / "m.tflite")
    assert record.storages == {"maps": "58 of 576 connections in float32, made dense when loaded"}
    [(stored, is_sparse)] = _decoded(tmp_path / "m.tflite")
    assert is_sparse
    np.testing.assert_array_equal(stored, np.moveaxis(layer.effective_kernel(), -1, 0))
    assert record.num_bytes < 1_800


@pytest.mark.parametrize(
    ("density", "code", "words"),
    [
        (0.05, (_FULLY_CONNECTED, 8), "500 of 10,000 connections in float32, computed sparsely"),
        (0.0501, (_DENSIFY, 1), "501 of 10,000 connections in float32, made dense when loaded"),
        (0.9, (_FULLY_CONNECTED, 1), "dense float32"),
    ],
)
def test_the_density_decides_how_a_dense_layer_is_stored(density, code, words, tmp_path):
    model = stirred(
        keras.Sequential([keras.Input((100,)), GrowableDense(100, initial_density=density, seed=0)])
    )
    [layer] = model.layers
    record = export_litert(model, tmp_path / "m.tflite")
    assert record.storages == {layer.name: words}
    assert _operators(tmp_path / "m.tflite")[0] == code


def test_constants_that_nothing_is_multiplied_by_stay_as_they_are(tmp_path):
    table = keras.layers.Embedding(50, 64)
    means = keras.layers.GlobalAveragePooling1D()
    dense = GrowableDense(32, initial_density=0.04, seed=0)
    model = keras.Sequential([keras.Input((7,), dtype="int32"), table, means, dense])
    table.embeddings.assign(np.where(draw(50, 64) > 2, 1.0, 0.0))
    export_litert(model, tmp_path / "m.tflite")
    stored = {array.shape: is_sparse for array, is_sparse in _decoded(tmp_path / "m.tflite")}
    assert stored == {(50, 64): False, (32, 64): True}


def test_kernels_that_batch_normalization_is_folded_into_are_named_for_their_layers(tmp_path):
    model, *_ = build(BUILDERS[1])
    storages = export_litert(model, tmp_path / "m.tflite").storages
    assert [words.split(" of ")[0] for words in storages.values()] == ["43", "461", "230", "24"]


def test_a_network_of_3800_connections_takes_27_kilobytes_and_19_in_float16(tmp_path):
    model = _lenet()
    dense = export_litert(_mlp([784, 300, 100, 10], [1.0, 1.0, 1.0]), tmp_path / "d.tflite")
    assert dense.num_bytes > 1_000_000
    record = export_litert(model, tmp_path / "m.tflite")
    # 3,800 x (4 + 2) bytes, 411 segments of 2, and 410 biases of 4, leave 2 kB for the graph.
    assert record.num_bytes < 27_500
    file, _ = _file(tmp_path / "m.tflite")
    assert file.MetadataLength() == 0
    graph = file.Subgraphs(0)
    names = {graph.Tensors(i).Name() for i in range(graph.TensorsLength())}
    assert names == {None, b"x", b"layer_2"}
    assert export_litert(model, tmp_path / "h.tflite", dtype="float16").num_bytes < 20_000


@pytest.mark.slow
def test_one_sample_runs_at_least_twice_as_fast_as_through_the_dense_network(tmp_path):
    export_litert(_lenet(), tmp_path / "m.tflite")
    export_litert(_mlp([784, 300, 100, 10], [1.0, 1.0, 1.0]), tmp_path / "d.tflite")
    interpreters = []
    for name in ("m", "d"):
        interpreter = Interpreter(str(tmp_path / f"{name}.tflite"), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], draw(1, 784))
        interpreters.append(interpreter)
    seconds = [[], []]
    for _ in range(60):
        for interpreter, times in zip(interpreters, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(100):
                interpreter.invoke()
            times.append(time.perf_counter() - start)
    assert min(seconds[0]) < min(seconds[1]) / 2


def test_buffers_are_aligned_as_the_interpreter_wants(tmp_path):
    export_litert(_lenet(), tmp_path / "m.tflite")
    model, content = _file(tmp_path / "m.tflite")
    start = np.frombuffer(content, np.uint8).ctypes.data
    lengths = [model.Buffers(i).DataLength() for i in range(model.BuffersLength())]
    assert sum(length > 0 for length in lengths) == 6
    for i, length in enumerate(lengths):
        if length:
            assert (model.Buffers(i).DataAsNumpy().ctypes.data - start) % 16 == 0


def test_float16_computes_what_the_model_with_rounded_kernels_does(tmp_path):
    model = _mlp([100, 90, 80, 5], [0.04, 0.3, 1.0])
    record = export_litert(model, tmp_path / "m.tflite", dtype="float16")
    assert all("float16" in words for words in record.storages.values())
    assert 1e-6 < record.error < 5e-3
    x = draw(9, 100)
    outputs, before = _run(tmp_path / "m.tflite", x=x)["layer_2"], model(x).numpy()
    _set_kernels(model, lambda kernel: kernel.astype(np.float16))
    rounded = model(x).numpy()
    assert abs(outputs - rounded).max() <= 1e-5 * rounded.max()
    assert abs(outputs - before).max() > 1e-5 * rounded.max()


def test_int8_computes_what_the_model_with_kernels_of_255_steps_does(tmp_path):
    model = _mlp([100, 90, 80, 5], [0.2, 0.3, 1.0])
    record = export_litert(model, tmp_path / "m.tflite", dtype="int8")
    assert all("int8" in words for words in record.storages.values())
    assert record.tolerance is None
    x = draw(9, 100)
    outputs, before = _run(tmp_path / "m.tflite", x=x)["layer_2"], model(x).numpy()

    def step(kernel):
        return abs(kernel).max(axis=0) / 127

    _set_kernels(model, lambda kernel: np.round(kernel / step(kernel)) * step(kernel))
    rounded = model(x).numpy()
    assert abs(outputs - rounded).max() <= 1e-5 * rounded.max()
    assert abs(outputs - before).max() > 1e-5 * rounded.max()


def test_int8_takes_float16_where_scales_would_cost_more_than_they_save(tmp_path):
    model = _mlp([300, 200, 90], [0.02, 0.3])  # 6 connections of a unit, and 60.
    storages = export_litert(model, tmp_path / "m.tflite", dtype="int8").storages
    assert "in float16" in storages["layer_0"]
    assert "in int8" in storages["layer_1"]


def _plain_layers():
    inputs = keras.Input((8, 8, 16), name="x")
    h = keras.layers.DepthwiseConv2D(5, padding="same")(inputs)
    h = keras.layers.Reshape((64, 16))(keras.layers.SeparableConv2D(16, 5, padding="same")(h))
    h = keras.layers.MultiHeadAttention(2, 8)(h, h)
    outputs = GrowableDense(4, initial_density=0.5, seed=0, name="y")(h)
    x = draw(40, 8, 8, 16)
    return keras.Model(inputs, outputs), x, {"x": x}, ["y"]


@pytest.mark.parametrize("builder", [*BUILDERS[:4], _plain_layers])
def test_other_dtypes_are_near_the_model(builder, tmp_path):
    model, x, named, names = build(builder)
    expected = [b.numpy() for b in keras.tree.flatten(model(x, training=False))]
    for dtype, limit in (("float16", 5e-3), ("int8", 5e-2)):
        export_litert(model, tmp_path / "m.tflite", dtype=dtype)
        outputs = _run(tmp_path / "m.tflite", **named)
        for name, b in zip(names, expected, strict=True):
            np.testing.assert_allclose(outputs[name], b, rtol=0, atol=limit * abs(b).max())


def test_calibrated_convolutions_stay_sparse_and_compute_in_int8(tmp_path):
    layers = [
        GrowableConv2D(32, 3, activation="relu", initial_density=0.1, seed=0, name="first"),
        GrowableConv2D(32, 3, strides=2, initial_density=0.1, seed=1, name="second"),
        keras.layers.GlobalAveragePooling2D(),
        GrowableDense(4, initial_density=0.5, seed=2, name="classes"),
    ]
    model = stirred(keras.Sequential([keras.Input((8, 8, 8), name="x"), *layers]))
    x = draw(64, 8, 8, 8)
    record = export_litert(model, tmp_path / "m.tflite", dtype="int8", calibration_data=x)
    assert "int8, made dense when loaded" in record.storages["first"]
    assert "int8, made dense when loaded" in record.storages["second"]
    assert record.storages["classes"] == "dense int8"
    assert not any(array.dtype != np.int8 for array, _ in _decoded(tmp_path / "m.tflite"))
    outputs, b = _run(tmp_path / "m.tflite", x=x)["classes"], model(x).numpy()
    assert outputs.dtype == np.float32
    assert abs(outputs - b).max() <= 0.05 * abs(b).max()


@pytest.mark.slow
def test_int8_keeps_the_accuracy_on_digits_within_a_point(tmp_path):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((64,), name="x"),
            GrowableDense(96, "relu", initial_density=0.3, seed=0),
            GrowableDense(10, "softmax", initial_density=0.5, seed=1, name="classes"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=10, verbose=0)
    before = np.mean(model(x[1200:]).numpy().argmax(1) == y[1200:])
    assert before > 0.85
    for calibration_data in (None, x[:200]):
        record = export_litert(
            model,
            tmp_path / "m.tflite",
            dtype="int8",
            calibration_data=calibration_data,
            data=x[1200:],
            min_agreement=0.97,
        )
        assert record.agreement >= 0.97
        after = np.mean(_run(tmp_path / "m.tflite", x=x[1200:])["classes"].argmax(1) == y[1200:])
        assert abs(after - before) <= 0.01


def test_the_file_runs_where_there_is_no_tensorflow(tmp_path):
    model, x, named, names = build(BUILDERS[3])
    export_litert(model, tmp_path / "m.tflite")
    np.savez(tmp_path / "in.npz", **named)
    subprocess.run(
        [sys.executable, "-c", SERVE, "m.tflite", "in.npz", "out.npz"], cwd=tmp_path, check=True
    )
    served = np.load(tmp_path / "out.npz")
    for name, b in zip(names, model(x, training=False), strict=True):
        np.testing.assert_allclose(served[name], b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_dtypes_are_refused_where_nothing_sound_can_check_them(dtype, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    model = _mlp([30, 20], [0.04])
    with pytest.raises(ImportError, match="keras_grow\\[litert\\]"):
        export_litert(model, tmp_path / "small.tflite", dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_tensorflow_s_interpreter_checks_where_ai_edge_litert_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    used = []
    interpreter = tf.lite.Interpreter
    monkeypatch.setattr(
        tf.lite, "Interpreter", lambda **k: used.append(k) or interpreter(**k), raising=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = export_litert(_mlp([30, 20], [0.04]), tmp_path / "m.tflite")
    assert used
    assert record.error <= 1e-5


def test_nothing_is_printed(tmp_path, capfd):
    x = draw(40, 30)
    export_litert(_mlp([30, 20], [0.04]), tmp_path / "m.tflite")
    # Whether predictions agree is the matter of other tests.
    options = {"dtype": "int8", "calibration_data": x, "min_agreement": 0.0}
    export_litert(_mlp([30, 20], [0.04]), tmp_path / "m.tflite", **options)
    assert capfd.readouterr() == ("", "")


def test_the_model_is_left_as_it_was(classifier, snapshot, blobs, tmp_path):
    classifier.fit(*blobs, verbose=0)
    before = snapshot(classifier)
    export_litert(classifier, tmp_path / "m.tflite")
    snapshot.assert_same(classifier, before)
    assert classifier.compiled


def test_a_subclassed_model_is_exported_with_a_signature_and_refused_without(tmp_path):
    model = Subclassed()
    x = draw(9, 8)
    model(x)
    with pytest.raises(ValueError, match="Pass `input_signature="):
        export_litert(model, tmp_path / "m.tflite")
    signature = tf.TensorSpec((None, 8), "float32", name="rows")
    export_litert(model, tmp_path / "m.tflite", input_signature=signature)
    outputs = _run(tmp_path / "m.tflite", rows=x)
    np.testing.assert_allclose(outputs["output_0"], model(x), rtol=0, atol=1e-6)


def test_a_fixed_batch_stays_fixed(tmp_path):
    model = keras.Sequential([keras.Input((8,), batch_size=4, name="x"), GrowableDense(3)])
    export_litert(model, tmp_path / "m.tflite", data=draw(10, 8))
    x = draw(4, 8)
    [outputs] = _run(tmp_path / "m.tflite", x=x).values()
    np.testing.assert_allclose(outputs, model(x), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="at least 4 samples. Received: 3"):
        export_litert(model, tmp_path / "m.tflite", data=draw(3, 8))


def test_a_file_that_computes_something_else_is_refused_and_the_earlier_one_stays(
    tmp_path, monkeypatch
):
    path = tmp_path / "m.tflite"
    export_litert(_mlp([30, 20], [0.04]), path)
    earlier = path.read_bytes()
    compress = sparsity.compress

    def shifted(tensor, axis=-1):
        rows = compress(tensor, axis)
        rows.positions[:] = (rows.positions + 1) % tensor.shape[rows.axis]
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(sparsity, "compress", shifted)
        for dtype in ("float32", "float16", "int8"):
            with pytest.raises(NotVerified, match="does not compute what the model does"):
                export_litert(_mlp([60, 50], [0.3]), path, dtype=dtype)
    with monkeypatch.context() as patch:
        patch.setattr(litert, "_packed", lambda *_: bytes(100))
        with pytest.raises(ValueError, match="interpreter can't run the file"):
            export_litert(_mlp([60, 50], [0.3]), path)
    assert path.read_bytes() == earlier
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_int8_is_refused_below_the_agreement_that_is_asked_for(tmp_path):
    # Classes that differ by less than a step of int8.
    model = _mlp([40, 30, 5], [0.5, 0.5])
    model.layers[-1].bias.assign(1e-4 * draw(5))
    model.layers[-1].kernel.assign(1e-4 * model.layers[-1].kernel)
    x = draw(64, 40)
    with pytest.raises(NotVerified, match="Pass a smaller `min_agreement`"):
        export_litert(model, tmp_path / "m.tflite", dtype="int8", calibration_data=x)
    assert os.listdir(tmp_path) == []
    export_litert(model, tmp_path / "m.tflite", dtype="int8", calibration_data=x, min_agreement=0.0)


def test_an_export_replaces_a_litert_file_and_nothing_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    model = _mlp([30, 20], [0.04])
    with pytest.raises(ValueError, match="replaces earlier LiteRT files only"):
        export_litert(model, tmp_path / "thesis.txt")
    with pytest.raises(ValueError, match="replaces earlier LiteRT files only"):
        export_litert(model, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    export_litert(model, tmp_path / "m.tflite")
    model.layers[0].bias.assign(draw(20))
    export_litert(model, tmp_path / "m.tflite")
    x = draw(3, 30)
    np.testing.assert_allclose(_run(tmp_path / "m.tflite", x=x)["layer_0"], model(x), atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ["m.tflite", "thesis.txt"]


def test_a_path_that_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "m.tflite", "/proc/self/m.tflite"):
        with pytest.raises(OSError, match="could not be written, and nothing was changed"):
            export_litert(_mlp([30, 20], [0.04]), path)


def _recurrent():
    return keras.Sequential([keras.Input((5, 8)), keras.layers.LSTM(4), GrowableDense(2)])


def _partial_area():
    layers = [keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3), GrowableConv2D(2, 3)]
    return make_partial_area(keras.Sequential(layers))


def _mixed():
    return keras.Sequential([keras.Input((8,)), GrowableDense(4, dtype="mixed_float16")])


def _diverged():
    model = _mlp([30, 20], [0.5])
    model.layers[0].kernel.assign(np.full((30, 20), np.nan))
    return model


@pytest.mark.parametrize(
    ("build_model", "arguments", "words"),
    [
        (_recurrent, {}, "LiteRT can't express the model.*TensorListReserve"),
        (_partial_area, {}, "LiteRT can't express the model"),
        (_mixed, {}, "compute in float32. Received: .*'float16'"),
        (_diverged, {}, "NaN or infinite"),
        (_lenet, {"dtype": "float8"}, "must be one of .*'int8'.*Received: dtype='float8'"),
        (_lenet, {"calibration_data": draw(5, 784)}, "Pass dtype='int8'"),
        (_lenet, {"data": [draw(5, 784)] * 2}, "Received: 2 arrays"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_words_and_writes_nothing(
    build_model, arguments, words, tmp_path
):
    with pytest.raises(ValueError, match=words):
        export_litert(build_model(), tmp_path / "m.tflite", **arguments)
    assert os.listdir(tmp_path) == []
