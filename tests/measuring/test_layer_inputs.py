"""What flows into and out of layers of any kind, as NumPy finds it from the values themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow.measuring.layer_inputs import Tap, moments

NUM_SAMPLES = 7


@pytest.fixture
def called_twice():
    """A model whose `shared` layer is called twice; its data; and the layer."""
    left, right = keras.Input((3, 4)), keras.Input((3, 4))
    shared = keras.layers.Dense(4, "tanh", name="shared")
    outputs = keras.layers.Dense(2)(shared(left) + 2 * shared(right))
    model = keras.Model([left, right], outputs)
    random = np.random.default_rng(0)
    x = [random.normal(size=(NUM_SAMPLES, 3, 4)).astype("float32") for _ in range(2)]
    return model, (x, random.normal(size=(NUM_SAMPLES, 3, 2)).astype("float32")), shared


def _loss(model):
    def loss(x, y, sample_weight):
        return tf.reduce_mean(tf.square(model(x) - y))

    return loss


def _by_hand(model, shared, x, y, of_output):
    """The values of both calls, and for each sample the gradient of its own loss."""
    (kernel, bias), (last, last_bias) = shared.weights, model.layers[-1].weights
    with tf.GradientTape() as tape:
        inputs = [tf.constant(each) for each in x]
        tape.watch(inputs)
        made = [tf.tanh(each @ kernel + bias) for each in inputs]
        tape.watch(made)
        outputs = (made[0] + 2 * made[1]) @ last + last_bias
        # The mean over what one sample has.
        loss = tf.reduce_sum(tf.reduce_mean(tf.square(outputs - y), axis=(1, 2)))
    values = made if of_output else inputs
    return [np.asarray(each, "float64") for each in (*values, *tape.gradient(loss, values))]


@pytest.mark.parametrize("batch_size", [NUM_SAMPLES, 3])
@pytest.mark.parametrize("of_output", [False, True])
def test_moments_are_means_over_calls_samples_and_positions(called_twice, of_output, batch_size):
    model, (x, y), shared = called_twice
    units = np.array([0, 1, 1, 2])
    taps = [Tap(shared, np.arange(4), of_output), Tap(shared, units, of_output)]
    *values, first, second = _by_hand(model, shared, x, y, of_output)
    (alone, together) = moments(model, (x, y), taps, batch_size, 0, _loss(model))
    flat = np.concatenate(values).reshape(-1, 4)
    effects = [np.sum(v * g, axis=1) for v, g in zip(values, (first, second), strict=True)]
    grouped = [np.stack([e[:, units == n].sum(axis=1) for n in range(3)], 1) for e in effects]
    for found, by_unit in ((alone, effects), (together, grouped)):
        np.testing.assert_allclose(found.mean_magnitude, np.abs(flat).mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.mean_square, np.square(flat).mean(axis=0), rtol=1e-6)
        expected = sum(np.abs(each).mean(axis=0) for each in by_unit)
        np.testing.assert_allclose(found.first_order, expected, rtol=1e-4)


def test_without_a_loss_nothing_is_said_of_its_response(called_twice):
    model, data, shared = called_twice
    (found,) = moments(model, data, [Tap(shared, np.arange(4))], None, 0)
    flat = np.concatenate(data[0]).reshape(-1, 4)
    np.testing.assert_allclose(found.mean_magnitude, np.abs(flat).mean(axis=0), rtol=1e-6)
    assert found.first_order is None
    assert found.mean_square.dtype == "float64"


def test_a_tap_reads_the_input_unless_told_otherwise(called_twice):
    model, data, shared = called_twice
    taps = [Tap(shared, np.arange(4)), Tap(shared, np.arange(4), of_output=True)]
    read, made = moments(model, data, taps, None, 0)
    assert np.max(made.mean_magnitude) < 1  # Behind tanh.
    assert np.max(read.mean_square) > np.max(made.mean_square)
    # Else a value would be compared as an array where taps are.
    assert len({*taps, Tap(shared, np.arange(4))}) == 3


def test_several_entries_of_the_last_axes_are_those_of_a_position():
    inputs = keras.Input((2, 3))
    flatten = keras.layers.Flatten()
    model = keras.Model(inputs, flatten(inputs))
    x = np.random.default_rng(0).normal(size=(NUM_SAMPLES, 2, 3)).astype("float32")
    (found,) = moments(model, (x, x), [Tap(flatten, np.arange(6) // 3)], None, 0)
    expected = np.abs(x).mean(axis=0).reshape(-1)
    np.testing.assert_allclose(found.mean_magnitude, expected, rtol=1e-6)
