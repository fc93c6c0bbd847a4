"""Every storage computes what the model does, on disk as small as it says."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import (
    GrowableConv1D,
    GrowableConv2D,
    GrowableDense,
    SparseDense,
    WeightNormConv2D,
    WeightNormDense,
    export_saved_model,
    storages,
)
from keras_grow.errors import NotVerified
from keras_grow.export.served import gaps, row_table
from keras_grow.export.served.at_load import AtLoad
from keras_grow.export.served.kernels import SparseKernel
from keras_grow.policies.densities import FanIn
from tests.quick import among

ALL = [storages.Dense(), storages.Packed(), storages.Sparse()]
DENSE_ONLY = ALL[:2]


def _dense(shape, density, seed):
    return [keras.Input((shape[0],)), GrowableDense(shape[1], initial_density=density, seed=seed)]


def _uneven():
    """A layer with units of all inputs, of one and of none."""
    layer = GrowableDense(5, initial_density=1.0)
    layer.build((None, 300))
    mask = np.zeros((300, 5), bool)
    mask[:, 0], mask[7, 1], mask[::3, 3] = True, True, True
    layer.prune_connections(np.flatnonzero(~mask))
    return [keras.Input((300,)), layer]


def _sequence():
    return [keras.Input((3, 6)), WeightNormDense(9, "tanh", initial_density=0.4, seed=2)]


def _sparse(units, capacity, steps=()):
    return [keras.Input((*steps, 20)), SparseDense(units, "tanh", capacity=capacity, seed=1)]


def _images():
    return [
        keras.Input((6, 5, 2)),
        GrowableConv2D(4, 3, padding="same", initial_density=0.3, seed=0),
        WeightNormConv2D(3, 2, strides=2, initial_density=0.5, seed=1),
    ]


def _series():
    convolution = GrowableConv1D(4, 3, padding="causal", initial_density=0.3, seed=0)
    return [keras.Input((7, 2)), convolution]


# Layers, and the storages that fit them.
MODELS = {
    "empty": (lambda: _dense((8, 5), 0.0, 0), ALL),
    "few": (lambda: _dense((30, 20), 0.02, 1), ALL),
    "tenth": (lambda: _dense((70, 40), 0.1, 2), ALL),
    "full": (lambda: _dense((12, 7), 1.0, 3), ALL),
    "uneven": (_uneven, ALL),
    "sequence": (_sequence, ALL),
    "sparse": (lambda: _sparse(30, 0.2), ALL),
    "sparse sequence": (lambda: _sparse(4, FanIn(2), (5,)), ALL),
    "images": (_images, DENSE_ONLY),
    "series": (_series, DENSE_ONLY),
}
HALVES = {
    "tenth": "float16",
    "uneven": "bfloat16",
    "sequence": "float16",
    "sparse": "bfloat16",
    "images": "float16",
    "series": "bfloat16",
}
CASES = [
    (name, storage, dtype)
    for name, (_, fitting) in MODELS.items()
    for storage in fitting
    for dtype in (None, HALVES.get(name, ""))
    if dtype != ""
]


def _model(name):
    layers = MODELS[name][0]()
    model = keras.Sequential([*layers, keras.layers.Identity(name="y")])
    random = np.random.default_rng(3)
    for layer in keras_grow.growable_layers(model):
        layer.bias.assign(random.normal(size=layer.bias.shape))
    return model


def _round(model, dtype):
    """Rounds the kernels of `model` in NumPy; a WeightNorm layer becomes a plain one."""
    converted = keras_grow.make_plain(model) if _has_masks(model) else model
    for layer in converted.layers:
        for name in ("kernel", "values"):
            if hasattr(layer, name):
                variable = getattr(layer, name)
                rounded = variable.numpy().astype(tf.as_dtype(dtype).as_numpy_dtype)
                variable.assign(rounded.astype("float32"))
    return converted


def _has_masks(model):
    return not any(isinstance(layer, SparseDense) for layer in model.layers)


def _largest(a, b):
    return np.max(np.abs(np.asarray(a) - b), initial=0) / max(np.max(np.abs(b), initial=0), 1e-30)


def _served(path, inputs):
    loaded = tf.saved_model.load(path)  # TensorFlow drops the weights with it.
    return loaded.serve(inputs)["y"]


# Loads many exports, with TensorFlow alone, and writes their outputs.
SERVE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
for name in ("keras_grow", "keras", "tf_keras", "tensorflow.keras"):
    sys.modules[name] = None
import numpy as np, tensorflow as tf
inputs = np.load("inputs.npz")
outputs = {}
for key in inputs:
    folder, count = key.split("/")
    served = tf.saved_model.load(folder).signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    outputs[key] = served(**{name: tf.constant(inputs[key])})["y"].numpy()
np.savez("outputs.npz", **outputs)
"""


@pytest.mark.slow
def test_every_storage_equals_its_model_where_there_is_only_tensorflow(tmp_path):
    random, inputs, expected = np.random.default_rng(0), {}, {}
    for i, (name, storage, dtype) in enumerate(CASES):
        model = _model(name)
        record = export_saved_model(model, tmp_path / str(i), storage=storage, dtype=dtype)
        assert record.error <= record.tolerance == 1e-5
        stored = type(storage).__name__.lower()
        for words in record.storages.values():
            assert words == f"{stored}, {dtype or 'float32'}"
        model = model if dtype is None else _round(model, dtype)
        for count in (1, 7, 32) if dtype is None else (1, 7):
            x = random.normal(size=(count, *model.input_shape[1:])).astype("float32")
            inputs[f"{i}/{count}"], expected[f"{i}/{count}"] = x, model(x, training=False).numpy()
    np.savez(tmp_path / "inputs.npz", **inputs)
    subprocess.run([sys.executable, "-c", SERVE], cwd=tmp_path, check=True)
    outputs = np.load(tmp_path / "outputs.npz")
    for key, y in expected.items():
        case = CASES[int(key.split("/")[0])]
        assert outputs[key].shape == y.shape, (case, key)
        assert _largest(outputs[key], y) <= 1e-5, (case, key)


def test_half_a_kernel_is_rounded_and_not_left_as_it_is(tmp_path):
    model = _model("tenth")
    export_saved_model(model, tmp_path / "served", dtype="bfloat16")
    x = np.random.default_rng(0).normal(size=(4, 70)).astype("float32")
    outputs = _served(tmp_path / "served", x)
    assert 1e-4 < _largest(outputs, model(x)) < 1e-2


# One with casts and one without; the third differs from the first in the type alone.
@pytest.mark.parametrize(
    "policy",
    among(["mixed_float16", "mixed_bfloat16", "float64"], quick=("mixed_float16", "float64")),
)
def test_layers_compute_in_their_own_precision(policy, tmp_path):
    layers = [
        keras.Input((20,), dtype="float64" if policy == "float64" else "float32"),
        GrowableDense(16, "relu", initial_density=0.3, seed=0, dtype=policy, name="a"),
        SparseDense(12, capacity=0.3, seed=0, dtype=policy, name="b"),
        WeightNormDense(3, initial_density=0.5, seed=0, dtype=policy, name="y"),
    ]
    model = keras.Sequential(layers)
    named = {"a": storages.Sparse(), "b": storages.Sparse(), "y": storages.Packed()}
    record = export_saved_model(model, tmp_path / "served", storage=named)
    stored = "float64" if policy == "float64" else "float32"
    assert record.storages == {
        "a": f"sparse, {stored}",
        "b": f"sparse, {stored}",
        "y": f"packed, {stored}",
    }
    x = np.random.default_rng(0).normal(size=(5, 20))
    y = _served(tmp_path / "served", tf.cast(x, model.inputs[0].dtype))
    assert y.dtype == layers[-1].compute_dtype
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 5e-2, "float64": 1e-14}[policy]
    expected = np.asarray(model(x.astype(model.inputs[0].dtype)), "float64")
    assert _largest(np.asarray(y, "float64"), expected) <= tolerance


def test_a_model_can_be_loaded_twice_and_each_keeps_its_weights(tmp_path):
    model = _model("uneven")
    export_saved_model(model, tmp_path / "a", storage=storages.Sparse())
    export_saved_model(model, tmp_path / "b", storage=storages.Packed())
    x = np.random.default_rng(0).normal(size=(1, 300)).astype("float32")
    for folder in ("a", "b"):
        first, second = (tf.saved_model.load(tmp_path / folder) for _ in range(2))
        del first
        for inputs in (x, np.repeat(x, 3, axis=0)):
            assert _largest(second.serve(inputs)["y"], model(inputs)) <= 1e-5


def test_a_loaded_model_can_be_saved_again(tmp_path):
    model = _model("tenth")
    export_saved_model(model, tmp_path / "once", storage=storages.Sparse(), dtype="float16")
    once = tf.saved_model.load(tmp_path / "once")
    tf.saved_model.save(once, tmp_path / "twice")
    twice = tf.saved_model.load(tmp_path / "twice")
    x = np.random.default_rng(0).normal(size=(3, 70)).astype("float32")
    for inputs in (x, x[:1]):
        np.testing.assert_array_equal(twice.serve(inputs)["y"], once.serve(inputs)["y"])


def test_a_sparse_layer_serves_a_batch_of_none(tmp_path):
    model = _model("tenth")
    export_saved_model(model, tmp_path / "served", storage=storages.Sparse())
    assert _served(tmp_path / "served", np.zeros((0, 70), "float32")).shape == (0, 40)


def test_shared_layers_and_loops_are_served_sparsely(tmp_path):
    class Cell(keras.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = self.output_size = 6
            self.hidden = GrowableDense(6, initial_density=0.5, seed=0, name="hidden")

        def build(self, shape):
            self.hidden.build((None, shape[-1] + 6))

        def call(self, inputs, states):
            state = keras.ops.tanh(self.hidden(keras.ops.concatenate([inputs, states[0]], -1)))
            return state, [state]

    inputs = keras.Input((4, 6))
    shared = GrowableDense(6, initial_density=0.5, seed=1, name="shared")
    outputs = keras.layers.RNN(Cell(), name="y")(shared(shared(inputs)))
    model = keras.Model(inputs, outputs)
    export_saved_model(model, tmp_path / "served", storage=storages.Sparse())
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
    served = tf.saved_model.load(tmp_path / "served")
    for batch in (x, x[:1]):
        assert _largest(served.serve(batch)["y"], model(batch)) <= 1e-5


def _layer(shape, density, sparse=False):
    kind = SparseDense if sparse else GrowableDense
    layer = kind(shape[1], initial_density=density, seed=0)
    layer.build((None, shape[0]))
    return layer


@pytest.fixture(scope="module")
def layer_of():
    """`_layer`, each made once: a rule looks at it and changes nothing."""
    return functools.cache(_layer)


@pytest.mark.parametrize(
    ("shape", "density", "batch_size", "chosen"),
    [
        ((4096, 4096), 0.01, 1, "sparse"),
        ((4096, 4096), 0.01, 32, "sparse"),
        ((4096, 4096), 0.01, 256, "sparse"),
        ((4096, 4096), 0.05, 256, "sparse"),
        ((4096, 4096), 0.1, 1, "sparse"),
        ((4096, 4096), 0.1, 32, "packed"),
        ((4096, 4096), 0.1, 256, "packed"),
        ((4096, 4096), 0.9, 1, "dense"),
        ((1024, 1024), 0.1, 1, "packed"),
        ((784, 300), 0.01, 1, "packed"),
        ((784, 300), 0.01, 32, "packed"),
        ((784, 300), 0.85, 1, "dense"),
        ((784, 300), 0.75, 1, "packed"),
    ],
)
def test_the_rule_chooses_by_size_density_and_batch(layer_of, shape, density, batch_size, chosen):
    assert storages.Rule(batch_size)(layer_of(shape, density)).kind == chosen


def test_a_sparse_layer_too_large_for_a_dense_kernel_stays_sparse():
    layer = _layer((65_536, 65_536), FanIn(1), sparse=True)
    for storage in (storages.Rule(), storages.Rule(2)):
        assert storage(layer).kind == "sparse"
    for storage in DENSE_ONLY:
        with pytest.raises(ValueError, match=r"2\^31 connections at most"):
            storage(layer)


def test_a_mapping_names_layers_and_the_rule_takes_the_rest(tmp_path):
    layers = [
        keras.Input((4, 4, 1)),
        GrowableConv2D(3, 3, initial_density=0.2, seed=0, name="maps"),
        keras.layers.Flatten(),
        GrowableDense(9, initial_density=0.2, seed=0, name="hidden"),
        GrowableDense(2, name="y"),
    ]
    model = keras.Sequential(layers)
    record = export_saved_model(
        model, tmp_path / "served", storage={"hidden": storages.Sparse()}, dtype="float16"
    )
    assert record.storages == {
        "maps": "packed, float16",
        "hidden": "sparse, float16",
        "y": "dense, float16",
    }
    described = json.loads((tmp_path / "served/assets.extra/keras_grow.json").read_text())
    assert described["format_version"] == 1
    assert described["keras_grow_version"] == keras_grow.__version__
    assert described["error"] == record.error
    assert described["tolerance"] == record.tolerance == 1e-5
    hidden = described["layers"][1]
    # 22 of 108 connections: 2 bytes for the value, 1 for the place.
    assert hidden == {
        "name": "hidden",
        "storage": "sparse",
        "dtype": "float16",
        "shape": [12, 9],
        "active_connections": 22,
        "stored_bytes": 66,
    }
    assert record.num_bytes == sum(
        path.stat().st_size for path in (tmp_path / "served").rglob("*") if path.is_file()
    )
    assert "hidden: sparse, float16" in str(record)


def test_storages_that_do_not_fit_are_refused_in_words(tmp_path):
    path = tmp_path / "served"
    with pytest.raises(ValueError, match="no sparse convolution"):
        export_saved_model(_model("images"), path, storage=storages.Sparse())
    with pytest.raises(ValueError, match=r"Received: \['nobody'\]"):
        export_saved_model(_model("tenth"), path, storage={"nobody": storages.Dense()})
    for wrong in ("dense", {"growable_dense": "sparse"}, storages.Dense):
        with pytest.raises(TypeError, match="must be an object such as"):
            export_saved_model(_model("tenth"), path, storage=wrong)
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        export_saved_model(_model("tenth"), path, dtype="int8")
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
            export_saved_model(_model("tenth"), path, batch_size=wrong)
        with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
            storages.Rule(wrong)
    assert os.listdir(tmp_path) == []


class _Wrong(storages.Storage):
    """Stores one weight as another than it is, by `factor`."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, layer, dtype=None):
        kernel = storages.Packed()(layer, dtype)
        kernel.values.assign(
            tf.tensor_scatter_nd_update(kernel.values, [[0]], kernel.values[:1] * self.factor)
        )
        return kernel


def test_an_export_that_computes_something_else_is_not_written(tmp_path):
    model, path = _model("tenth"), tmp_path / "served"
    export_saved_model(model, path)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(NotVerified, match="was not written"):
        export_saved_model(model, path, storage=_Wrong(1.01))
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert os.listdir(tmp_path) == ["served"]
    # What is accepted, and on what, is the user's to say.
    record = export_saved_model(model, path, storage=_Wrong(1.01), tolerance=0.1)
    assert 1e-5 < record.error < 0.1
    unseen = np.ones((3, 70), "float32")
    unseen[:, keras_grow.growable_layers(model)[0].active_connections()[0][0] // 40] = 0
    assert export_saved_model(model, path, storage=_Wrong(2.0), data=unseen).error <= 1e-5


def test_data_are_taken_as_the_model_takes_them(tmp_path):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    outputs = keras.layers.Concatenate()([a, b])
    model = keras.Model([a, b], GrowableDense(2, initial_density=0.5, seed=0)(outputs))
    data = [np.ones((300, 4)), np.ones((300, 3))]
    assert export_saved_model(model, tmp_path / "served", data=data).agreement == 1.0
    with pytest.raises(ValueError, match="1 arrays, expected 2"):
        export_saved_model(model, tmp_path / "served", data=data[0])


@pytest.mark.parametrize(
    "error", [tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError]
)
def test_what_the_disk_refuses_leaves_nothing_beside(error, tmp_path, monkeypatch):
    def full(served, path, **_):
        os.makedirs(path)
        pathlib.Path(path, "saved_model.pb").write_bytes(b"half")
        raise error(None, None, "no space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="no space left on device"):
        export_saved_model(_model("few"), tmp_path / "served")
    assert os.listdir(tmp_path) == []


def test_a_path_below_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not be written, and nothing was changed"):
        export_saved_model(_model("few"), tmp_path / "file" / "served")
    assert (tmp_path / "file").read_text() == ""


def test_a_small_network_takes_a_small_folder(tmp_path):
    layers = [GrowableDense(300, "relu"), GrowableDense(100, "relu"), GrowableDense(10)]
    model = keras.Sequential([keras.Input((784,)), *layers])
    keras_grow.prune(model, count=266_200 - 3_800)
    record = export_saved_model(model, tmp_path / "served")
    weights = sum(p.stat().st_size for p in (tmp_path / "served/variables").glob("*.data*"))
    # 3,800 values of 4 bytes, some 5,000 gaps of 1 byte and 410 biases; dense 1,066,440.
    assert weights < 23_000
    # The graph, some 57,000 bytes, holds the code of three packed kernels: each layer has one.
    assert record.num_bytes < 82_000
    half = export_saved_model(model, tmp_path / "half", dtype="float16")
    assert record.num_bytes - half.num_bytes > 1.9 * 3_800


@pytest.mark.parametrize("num_places", [1, 40, 255, 256, 1_000, 10**5, 10**12])
def test_gaps_give_back_their_indices(num_places):
    random = np.random.default_rng(0)
    edges = [i for i in (0, 254, 255, 256, 510, 65_534, 65_535, 2**32) if i < num_places]
    drawn = random.integers(num_places, size=min(num_places, 500))
    for indices in ([], [num_places - 1], edges, np.unique(drawn), range(min(num_places, 600))):
        indices = np.array(indices, np.int64)
        stream = gaps.encode(indices)
        np.testing.assert_array_equal(gaps.decode(tf.constant(stream)), indices)
        assert stream.nbytes <= 4 * len(indices) + 4 * (num_places >> 32)


@pytest.mark.parametrize("fan_in", [[0, 0], [1], [3, 0, 9], [700, 1, 0, 64], [9_000, *[2] * 300]])
def test_the_tables_of_a_row_sum_every_connection_once(fan_in):
    random, num_inputs = np.random.default_rng(0), 10_000
    plan = row_table.TablePlan.of(np.array(fan_in))
    units = np.repeat(np.arange(len(fan_in)), fan_in)
    parts = [np.sort(random.permutation(num_inputs)[:count]) for count in fan_in]
    inputs, values = np.concatenate(parts), random.normal(size=len(units))
    tables = row_table.tables(plan, *map(tf.constant, (inputs, units, values)), num_inputs)
    assert [tuple(t.shape) for t in tables] == row_table.table_shapes(plan)
    row = random.normal(size=num_inputs)
    product = row_table.row_product(plan, tf.constant(row), *tables)
    expected = np.bincount(units, row[inputs] * values, minlength=len(fan_in))
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-11)
    # Padding stays in proportion to the connections.
    padded = sum(length * width for length, width in plan.levels)
    assert padded <= 2.5 * sum(fan_in) + 8 * len(fan_in) * 64 + 10_000


def test_what_is_computed_at_load_is_no_part_of_what_is_stored():
    kernel = SparseKernel(_layer((300, 200), 0.05), None)
    assert kernel.at_load
    assert all(isinstance(tensor, AtLoad) for tensor in kernel.at_load)
    # 3,000 connections of 4 + 1 bytes, and a gap beyond 255.
    assert kernel.num_bytes == 15_001
    for tensor in kernel.at_load:
        tensor.fill()
    assert kernel.num_bytes == 15_001
