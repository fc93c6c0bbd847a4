"""What layers store is compared with its checksum before it is taken."""

import io

import h5py
import keras
import numpy as np
import pytest

import keras_grow
from keras_grow.layers.checked_saving import check_shapes, checksum

_LAYERS = {
    "dense": lambda: keras_grow.GrowableDense(4, initial_density=0.5, seed=0),
    "weight-normalized": lambda: keras_grow.WeightNormDense(4, initial_density=0.5, seed=0),
    "sparse": lambda: keras_grow.SparseDense(4, initial_density=0.5, seed=0),
    "sparse without a bias": lambda: keras_grow.SparseDense(4, capacity=9, use_bias=False, seed=0),
    "shared": lambda: keras_grow.SparseDense(4, initial_density=0.5, group_size=2, seed=0),
    "mean-only": keras_grow.MeanOnlyBatchNormalization,
}


@pytest.fixture(params=list(_LAYERS))
def saved(request, tmp_path):
    """A model of one layer, its weights file, and a function that makes it anew."""

    def make():
        return keras.Sequential([keras.Input((6,)), _LAYERS[request.param]()])

    model, path = make(), tmp_path / "model.weights.h5"
    if getattr(model.layers[0], "bias", None) is not None:
        model.layers[0].bias.assign([0.5, -1, 2, 3])
    model.save_weights(path)
    return model, path, make


def _arrays(file):
    names = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return [name for name in names if file[name].size]


def test_a_file_as_it_was_saved_loads(saved):
    model, path, make = saved
    other = make()
    other.load_weights(path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_number_that_changed_is_found_whichever_it_is(saved):
    _, path, make = saved
    data = path.read_bytes()
    with h5py.File(io.BytesIO(data), "r") as file:
        names = _arrays(file)
    assert any("checksum" in name for name in names)
    for name in names:
        changed = io.BytesIO(data)
        with h5py.File(changed, "r+") as file:
            array = np.array(file[name][()])
            flat = array.reshape(-1).copy()
            flat[-1] = not flat[-1] if flat.dtype.kind == "b" else flat[-1] + 1
            file[name][...] = flat.reshape(array.shape)
        path.write_bytes(changed.getvalue())
        other = make()
        before = other.get_weights()
        with pytest.raises(ValueError, match=r"Received"):
            other.load_weights(path)
        for a, b in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_sparse_layer_takes_exactly_the_arrays_that_it_saves(use_bias):
    layer = keras_grow.SparseDense(4, capacity=9, use_bias=use_bias)
    layer.build((None, 6))
    store = {}
    layer.save_own_variables(store)
    assert ("bias" in store) == use_bias
    layer.load_own_variables(store)
    less = {name: store[name] for name in list(store)[1:]}
    for other in ({**store, "more": np.zeros(2)}, less, {**less, "more": np.zeros(2)}):
        with pytest.raises(ValueError, match="expected saved arrays"):
            layer.load_own_variables(other)


def test_what_claims_to_be_huge_is_refused_before_it_is_read(saved):
    _, path, make = saved
    data = path.read_bytes()
    with h5py.File(io.BytesIO(data), "r") as file:
        names = [name for name in _arrays(file) if file[name].shape]
    for name in names:
        changed = io.BytesIO(data)
        with h5py.File(changed, "r+") as file:
            dtype = file[name].dtype
            del file[name]
            # A terabyte and more, of which nothing is there.
            file.create_dataset(name, (2**40,), dtype, chunks=(2**16,))
        path.write_bytes(changed.getvalue())
        with pytest.raises(ValueError, match="said to have shape"):
            make().load_weights(path)


def test_files_of_masked_layers_without_a_checksum_load_as_they_did(tmp_path):
    model = keras.Sequential([keras.Input((6,)), _LAYERS["dense"]()])
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        for name in _arrays(file):
            if name.endswith("checksum"):
                del file[name]
    other = keras.Sequential([keras.Input((6,)), keras_grow.GrowableDense(4, seed=1)])
    other.load_weights(path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["float64", "float16", "bfloat16"])
def test_every_precision_is_saved_and_loaded(policy, tmp_path):
    dtype = keras.DTypePolicy(policy)

    def make(seed):
        layer = keras_grow.GrowableDense(4, initial_density=0.5, seed=seed, dtype=dtype)
        return keras.Sequential([keras.Input((6,)), layer])

    model, other = make(0), make(1)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("place", "value"), [(-1, 24), (-1, 10**9), (0, -1), (3, 0), (1, 0), (-1, 0)]
)
def test_connections_out_of_range_or_order_are_said(place, value):
    layer = keras_grow.SparseDense(4, capacity=9, seed=0)
    layer.build((None, 6))
    store = {}
    layer.save_own_variables(store)
    store["connections"] = store["connections"].copy()
    store["connections"][place] = value
    with pytest.raises(ValueError, match=r"of shape \(9,\), out of range or order"):
        layer.load_own_variables(store)


def test_arrays_of_any_other_shape_are_refused():
    expected = {"0": (3, 2), "1": (4,)}
    check_shapes("dense", {"0": np.zeros((3, 2)), "1": np.zeros(4)}, expected)
    check_shapes("dense", {"0": np.zeros((3, 2))}, expected)  # Keras says what is missing.
    for shape in ((2, 2), (3, 1), (3, 3), (9, 9), (6,), ()):
        with pytest.raises(ValueError, match=r"'dense' expects array '0' of shape \(3, 2\)"):
            check_shapes("dense", {"0": np.zeros(shape), "1": np.zeros(4)}, expected)


def test_a_checksum_tells_numbers_shapes_and_kinds_apart():
    array = np.arange(6, dtype=np.float32)
    others = [array + 1, array.reshape(2, 3), array.astype(np.int32), array[:5]]
    assert len({checksum([each]) for each in (array, *others)}) == 5
    assert checksum([array[::-1][::-1]]) == checksum([array])
    assert checksum([array.astype(">f4")]) == checksum([array])
