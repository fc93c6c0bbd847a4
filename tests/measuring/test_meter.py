"""A meter used again: it traces once, and never measures what the model no longer is."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_grow import GradientMeter, GrowableDense, grow, growable_layers, growth_gradients


class CountsTraces(keras.layers.Layer):
    traces = 0

    def call(self, inputs):
        self.traces += 1
        return inputs


@pytest.fixture
def counting():
    layers = [
        GrowableDense(16, "tanh", initial_density=0.25),
        CountsTraces(),
        GrowableDense(3, initial_density=0.25),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_growing_again_with_one_meter_does_not_trace_again(counting, blobs):
    meter = GradientMeter(batch_size=40)
    # 96 samples in batches of 40 end with one of 16: a second trace, for any size.
    grow(counting, blobs, count=5, meter=meter)
    counter = counting.layers[1]
    traces = counter.traces
    for x, y in [blobs, (blobs[0][:50], blobs[1][:50])]:
        counting.optimizer.iterations.assign_add(1)
        grow(counting, (x, y), count=5, meter=meter)
    assert counter.traces == traces
    grow(counting, blobs, count=5)
    assert counter.traces > traces


def test_growth_does_not_trace_the_compiled_train_step_again(counting, blobs):
    counting.fit(*blobs, verbose=0)
    counter = counting.layers[1]
    for density in (0.4, 0.6):
        grow(counting, blobs, density=density)
        traces = counter.traces
        counting.fit(*blobs, verbose=0)
        assert counter.traces == traces


def test_a_meter_sees_weights_and_masks_as_they_are_now(float64, networks, assert_close):
    model, data = networks.weight_normalized()
    meter = GradientMeter()
    before = meter.measure(model, data)
    for weight in model.weights:
        if weight.dtype != "bool":
            weight.assign(weight + 0.1)
    model.layers[0].grow_connections(np.flatnonzero(~model.layers[0].kernel_mask.numpy())[:2])
    after = meter.measure(model, data)
    assert_close(after.gradients, growth_gradients(model, data), 1e-14)
    assert after.loss != before.loss


def test_a_meter_serves_one_model_after_the_other(float64, networks, assert_close):
    meter = GradientMeter()
    for build in (networks.sequential, networks.batch_normalized, networks.sequential):
        model, data = build()
        got = meter.measure(model, data).gradients
        assert list(got) == growable_layers(model)
        assert_close(got, growth_gradients(model, data), 1e-14)


@pytest.mark.parametrize("arguments", [{"loss": "mae"}, {"loss": "mse", "loss_weights": [3.0]}])
def test_a_meter_follows_a_model_that_is_compiled_anew(float64, networks, assert_close, arguments):
    model, data = networks.sequential()
    meter = GradientMeter()
    meter.measure(model, data)
    model.compile(model.optimizer, **arguments)
    assert_close(meter.measure(model, data).gradients, growth_gradients(model, data), 1e-14)


def test_a_meter_measures_only_the_layers_asked_for(float64, networks):
    model, data = networks.sequential()
    meter = GradientMeter()
    every = meter.measure(model, data).gradients
    last = growable_layers(model)[1]
    only = meter.measure(model, data, [last]).gradients
    assert list(only) == [last]
    np.testing.assert_allclose(only[last], every[last], rtol=1e-12)


def test_the_loss_is_the_mean_over_all_samples(float64):
    layer = GrowableDense(1, use_bias=False, initial_density=0.0)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile("sgd", "mse")
    measured = GradientMeter(batch_size=2).measure(
        model, (np.ones((3, 1)), np.arange(3.0)[:, None])
    )
    assert measured.loss == pytest.approx((0 + 1 + 4) / 3, rel=1e-15)
    assert measured.num_samples == 3


def test_stored_weights_that_are_not_finite_are_refused(networks):
    model, data = networks.sequential()
    model.layers[1].kernel.assign(ops.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="stores weights that are NaN or infinite"):
        growth_gradients(model, data)


def test_a_smaller_last_batch_is_no_second_trace(blobs, classifier):
    traces = []

    def loss(y_true, y_pred):
        traces.append(1)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    meter = GradientMeter(loss=loss, batch_size=36)
    for _ in range(2):
        meter.measure(classifier, blobs)
    assert len(traces) == 1
