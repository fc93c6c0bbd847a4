"""The bridging gradient against central differences of a network with the bridge built in."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GradientMeter, GrowableDense, SparseDense, WeightNormDense
from keras_grow.measuring.bridging import bridging_gradient

_layers = keras.layers


def _dense(units, activation=None, kind=GrowableDense):
    return kind(units, activation, initial_density=0.6, bias_initializer="random_normal")


def _plain():
    layer, consumer = _dense(4, "tanh"), _dense(3, "softmax")
    return [keras.Input((5,))], layer, [], consumer, []


def _in_the_middle():
    before = [keras.Input((4,)), _dense(5, "tanh", WeightNormDense)]
    layer, consumer = _dense(4, kind=WeightNormDense), _dense(6, kind=WeightNormDense)
    between = [_layers.BatchNormalization(), _layers.Activation("tanh")]
    return before, layer, between, consumer, [_dense(3, "softmax")]


def _behind_a_convolution():
    before = [keras.Input((6, 6, 1)), _layers.Conv2D(2, 3), _layers.MaxPooling2D(2)]
    before += [_layers.Flatten()]
    layer = SparseDense(4, "tanh", capacity=0.5, kernel_initializer="random_normal")
    return before, layer, [], _dense(3, "softmax"), []


def _over_time():
    before = [keras.Input((3, 4))]
    after = [_layers.Flatten(), _dense(3, "softmax")]
    return before, _dense(4, "tanh"), [], _dense(2, "tanh"), after


_CASES = {
    "plain": _plain,
    "in the middle": _in_the_middle,
    "behind a convolution": _behind_a_convolution,
    "over time": _over_time,
}


def _network(case):
    before, layer, between, consumer, after = _CASES[case]()
    model = keras.Sequential([*before, layer, *between, consumer, *after])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(12, *model.inputs[0].shape[1:])), np.arange(12) % 3
    return model, layer, consumer, (x, y)


def _loss_with_bridge(model, layer, consumer, data, bridge):
    """The mean loss, in inference, with `bridge` between the two layers."""
    x, y = data
    hidden = tf.constant(x)
    for each in model.layers:
        if each is layer:
            skipped = hidden @ tf.constant(bridge)
        if each is consumer:
            hidden = each.activation(hidden @ each.effective_kernel() + each.bias.value + skipped)
        else:
            hidden = each(hidden, training=False)
    return float(tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, hidden)))


@pytest.mark.parametrize("case", _CASES)
def test_it_is_the_derivative_with_respect_to_a_connection_that_skips_the_layer(float64, case):
    model, layer, consumer, data = _network(case)
    meter = GradientMeter(training=False, batch_size=5)
    measured = bridging_gradient(model, data, [layer], [consumer], meter, None)
    shape = layer.kernel_shape[0], consumer.kernel_shape[1]
    assert measured.gradient.shape == shape
    expected = np.zeros(shape)
    for place in np.ndindex(shape):
        bridge = np.zeros(shape)
        losses = []
        for bridge[place] in (1e-5, -1e-5):
            losses.append(_loss_with_bridge(model, layer, consumer, data, bridge))
        expected[place] = (losses[0] - losses[1]) / 2e-5
    assert np.abs(expected).max() > 1e-3
    error = np.abs(measured.gradient - expected).max() / np.abs(expected).max()
    assert error < 1e-7
    assert measured.loss == pytest.approx(
        _loss_with_bridge(model, layer, consumer, data, np.zeros(shape)), rel=1e-12
    )
    inputs = keras.Model(model.inputs, layer.input)(data[0]).numpy()
    mean_input = inputs.reshape(-1, shape[0]).mean(axis=0)
    np.testing.assert_allclose(measured.mean_input, mean_input, rtol=1e-12, atol=1e-15)


def test_chunks_equal_the_whole_and_the_model_is_left_untouched(float64, snapshot):
    model, layer, consumer, data = _network("plain")
    before = snapshot(model)
    whole, chunks = (
        bridging_gradient(
            model, data, [layer], [consumer], GradientMeter(batch_size=size), model.optimizer
        )
        for size in (12, 5)
    )
    np.testing.assert_allclose(whole.gradient, chunks.gradient, rtol=1e-12, atol=1e-15)
    snapshot.assert_same(model, before)


def test_sample_weights_count(float64):
    model, layer, consumer, (x, y) = _network("plain")
    weights = np.linspace(0.1, 3.0, 12)

    def gradient(*data):
        return bridging_gradient(model, data, [layer], [consumer], GradientMeter(), None).gradient

    rows = [gradient(x[i : i + 1], y[i : i + 1]) * weights[i] for i in range(12)]
    np.testing.assert_allclose(gradient(x, y, weights), sum(rows) / 12, rtol=1e-10, atol=1e-15)
