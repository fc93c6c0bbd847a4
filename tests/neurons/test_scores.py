"""What units are ranked by, against the same numbers found in another way."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_grow
from keras_grow import neuron_scores, prune_neurons


def _network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = keras_grow.GrowableConv2D(7, 3, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.MaxPooling2D()(x)
    outputs = keras_grow.GrowableDense(4, name="answer")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    random = np.random.default_rng(1)
    norm = model.get_layer("norm")
    norm.gamma.assign(random.uniform(-1.5, 1.5, 7))
    norm.beta.assign(random.normal(size=7))
    norm.moving_mean.assign(random.normal(size=7))
    model.compile("sgd", "mse")
    return model


def _data():
    random = np.random.default_rng(2)
    return (
        random.normal(size=(12, 6, 6, 3)).astype("float32"),
        random.normal(size=(12, 4)).astype("float32"),
    )


class _Seen(neuron_scores.NeuronScore):
    """Keeps what another score gives."""

    def __init__(self, score):
        self.takes_first_order = score.takes_first_order
        self.score, self.values = score, []

    def __call__(self, outputs):
        self.values.append(np.asarray(self.score(outputs)))
        return self.values[-1]


def _values(model, score, data):
    seen = _Seen(score)
    prune_neurons(model, count=1, score=seen, data=data)
    (values,) = seen.values
    return values


def test_taylor_is_at_least_the_derivative_by_a_gate_on_each_unit():
    model, (x, y) = _network(), _data()
    hidden = keras.Model(model.inputs, model.get_layer("norm").output)
    behind = model.layers[model.layers.index(model.get_layer("norm")) + 1 :]
    gates = tf.ones((len(x), 1, 1, 7))
    with tf.GradientTape() as tape:
        tape.watch(gates)
        # A gate behind the ReLU; it passes the pooling as it is.
        outputs = tf.nn.relu(hidden(x)) * gates
        for layer in behind[1:]:
            outputs = layer(outputs)
        loss = tf.reduce_sum(tf.reduce_mean((outputs - y) ** 2, axis=1))
    by_sample = tape.gradient(loss, gates).numpy().reshape(len(x), 7)
    found = _values(model, neuron_scores.Taylor(), (x, y))
    # Behind the Flatten each of the 4 positions is read, and counts, by itself.
    assert np.all(found >= np.abs(by_sample).mean(axis=0) * (1 - 1e-4))
    assert np.any(found > 0)


def test_taylor_of_a_dense_layer_is_exact():
    keras.utils.set_random_seed(0)
    hidden = keras_grow.GrowableDense(5, "tanh", name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, keras_grow.GrowableDense(3)])
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 4)), random.normal(size=(20, 3))
    with tf.GradientTape() as tape:
        units = hidden(x)
        tape.watch(units)
        loss = tf.reduce_sum(tf.reduce_mean((model.layers[-1](units) - y) ** 2, axis=1))
    expected = np.abs(units * tape.gradient(loss, units)).mean(axis=0)
    found = _values(model, neuron_scores.Taylor(), (x, y))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_taylor_takes_the_loss_that_the_meter_has():
    hidden = keras_grow.GrowableDense(5, "tanh", name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, keras_grow.GrowableDense(3)])
    x, y = np.ones((4, 4)), np.ones((4, 3))
    with pytest.raises(ValueError, match="no loss to lower"):
        prune_neurons(model, count=1, score=neuron_scores.Taylor(), data=(x, y))
    meter = keras_grow.GradientMeter(loss="mse")
    record = prune_neurons(model, count=1, score=neuron_scores.Taylor(), data=(x, y), meter=meter)
    assert record.count == 1


def test_weights_and_scales_are_seen_as_they_are():
    data = _data()
    kernel = _network().get_layer("conv").kernel.numpy()
    incoming = np.sqrt((kernel.astype("float64") ** 2).sum(axis=(0, 1, 2)))
    found = _values(_network(), neuron_scores.IncomingMagnitude(), data)
    np.testing.assert_allclose(found, incoming, rtol=1e-6)
    gamma = np.abs(_network().get_layer("norm").gamma.numpy())
    found = _values(_network(), neuron_scores.NormalizationScale(), data)
    np.testing.assert_allclose(found, gamma, rtol=1e-6)
    found = _values(_network(), neuron_scores.Relative(neuron_scores.NormalizationScale()), data)
    np.testing.assert_allclose(found, gamma / gamma.mean(), rtol=1e-6)
