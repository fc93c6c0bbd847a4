"""initialize_weight_norm on networks of several layers, whatever way the data comes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableDense, WeightNormDense, initialize_weight_norm


def _inputs(num_samples=200, shape=(6,), dtype="float64"):
    """Correlated inputs with means and scales of their own."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(num_samples, *shape)) @ random.normal(size=(shape[-1], shape[-1]))
    return (2 * mixed + np.arange(shape[-1])).astype(dtype)


def _normalized(units, name, dtype="float64", **arguments):
    """A WeightNormDense without activation: its outputs are its pre-activations."""
    return WeightNormDense(units, name=name, dtype=dtype, seed=units, **arguments)


def _deep(dtype="float64", shape=(6,), **arguments):
    return keras.Sequential(
        [
            keras.Input(shape, dtype=dtype),
            _normalized(8, "first", dtype, **arguments),
            keras.layers.Activation("tanh", dtype=dtype),
            _normalized(7, "second", dtype, **arguments),
            keras.layers.Activation("relu", dtype=dtype),
            _normalized(4, "third", dtype, **arguments),
        ]
    )


def _pre_activations(model, x, names=("first", "second", "third")):
    """Of the named layers, as rows of one sample and timestep each."""
    layers = [model.get_layer(name) for name in names]
    outputs = keras.Model(model.inputs[0], [layer.output for layer in layers])(x, training=True)
    return [np.reshape(t, (-1, layer.units)) for t, layer in zip(outputs, layers, strict=True)]


def _assert_normalized(pre_activations, tolerance):
    for t in pre_activations:
        t = t.astype("float64")
        np.testing.assert_allclose(t.mean(axis=0), 0, atol=tolerance)
        np.testing.assert_allclose(t.var(axis=0), 1, rtol=tolerance)


def _values(variables):
    return [variable.numpy().tobytes() for variable in variables]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("density", [1.0, 0.4])
@pytest.mark.parametrize("shape", [(6,), (3, 6)], ids=["vectors", "sequences"])
def test_pre_activations_of_every_layer_have_zero_mean_and_unit_variance(
    dtype, tolerance, density, shape
):
    model = _deep(dtype, shape, initial_density=density)
    x = _inputs(shape=shape, dtype=dtype)
    assert np.abs(_pre_activations(model, x)[0].var(axis=0) - 1).max() > 0.1
    initialize_weight_norm(model, (x,))
    _assert_normalized(_pre_activations(model, x), tolerance)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_chunks_give_what_the_whole_gives(batch_size):
    whole, chunked = _deep(), _deep()
    chunked.set_weights(whole.get_weights())
    initialize_weight_norm(whole, (_inputs(),))
    initialize_weight_norm(chunked, (_inputs(),), batch_size=batch_size)
    for a, b in zip(chunked.trainable_variables, whole.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_layers_are_taken_in_the_order_in_which_they_are_called():
    class Backwards(keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.later = _normalized(4, "later")
            self.sooner = _normalized(8, "sooner")

        def call(self, inputs):
            return self.later(keras.ops.tanh(self.sooner(inputs)))

    model, x = Backwards(), _inputs()
    model(x)
    initialize_weight_norm(model, (x,))
    _assert_normalized([model.sooner(x).numpy(), model(x).numpy()], 1e-10)


def test_targets_of_the_growth_data_are_ignored():
    models = [_deep(), _deep()]
    models[1].set_weights(models[0].get_weights())
    x = _inputs()
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros((200, 9)))).batch(50)
    for model, data in zip(models, [(x,), dataset], strict=True):
        initialize_weight_norm(model, data, batch_size=50)
    assert _values(models[0].variables) == _values(models[1].variables)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused_and_the_layers_stay(bad):
    model = _deep()
    before = _values(model.variables)
    x = _inputs()
    x[17, 2] = bad
    with pytest.raises(ValueError, match="inputs of layer 'first' must be finite"):
        initialize_weight_norm(model, (x,))
    assert _values(model.variables) == before


def test_what_fails_in_a_later_layer_leaves_the_earlier_ones_too():
    class Infinite(keras.layers.Layer):
        def call(self, inputs):
            return inputs / 0.0

    model = keras.Sequential(
        [
            keras.Input((6,), dtype="float64"),
            _normalized(8, "first"),
            Infinite(dtype="float64"),
            _normalized(4, "second"),
        ]
    )
    before = _values(model.variables)
    with pytest.raises(ValueError, match="inputs of layer 'second' must be finite"):
        initialize_weight_norm(model, (_inputs(),))
    assert _values(model.variables) == before


def _dense_model():
    return keras.Sequential([keras.Input((6,)), GrowableDense(3)])


def _frozen_model():
    return keras.Sequential([keras.Input((6,)), WeightNormDense(3, trainable=False)])


@pytest.mark.parametrize(
    ("make_model", "data", "error", "message"),
    [
        (_dense_model, (_inputs(),), ValueError, "no trainable WeightNormDense or"),
        (_frozen_model, (_inputs(),), ValueError, "no trainable WeightNormDense or"),
        (lambda: "model", (_inputs(),), TypeError, "expected a `keras.Model`"),
        (lambda: keras.Sequential([WeightNormDense(3)]), (_inputs(),), ValueError, "unbuilt"),
        (_deep, (_inputs(shape=(5,)),), ValueError, "could not be run on the data"),
        (_deep, (np.zeros((0, 6)),), ValueError, "positive number of samples"),
        (_deep, _inputs(), TypeError, "must be a tuple of arrays"),
    ],
)
def test_what_cannot_be_initialized_is_refused(make_model, data, error, message):
    with pytest.raises(error, match=message):
        initialize_weight_norm(make_model(), data)
