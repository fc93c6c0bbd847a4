"""The Hebbian form of the growth gradient is the same number."""

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, growth_gradients, hebbian_gradients


def test_the_hebbian_form_equals_the_growth_gradient(float64, network, assert_close):
    model, data = network()
    if network.__name__ == "_recurrent":
        with pytest.raises(ValueError, match="can't look into a loop"):
            hebbian_gradients(model, data)
        return
    if network.__name__ == "_regularized":
        # Penalties reach active connections without passing through any input.
        hebbian = hebbian_gradients(model, data)
        for layer in hebbian:
            layer_gradient = growth_gradients(model, data)[layer] - 0.5 * layer.effective_kernel()
            np.testing.assert_allclose(hebbian[layer], layer_gradient, atol=1e-13)
        return
    for batch_size in (1000, 3):
        hebbian = hebbian_gradients(model, data, batch_size=batch_size)
        assert_close(hebbian, growth_gradients(model, data, batch_size=batch_size), 1e-12)


def test_the_hebbian_form_sums_over_all_positions_of_inputs_of_higher_rank(float64, assert_close):
    layers = [
        GrowableDense(3, "tanh", initial_density=0.5),
        GrowableDense(2, initial_density=0.5),
    ]
    model = keras.Sequential([keras.Input((2, 5, 4)), *layers])
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    data = random.normal(size=(6, 2, 5, 4)), random.normal(size=(6, 2, 5, 2))
    assert_close(hebbian_gradients(model, data), growth_gradients(model, data), 1e-12)


def test_the_hebbian_form_is_presynaptic_activity_times_postsynaptic_output_gradient(float64):
    layer = GrowableDense(2, use_bias=False, initial_density=0.0)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    # The outputs u are 0 and the loss is the sum of (u - y)^2 / 2, so that dL/du_m = -y_m.
    data = np.array([[1.0, 0.0], [2.0, 3.0]]), np.array([[5.0, 0.0], [1.0, 7.0]])
    (gradient,) = hebbian_gradients(model, data).values()
    np.testing.assert_allclose(gradient, [[-(1 * 5 + 2 * 1), -(2 * 7)], [-(3 * 1), -(3 * 7)]])
