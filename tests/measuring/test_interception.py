"""What is done behind each layer's call, and the randomness that is the same each time."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_grow.layers.paths import nested_layers
from keras_grow.measuring.interception import run_intercepted


def test_what_takes_the_place_of_outputs_goes_on():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="inner")])
    model = keras.Sequential([keras.Input((2,)), inner, layers.Dense(1, use_bias=False)])
    seen = []

    def after(number, outputs):
        seen.append(number)
        return tf.ones_like(outputs) if number == 0 else outputs

    (hidden,) = [layer for layer in nested_layers(model) if layer.name == "inner"]
    outputs = run_intercepted(model, tf.zeros((3, 2)), [hidden, model], after)
    assert seen == [0, 1]
    expected = np.sum(model.layers[-1].kernel) * np.ones((3, 1))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert "call" not in vars(hidden)
