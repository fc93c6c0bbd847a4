"""What one pass over the growth data measures."""

import keras
import numpy as np
import pytest

from keras_grow import GradientMeter, GrowableDense, growable_layers, growth_gradients
from keras_grow.policies.statistics import Gradient, InputRMS


def test_model_and_data_have_names_and_options_only_names(blobs, classifier):
    named = growth_gradients(model=classifier, data=blobs)
    for one, other in zip(named.values(), growth_gradients(classifier, blobs).values()):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match="positional"):
        growth_gradients(classifier, blobs, classifier.loss)


@pytest.mark.parametrize("batch_size", [None, 96, 40])
def test_the_mean_loss_is_that_of_evaluate(blobs, classifier, batch_size):
    meter = GradientMeter(batch_size=batch_size)
    expected = classifier.evaluate(*blobs, verbose=0)[0]
    assert meter.mean_loss(classifier, blobs) == pytest.approx(expected, rel=1e-5)
    measured = meter.measure(classifier, blobs)
    assert measured.loss == pytest.approx(expected, rel=1e-5)
    assert measured.num_samples == 96
    assert measured.batch_size == (batch_size or 96)


def test_statistics_of_inputs_alone_take_no_loss(blobs, classifier):
    measured = GradientMeter().measure(classifier, (blobs[0],), statistics=[InputRMS()])
    assert measured.loss is None
    hidden, classes = growable_layers(classifier)
    rms = np.sqrt(np.square(blobs[0]).mean(axis=0))[:, None]
    np.testing.assert_allclose(measured.values[hidden][InputRMS()], rms, rtol=1e-5)
    assert set(measured.values[classes]) == {InputRMS()}
    assert measured.num_positions == {hidden: 1, classes: 1}


def test_both_kinds_of_statistics_are_measured_in_one_pass(blobs, classifier):
    measured = GradientMeter().measure(classifier, blobs, statistics=[Gradient(), InputRMS()])
    gradients = growth_gradients(classifier, blobs)
    for layer in growable_layers(classifier):
        np.testing.assert_array_equal(measured.values[layer][Gradient()], gradients[layer])
        assert measured.values[layer][InputRMS()].shape == (layer.fan_in, 1)


def test_positions_are_vectors_that_a_layer_puts_out_per_sample():
    layer = GrowableDense(2)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    data = (np.ones((4, 5, 3), "float32"),)
    measured = GradientMeter().measure(model, data, statistics=[InputRMS()])
    assert measured.num_positions == {layer: 5}


def test_data_in_batches_has_no_size_of_its_own(blobs, classifier):
    halves = [(blobs[0][at : at + 48], blobs[1][at : at + 48]) for at in (0, 48)]
    measured = GradientMeter().measure(classifier, halves)
    assert measured.batch_size is None
    assert measured.num_samples == 96


def test_the_optimizer_of_a_compiled_model_counts_unless_another_is_given(classifier, blobs):
    """Its loss scale does: one that overflows at once is halved until it does not."""
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**120)
    expected = growth_gradients(classifier, blobs)
    classifier.compile(scaled, classifier.loss)
    for optimizer in (None, keras.optimizers.SGD()):
        measured = GradientMeter().measure(classifier, blobs, optimizer=optimizer)
        for layer, gradient in measured.gradients.items():
            np.testing.assert_allclose(gradient, expected[layer], rtol=1e-4, atol=1e-7)


def test_a_diverged_layer_is_named(blobs, classifier):
    x = blobs[0].copy()
    x[3, 2] = np.inf
    with pytest.raises(ValueError, match="Growth gradients must be finite.*in layer 'hidden'"):
        growth_gradients(classifier, (x, blobs[1]))
