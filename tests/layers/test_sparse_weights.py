"""What is set as the weights of a sparse layer are connections, or it is refused and taken back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import SparseDense, grow, make_growable, make_sparse
from keras_grow.layers.growable import growable_layers
from keras_grow.policies.densities import FanIn

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
Y = np.arange(32) % 3


def _model(seed, optimizer="adam"):
    layers = [
        SparseDense(12, "relu", initial_density=FanIn(3), capacity=FanIn(5), seed=seed),
        SparseDense(3, initial_density=FanIn(3), capacity=FanIn(5), seed=seed + 10),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def _mean(models):
    return [np.mean(arrays, axis=0) for arrays in zip(*(m.get_weights() for m in models))]


def _kernels(model):
    return [layer.effective_kernel().numpy() for layer in growable_layers(model)]


def _assert_untouched(model, before, outputs):
    for a, b in zip(_kernels(model), before, strict=True):
        np.testing.assert_array_equal(a != 0, b != 0)
    assert model(X).shape == outputs.shape


def test_the_mean_of_models_with_other_connections_is_refused_and_taken_back():
    one, other = _model(1), _model(2)
    connections = [layer.active_connections()[0].numpy() for layer in one.layers]
    with pytest.raises(ValueError, match="values of 'inputs' that are no whole numbers, for layer"):
        one.set_weights(_mean([one, other]))
    for layer, expected in zip(one.layers, connections, strict=True):
        np.testing.assert_array_equal(layer.active_connections()[0], expected)
    one.fit(X, Y, verbose=0)


def test_the_mean_of_models_with_the_same_connections_is_the_mean_of_their_kernels():
    models = [_model(1) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    models[1].fit(X, Y, verbose=0, epochs=2)
    averaged = _model(1)
    averaged.set_weights(_mean(models))
    for ours, *kernels in zip(_kernels(averaged), *map(_kernels, models), strict=True):
        np.testing.assert_allclose(ours, np.mean(kernels, axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.3, 0.7), (0.99, 0.01)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_weighted_mean_rounds_is_no_other_connection(shares, dtype):
    model = _model(1)
    weights, before = model.get_weights(), _kernels(model)
    model.set_weights([sum(share * w.astype(dtype) for share in shares) for w in weights])
    for ours, theirs in zip(_kernels(model), before, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.01, 1e-4])
def test_a_small_share_of_other_connections_is_no_rounding(share):
    one, other = _model(1), _model(2)
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    with pytest.raises(ValueError, match="stay as they were set"):
        one.set_weights([(1 - share) * a + share * b for a, b in pairs])


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_the_mean_of_files_with_other_connections_is_refused(tmp_path, dtype):
    h5py = pytest.importorskip("h5py")
    paths = [tmp_path / f"{seed}.weights.h5" for seed in (1, 2)]
    for seed, path in enumerate(paths, 1):
        _model(seed).save_weights(path)
    with h5py.File(paths[0], "a") as file, h5py.File(paths[1]) as other:
        names: list[str] = []
        file.visititems(lambda name, o: names.append(name) if hasattr(o, "dtype") else None)
        for name in [name for name in names if "layers" in name]:
            is_whole = file[name].dtype.kind == "i"
            mean = (file[name][()] + other[name][()]) / 2
            del file[name]
            file[name] = mean.astype(dtype) if is_whole else mean
    model = _model(1)
    with pytest.raises(ValueError, match="do not match their checksum"):
        model.load_weights(paths[0])


def test_models_with_other_connections_are_averaged_as_masked_ones():
    models = [_model(1), _model(2)]
    masked = [make_growable(model) for model in models]
    masked[0].set_weights(_mean(masked))
    averaged = make_sparse(masked[0])
    for ours, *kernels in zip(_kernels(averaged), *map(_kernels, models), strict=True):
        np.testing.assert_allclose(ours, np.mean(kernels, axis=0), rtol=0, atol=1e-6)


def _rounded(arrays):
    return [np.rint(array).astype(np.int64) for array in arrays]


SPOILED = {
    "rounded means": lambda a, b: _rounded([(x + y) / 2 for x, y in zip(a, b)]),
    "connections out of order": lambda a, b: [a[0][::-1].copy(), a[1][::-1].copy(), *a[2:]],
    "an input out of range": lambda a, b: [np.where(a[0] == a[0][0], -1, a[0]), *a[1:]],
    "tables of other connections": lambda a, b: [a[0], a[1], *b[2:]],
    "one index changed": lambda a, b: [a[0], np.concatenate([a[1][:1] + 1, a[1][1:]]), *a[2:]],
}


@pytest.mark.parametrize("how", SPOILED)
def test_integers_that_are_no_connections_are_refused_too(how):
    layer, other = _model(1).layers[0], _model(2).layers[0]
    before = layer.get_weights()
    tables = [n for n, v in enumerate(layer.weights) if v.dtype == "int64"]
    ours, others = ([each.get_weights()[n] for n in tables] for each in (layer, other))
    weights = list(before)
    for place, array in zip(tables, SPOILED[how](ours, others), strict=True):
        weights[place] = array
    with pytest.raises(ValueError, match="can be set as they were read"):
        layer.set_weights(weights)
    for n in tables:
        np.testing.assert_array_equal(layer.get_weights()[n], before[n])


def test_weights_that_were_read_are_set_before_and_after_growth(tmp_path):
    model = _model(1)
    early = model.get_weights()
    outputs = model(X)
    grow(model, (X, Y), count=7)
    late = model.get_weights()
    model.set_weights(early)
    np.testing.assert_array_equal(model(X), outputs)
    assert sum(layer.num_active for layer in model.layers) == 45
    model.set_weights(late)
    assert sum(layer.num_active for layer in model.layers) == 52
    stopping = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
    model.fit(X, Y, verbose=0, epochs=2, callbacks=[stopping])
    model.save_weights(tmp_path / "some.weights.h5")
    model.load_weights(tmp_path / "some.weights.h5")


def test_an_average_kept_by_the_optimizer_leaves_connections_alone():
    optimizer = keras.optimizers.Adam(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    model = _model(1, optimizer)
    connections = [layer.active_connections()[0].numpy() for layer in model.layers]
    model.fit(X, Y, batch_size=8, verbose=0, epochs=2)
    for layer, expected in zip(model.layers, connections, strict=True):
        np.testing.assert_array_equal(layer.active_connections()[0], expected)


def test_a_checkpoint_put_together_from_two_is_noticed(tmp_path):
    model, other = _model(1), _model(2)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "sound"))
    tf.train.Checkpoint(model=model).read(str(tmp_path / "sound"))
    model.layers[0].active_connections()
    for name in ("layout_inputs", "layout_units"):
        ours, others = getattr(model.layers[0], name), getattr(other.layers[0], name)
        ours.value.assign((ours.value + others.value) // 2)
    with pytest.raises(ValueError, match="holds connections out of order, or twice"):
        model.layers[0].active_connections()
