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


def test_taylor_is_the_derivative_by_a_gate_on_each_unit():
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
    # Behind the Flatten each of the 4 positions is read by itself, and they count together.
    np.testing.assert_allclose(found, np.abs(by_sample).mean(axis=0), rtol=1e-4, atol=1e-6)


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


def _attention():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8))
    y = layers.MultiHeadAttention(3, 4, value_dim=2, name="attention")(x, x)
    y = layers.GlobalAveragePooling1D()(y)
    model = keras_grow.make_growable(keras.Model(x, layers.Dense(2, name="answer")(y)))
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    model.compile("sgd", "mse")
    data = random.normal(size=(7, 6, 8)).astype("float32"), random.normal(size=(7, 2))
    return model, data


# Which weights a gate on each unit multiplies, and along which of their axes.
_GATED = {
    "heads": [("attention_output/kernel", 0)],
    "value_size": [("attention_output/kernel", 1)],
    "key_size": [("query/kernel", 2), ("query/bias", 1)],
}


@pytest.mark.parametrize("side", _GATED)
def test_taylor_inside_an_attention_is_the_derivative_by_a_gate(side):
    model, (x, y) = _attention()
    (size,) = [g.count for g in keras_grow.groups(model) if g.made_by[0].units.endswith(side)]
    variables = {v.path.split("attention/")[-1]: v for v in model.trainable_variables}
    by_sample = []
    for sample, target in zip(x, y, strict=True):
        gates = tf.ones(size)
        with tf.GradientTape() as tape:
            tape.watch(gates)
            gated = []
            for name, axis in _GATED[side]:
                variable = variables[name]
                shape = [1] * len(variable.shape)
                shape[axis] = size
                gated.append((variable, variable * tf.reshape(gates, shape)))
            with keras.StatelessScope(gated):
                outputs = model(sample[None])
            loss = tf.reduce_mean((outputs - target) ** 2)
        by_sample.append(tape.gradient(loss, gates).numpy())
    seen = _Seen(neuron_scores.Taylor())
    prune_neurons(model, count=1, score=seen, data=(x, y))
    (found,) = [values for values in seen.values if len(values) == size]
    np.testing.assert_allclose(found, np.abs(by_sample).mean(axis=0), rtol=1e-4, atol=1e-6)


def test_what_is_only_multiplied_is_measured_where_it_is_made():
    model, (x, _) = _attention()
    query, key = (
        next(k for k in keras_grow.growable_layers(model) if k.name == f"{name}_kernel")
        for name in ("query", "key")
    )
    seen = {}

    class Recorded(neuron_scores.NeuronScore):
        def __call__(self, outputs):
            seen[len(outputs.rms)] = outputs
            return outputs.rms

    prune_neurons(model, count=1, score=Recorded(), data=(x,))
    layer = model.get_layer("attention").layer
    made = x @ query.kernel.numpy().reshape(8, 12) + layer.weights[1].numpy().reshape(12)
    made = made.reshape(-1, 3, 4)
    of_keys = seen[4]
    np.testing.assert_allclose(of_keys.rms, np.sqrt((made**2).mean(axis=(0, 1))), rtol=1e-4)
    norm = np.sqrt((key.kernel.numpy() ** 2).sum(axis=(0, 1)))
    np.testing.assert_allclose(of_keys.outgoing_norm, norm, rtol=1e-5)
