"""Callbacks are copied and pickled as tuners and scikit-learn do, before and after `fit`."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    ConnectionHistory,
    Epochs,
    GrowableDense,
    GrowthCallback,
    GrowthSummaries,
    PruningCallback,
    Steps,
    TiledSearch,
    scores,
)

X = np.random.default_rng(0).normal(size=(48, 8)).astype("float32")
Y = np.arange(48) % 3

DATA = {
    "arrays": lambda: (X, Y),
    "tensors": lambda: (tf.constant(X), tf.constant(Y)),
    "a dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(16),
    "a generator": lambda: ((X, Y) for _ in range(100)),
}


def _callbacks(data, folder):
    density = keras.optimizers.schedules.PolynomialDecay(0.3, 4, end_learning_rate=0.6)
    return [
        GrowthCallback(data, density=density, score=scores.GradientMagnitude()),
        GrowthCallback(data, count=3, when=Steps(2), search=TiledSearch()),
        PruningCallback(density=0.9, when=Epochs(2), data=data),
        PruningCallback(count=lambda epoch: 1.0),
        GrowthSummaries(folder, data),
        ConnectionHistory(),
    ]


def _model():
    layers = [GrowableDense(12, "relu", initial_density=0.25, seed=1), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


def _fit(model, callbacks, epochs=3):
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize("data", DATA)
def test_a_deep_copy_shares_the_data_and_carries_no_model(data, tmp_path):
    original = _callbacks(DATA[data](), tmp_path)
    before = copy.deepcopy(original)
    if data == "a generator":  # It would be empty the second time that it is read.
        assert before[0].data is original[0].data
        return
    model = _model()
    _fit(model, original)
    assert all(callback.model is model for callback in original)
    after = copy.deepcopy(original)
    for copies in (before, after):
        for ours, theirs in zip(copies, original, strict=True):
            assert type(ours) is type(theirs)
            assert ours is not theirs
            assert ours.model is None
            assert getattr(ours, "data", 0) is getattr(theirs, "data", 0)
            if hasattr(ours, "meter"):
                assert ours.meter is not theirs.meter
                assert ours.meter._compiled == []
    assert after[-1].densities == original[-1].densities
    assert after[-1].densities is not original[-1].densities
    # A copy works, and leaves what it was copied from alone.
    trained = _model()
    _fit(trained, after)
    assert original[0].model is model
    assert all(callback.model is trained for callback in after)


def test_a_copy_does_what_the_original_would_have_done(tmp_path):
    original = _callbacks((X, Y), tmp_path)[:1]
    copied = copy.deepcopy(original)
    weights = []
    for callbacks in (original, copied):
        keras.utils.set_random_seed(0)
        model = _model()
        _fit(model, callbacks)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pickling_carries_arrays_and_no_model(tmp_path):
    callbacks = [each for n, each in enumerate(_callbacks((X, Y), tmp_path)) if n != 3]
    _fit(_model(), callbacks)
    loaded = pickle.loads(pickle.dumps(callbacks))
    np.testing.assert_array_equal(loaded[0].data[0], X)
    assert all(callback.model is None for callback in loaded)
    assert loaded[-1].epochs == [0, 1, 2]
    _fit(_model(), loaded)


@pytest.mark.parametrize(("data", "kind"), [("a dataset", "Dataset"), ("a generator", "generator")])
def test_pickling_what_can_not_be_carried_is_refused_by_name(data, kind):
    callback = GrowthCallback(DATA[data](), count=3)
    with pytest.raises(
        pickle.PicklingError, match=rf"{kind} can't be pickled. Received: `data` of"
    ):
        pickle.dumps(callback)


def _built_for(X, y):
    model = _model()
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def test_a_fitted_scikit_learn_wrapper_that_holds_callbacks_is_copied_and_pickled():
    pytest.importorskip("sklearn.utils.multiclass")
    growth = GrowthCallback((X, np.eye(3, dtype="float32")[Y]), count=3)
    options = {"epochs": 3, "verbose": 0, "batch_size": 16, "callbacks": [growth]}
    wrapper = keras.wrappers.SKLearnClassifier(_built_for, fit_kwargs=options)
    # Not `sklearn.base.clone`: Keras's wrapper gives it no `fit_kwargs`.
    fitted = copy.deepcopy(wrapper)
    fitted.fit(X, Y)
    assert fitted.history_.history["grown_connections"] == [0, 3, 3]
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.fit_kwargs["callbacks"][0].model is None
