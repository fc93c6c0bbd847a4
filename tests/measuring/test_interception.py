"""What is done behind each layer's call, and the randomness that is the same each time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_grow import SparseDense
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


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_sparse_layers_compute_the_same_connection_by_connection(shape):
    sparse = [SparseDense(8, capacity=0.4, seed=0), SparseDense(6, capacity=0.5, group_size=2)]
    model = keras.Sequential([keras.Input(shape), *sparse])
    x = tf.random.stateless_normal((4, *shape), [0, 1])
    seen = []
    outputs = run_intercepted(model, x, sparse, lambda number, y: seen.append(y.shape) or y)
    assert seen == [(4, *shape[:-1], 8), (4, *shape[:-1], 6)]
    np.testing.assert_allclose(outputs, model(x), rtol=1e-5, atol=1e-6)


def test_methods_are_back_whatever_happens():
    layer = layers.Dense(2)
    model = keras.Sequential([keras.Input((2,)), layer])

    def fails(number, outputs):
        raise RuntimeError("somewhere")

    before = dict(vars(layer))
    is_rounded = tf.config.experimental.tensor_float_32_execution_enabled()
    with pytest.raises(RuntimeError, match="somewhere"):
        run_intercepted(model, tf.zeros((3, 2)), [layer], fails)
    assert vars(layer).keys() == before.keys()
    assert tf.config.experimental.tensor_float_32_execution_enabled() == is_rounded
