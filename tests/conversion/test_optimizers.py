"""The optimizer of a converted model goes on where the old one stands."""

import keras
import numpy as np
import pytest

from keras_grow import (
    convert_optimizer,
    grow,
    make_growable,
    make_plain,
)
from tests.structure.wired_models import MAKERS, inputs_of, made

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def _sequential():
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3, "softmax")])


class _OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01


def _own_rate():
    return 0.01


@pytest.mark.parametrize("rate", [_OwnSchedule(), _own_rate], ids=["schedule", "function"])
@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "loss scale"])
def test_an_optimizer_takes_its_own_schedule_along(rate, scaled):
    model = make_growable(_sequential(), initial_density=0.5, seed=1)
    optimizer = keras.optimizers.Adam(rate)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    labels = np.arange(32) % 3
    model.fit(X, labels, verbose=0)
    grow(model, (X, labels), count=5)
    plain = make_plain(model)
    converted = convert_optimizer(model, plain)
    assert getattr(converted, "inner_optimizer", converted)._learning_rate is rate
    plain.compile(converted, "sparse_categorical_crossentropy")
    plain.fit(X, labels, verbose=0)


@pytest.mark.parametrize("name", ["lstm", "attention", "separable", "tied_embedding"])
def test_training_goes_on_in_plain_layers_where_wrappers_are_gone(name):
    if name not in MAKERS:
        pytest.skip("this Keras has no such layer")
    model = made(name, growable=True)
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-3), "mse", run_eagerly=True)
    x = inputs_of(model)
    y = np.zeros(model(x).shape)
    model.train_on_batch(x, y)
    plain = make_plain(model)
    plain.compile(convert_optimizer(model, plain), "mse", run_eagerly=True)
    for each in (model, plain):
        each.train_on_batch(x, y)
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-4, atol=1e-5)
