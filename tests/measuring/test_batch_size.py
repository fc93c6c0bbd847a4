"""Where nobody says how many samples go together, as many do as fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GradientMeter, GrowableConv2D, GrowableDense, report
from keras_grow.measuring import batch_size as chosen
from keras_grow.measuring.batch_size import fitting_batch_size


def _dense(units=16):
    layers = [GrowableDense(units, "relu"), GrowableDense(2)]
    return keras.Sequential([keras.Input((8,)), *layers])


def _convolution(size):
    layers = [GrowableConv2D(64, 3, padding="same") for _ in range(4)]
    top = [keras.layers.GlobalAveragePooling2D(), GrowableDense(2)]
    return keras.Sequential([keras.Input((size, size, 3)), *layers, *top])


X = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
Y = np.zeros((60, 2), "float32")


def test_small_models_take_a_thousand_and_large_ones_what_fits():
    assert fitting_batch_size(_dense(), (X, Y), None) == 1000
    sizes = [
        fitting_batch_size(_convolution(size), (np.zeros((1, size, size, 3), "float32"),), None)
        for size in (16, 64, 256)
    ]
    assert sizes[0] == 1000
    # Nothing of that size is run; four maps of 64 channels take 4 x 64 x 4 bytes a place, and more.
    assert 1 <= sizes[2] < sizes[1] < 1000
    assert sizes[2] <= 2**30 / (4 * 64 * 4 * 256**2)
    assert sizes[1] == pytest.approx(16 * sizes[2], abs=16)


def test_the_choice_follows_the_bound_and_never_falls_to_none():
    model, data = _convolution(64), (np.zeros((1, 64, 64, 3), "float32"),)
    bounds = [1, 2**24, 2**27, 2**30, 2**40]
    found = [fitting_batch_size(model, data, None, most_bytes=bound) for bound in bounds]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 1000)


@pytest.mark.parametrize("width", [1300, 1308, 4160])
def test_what_does_not_grow_with_the_samples_counts_for_nothing_whatever_its_width(width):
    layers = [GrowableDense(width), GrowableDense(2)]
    model = keras.Sequential([keras.Input((width,)), *layers])
    assert fitting_batch_size(model, (np.zeros((1, width), "float32"),), None) == 1000


def test_samples_count_on_whichever_axis_they_stand():
    class TimeMajor(keras.layers.Layer):
        def call(self, x):
            x = keras.ops.transpose(x, (1, 0, 2))
            for _ in range(8):
                x = keras.ops.tanh(x)
            return x[0]

    inputs = keras.Input((64, 16))
    model = keras.Model(inputs, GrowableDense(2)(TimeMajor()(inputs)))
    data = (np.zeros((1, 64, 16), "float32"),)
    # Nine tensors of 64 x 16 numbers a sample.
    most = 2**24 / (9 * 64 * 16 * 4)
    assert fitting_batch_size(model, data, None, most_bytes=2**24) <= most < 1000


def test_what_is_computed_in_a_loop_counts_as_often_as_the_sequence_has_steps():
    def recurrent(steps):
        layers = [keras.layers.LSTM(32, return_sequences=True), GrowableDense(2)]
        model = keras.Sequential([keras.Input((steps, 8)), *layers])
        data = (np.zeros((1, steps, 8), "float32"),)
        return fitting_batch_size(model, data, None, most_bytes=2**24)

    assert recurrent(400) < recurrent(40) / 5


def test_the_gradient_is_the_same_and_says_how_many_went_together(monkeypatch):
    model = _dense()
    model.compile("sgd", "mse")
    whole = GradientMeter(batch_size=60).measure(model, (X, Y))
    monkeypatch.setattr(chosen, "MOST_BYTES", 4096)
    parts = GradientMeter().measure(model, (X, Y))
    assert whole.batch_size == 60
    assert 1 <= parts.batch_size < 30
    assert GradientMeter().measure(model, tf.data.Dataset.from_tensors((X, Y))).batch_size is None
    for layer in model.layers:
        np.testing.assert_allclose(
            parts.gradients[layer], whole.gradients[layer], rtol=1e-4, atol=1e-6
        )
    assert report(model, (X,)).scaled_flops == pytest.approx(
        report(model, (X,), batch_size=60).scaled_flops
    )


def test_the_model_is_traced_once_for_that():
    calls = []

    class Seen(keras.Layer):
        def call(self, x):
            calls.append(x.shape)
            return x

    model = keras.Sequential([keras.Input((8,)), Seen(), GrowableDense(2)])
    before = len(calls)
    for _ in range(3):
        assert fitting_batch_size(model, (X, Y), None, True) == 1000
    assert len(calls) == before + 1


def test_data_that_does_not_fit_is_refused_where_it_is_read():
    model = _dense()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="The model could not be run on the data"):
        GradientMeter().measure(model, (np.zeros((4, 5), "float32"), Y[:4]))
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        GradientMeter(batch_size=0).measure(model, (X, Y))
