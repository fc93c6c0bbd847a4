"""What a dormant connection stores reaches no output, loss, gradient, file or verb."""

import numpy as np
import pytest
import tensorflow as tf

import keras_grow

_CONTAMINATIONS = [5.0, np.nan]


def _outputs_loss_and_gradients(model, data):
    x, y = data
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = model.compute_loss(y=y, y_pred=outputs)
    return [outputs, loss, *model.losses, *tape.gradient(loss, model.trainable_variables)]


def test_a_dormant_value_reaches_no_output_loss_or_gradient(
    case, penalties, regression, assert_same_bits
):
    model = case.network(**penalties)
    model.compile("sgd", "mse")
    expected = _outputs_loss_and_gradients(model, regression)
    # The comparison would mean nothing if no gradient flowed.
    assert all(np.any(gradient) for gradient in expected[-len(model.trainable_variables) :])
    for value in _CONTAMINATIONS:
        case.contaminate(model, value)
        assert_same_bits(_outputs_loss_and_gradients(model, regression), expected)


@pytest.mark.parametrize("value", _CONTAMINATIONS)
def test_dormant_values_of_a_file_are_zero_once_loaded(case, value, tmp_path):
    model = case.network()
    case.contaminate(model, value)
    model.save_weights(tmp_path / "contaminated.weights.h5")
    loaded = case.network()
    loaded.load_weights(tmp_path / "contaminated.weights.h5")
    assert not case.dormant_values(loaded).any()


@pytest.mark.parametrize("place", ["active", "dormant"])
@pytest.mark.parametrize(
    "verb",
    [
        lambda model, data, path: keras_grow.grow(model, data, count=2),
        lambda model, data, path: keras_grow.prune(model, count=2),
        lambda model, data, path: keras_grow.growth_gradients(model, data),
        lambda model, data, path: keras_grow.export_saved_model(model, path),
    ],
    ids=["grow", "prune", "growth_gradients", "export_saved_model"],
)
def test_a_stored_nan_is_refused_by_name(case, verb, place, regression, tmp_path):
    model = case.network()
    model.compile("sgd", "mse")
    layer = model.get_layer("outputs")
    stored = case.variable(layer).numpy()
    chosen = case.is_active(layer) == (place == "active")
    stored[tuple(np.argwhere(chosen)[0])] = np.nan
    case.variable(layer).assign(stored)
    with pytest.raises(ValueError, match="'outputs' stores weights that are NaN"):
        verb(model, regression, tmp_path / "served")
    assert not (tmp_path / "served").exists()
