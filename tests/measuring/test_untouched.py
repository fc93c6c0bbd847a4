"""Measuring leaves the model as it was, and draws what stochastic layers drop."""

import keras
import numpy as np
import pytest

from keras_grow import GradientMeter, GrowableDense, growth_gradients, hebbian_gradients


def _everything():
    """A model with whatever a training step changes besides its weights."""
    layers = [
        GrowableDense(6, initial_density=0.5),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.GaussianNoise(0.1),
        GrowableDense(2, "softmax", initial_density=0.5),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(
        keras.optimizers.Adam(0.01, use_ema=True),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model


@pytest.mark.parametrize("measure", [growth_gradients, hebbian_gradients])
@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_no_variable(blobs, snapshot, measure, training):
    x, y = blobs[0], blobs[1] % 2
    model = _everything()
    model.fit(x, y, verbose=0)
    before = snapshot(model)
    # Weights, statistics, seeds, metrics and slots.
    assert len(before) > len(model.get_weights()) + len(model.optimizer.variables)
    measure(model, (x, y, np.ones(96)), training=training, batch_size=40)
    snapshot.assert_same(model, before)


def test_training_goes_on_as_if_nothing_had_been_measured(blobs):
    x, y = blobs[0], blobs[1] % 2

    def train(is_measured):
        keras.utils.set_random_seed(0)
        model = _everything()
        for _ in range(3):
            model.fit(x, y, verbose=0, shuffle=False)
            if is_measured:
                growth_gradients(model, (x, y))
        return model.get_weights()

    for a, b in zip(train(True), train(False), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def dropping(float64):
    """Half of 64 inputs are dropped before one layer."""
    layers = [keras.layers.Dropout(0.5), GrowableDense(1, initial_density=0.5)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile("sgd", "mse")
    return model


def _dropped(gradients):
    (gradient,) = gradients.values()
    return np.flatnonzero(gradient.numpy() == 0)


def test_dropout_draws_the_same_in_every_measurement_at_a_step(dropping):
    data = np.ones((1, 64)), np.ones((1, 1))
    meter = GradientMeter()
    first = _dropped(meter.measure(dropping, data).gradients)
    assert 16 < len(first) < 48
    np.testing.assert_array_equal(_dropped(meter.measure(dropping, data).gradients), first)
    np.testing.assert_array_equal(_dropped(growth_gradients(dropping, data)), first)


def test_dropout_draws_afresh_for_every_batch(dropping):
    data = np.ones((3, 64)), np.ones((3, 1))
    once = _dropped(growth_gradients(dropping, (data[0][:1], data[1][:1])))
    # An input is dropped from all of three independent draws with probability 1/8.
    always = _dropped(growth_gradients(dropping, data, batch_size=1))
    assert set(always) < set(once)
    assert len(always) < 20


def test_dropout_draws_afresh_after_a_training_step(dropping):
    data = np.ones((1, 64)), np.ones((1, 1))
    meter = GradientMeter()
    draws = []
    for step in [0, 1, 2]:
        dropping.optimizer.iterations.assign(step)
        draws.append(tuple(_dropped(meter.measure(dropping, data).gradients)))
    assert len(set(draws)) == 3


def test_dropout_follows_the_seed_of_the_layer(float64):
    def draw(seed):
        layers = [keras.layers.Dropout(0.5, seed=seed), GrowableDense(1)]
        model = keras.Sequential([keras.Input((64,)), *layers])
        model.compile("sgd", "mse")
        return tuple(_dropped(growth_gradients(model, (np.ones((1, 64)), np.ones((1, 1))))))

    assert draw(1) == draw(1) != draw(2)


def test_in_inference_mode_nothing_is_dropped(dropping):
    data = np.ones((1, 64)), np.full((1, 1), 100.0)
    assert len(_dropped(growth_gradients(dropping, data, training=False))) == 0
