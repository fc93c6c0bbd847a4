"""Statistics of what flows into growable layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GradientMeter, GrowableDense
from keras_grow.policies.statistics import InputRMS, InputStatistic


class MeanMagnitude(InputStatistic):
    def of_inputs(self, inputs):
        return tf.abs(inputs)


def test_the_mean_square_of_each_input_is_taken_over_all_samples_and_positions(snapshot):
    layer = GrowableDense(2)
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Dropout(0.5), layer])
    x = np.random.default_rng(0).normal(size=(7, 3, 4)).astype("float32")
    before = snapshot(model)
    measured = GradientMeter(batch_size=3).measure(model, (x,), statistics=[InputRMS()])
    # At inference: nothing is dropped.
    mean_squares = np.square(measured.values[layer][InputRMS()][:, 0])
    np.testing.assert_allclose(mean_squares, np.square(x).mean((0, 1)), rtol=1e-5)
    snapshot.assert_same(model, before)


def test_every_call_of_a_shared_layer_counts():
    left, right = keras.Input((4,)), keras.Input((4,))
    layer = GrowableDense(2)
    model = keras.Model([left, right], layer(left) + layer(right))
    x = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    measured = GradientMeter().measure(model, ([x, 3 * x],), statistics=[MeanMagnitude()])
    means = measured.values[layer][MeanMagnitude()][:, 0]
    np.testing.assert_allclose(means, 2 * np.abs(x).mean(0), rtol=1e-5)


def test_inputs_inside_a_loop_are_refused(networks):
    model, data = networks.recurrent()
    cell = model.layers[0].cell
    with pytest.raises(ValueError, match="Inputs can't be measured inside a loop"):
        GradientMeter().measure(model, data, [cell.update], statistics=[InputRMS()])
