"""Growth gradients against central differences of the loss, every connection woken in turn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_grow import GradientMeter, growable_layers, growth_gradients


def _training_loss(model, data):
    model.reset_metrics()
    return model.train_on_batch(*data, return_dict=True)["loss"]


def _inference_loss(model, data):
    model.reset_metrics()
    return model.test_on_batch(*data, return_dict=True)["loss"]


def test_growth_gradients_are_the_derivatives_of_the_loss_that_fit_minimizes(
    float64, network, numerical_gradients, assert_close
):
    model, data = network()
    measured = GradientMeter().measure(model, data)
    for layer in growable_layers(model):
        assert 0 < layer.num_active < layer.num_connections
    assert measured.loss == pytest.approx(_training_loss(model, data), rel=1e-12)
    assert measured.num_samples == len(data[1]["kind"] if isinstance(data[1], dict) else data[1])
    expected = numerical_gradients(model, lambda: _training_loss(model, data))
    assert_close(measured.gradients, expected, 1e-6)


def test_sample_weights_in_a_dataset_count_as_those_in_a_tuple(float64, networks, assert_close):
    model, data = networks.sample_weighted()
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(7)
    assert_close(growth_gradients(model, dataset), growth_gradients(model, data), 1e-14)
    with pytest.raises(AssertionError):
        assert_close(growth_gradients(model, data[:2]), growth_gradients(model, data), 1e-2)


def test_in_inference_mode_batch_normalization_uses_its_moving_statistics(
    float64, networks, numerical_gradients, assert_close
):
    model, data = networks.batch_normalized()
    model.layers[1].moving_mean.assign([1.0, -1.0, 0.5, 0.0])
    model.layers[1].moving_variance.assign([0.2, 1.0, 3.0, 0.7])
    measured = growth_gradients(model, data, training=False)
    expected = numerical_gradients(model, lambda: _inference_loss(model, data))
    assert_close(measured, expected, 1e-6)


def _relative_error(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred) / (1 + ops.square(y_true)), axis=-1)


def _whole_loss(model, x, y, sample_weight):
    weights = 1.0 if sample_weight is None else ops.cast(sample_weight, "float64")
    errors = ops.mean(ops.square(model(x) - ops.cast(y, "float64")) ** 2, axis=-1)
    return ops.mean(weights * errors) + 0.1 * ops.sum(model.losses)


def _losses():
    return {
        "name": ("mse", lambda y, o, w: np.mean(w * np.square(o - y).mean(-1))),
        "object": (
            keras.losses.MeanSquaredError(reduction="sum"),
            lambda y, o, w: np.sum(w * np.square(o - y).mean(-1)),
        ),
        "function of outputs": (
            _relative_error,
            lambda y, o, w: np.mean(w * (np.square(o - y) / (1 + y**2)).mean(-1)),
        ),
        "function of the model": (
            _whole_loss,
            lambda y, o, w: np.mean(w * ((o - y) ** 4).mean(-1)),
        ),
    }


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("form", list(_losses()))
def test_every_form_of_loss_serves_a_model_that_is_not_compiled(
    float64, networks, numerical_gradients, assert_close, form, is_weighted
):
    compiled, (x, y) = networks.regularized()
    model = keras.Sequential(compiled.layers)
    model.build(x.shape)
    assert not model.compiled
    loss, in_numpy = _losses()[form]
    weights = np.linspace(0.1, 3.0, len(x)) if is_weighted else np.ones(len(x))
    penalty_share = 0.1 if form == "function of the model" else 1.0

    def expected_loss():
        penalty = sum(0.25 * np.square(layer.effective_kernel()).sum() for layer in model.layers)
        return in_numpy(y, model(x).numpy(), weights) + penalty_share * penalty

    data = (x, y, weights) if is_weighted else (x, y)
    measured = GradientMeter(loss=loss).measure(model, data)
    assert measured.loss == pytest.approx(expected_loss(), rel=1e-12)
    assert_close(measured.gradients, numerical_gradients(model, expected_loss), 1e-6)


def test_a_loss_passed_in_replaces_the_compiled_one(float64, networks, assert_close):
    model, data = networks.sequential()
    replaced = growth_gradients(model, data, loss="mae")
    model.compile("sgd", "mae")
    assert_close(replaced, growth_gradients(model, data), 1e-14)


@pytest.mark.parametrize("loss", [3, lambda a, b: 0.0, "no_such_loss"])
def test_a_loss_of_no_known_form_is_refused(networks, loss):
    model, data = networks.sequential()
    with pytest.raises(ValueError, match="loss"):
        growth_gradients(model, data, loss=loss)


def test_a_model_without_a_loss_is_refused(networks):
    compiled, data = networks.sequential()
    model = keras.Sequential(compiled.layers)
    model.build((None, 4))
    with pytest.raises(ValueError, match="Compile it, or pass `loss=`"):
        growth_gradients(model, data)
