"""Scores and start values at work in growth: what they decide, and failures that change nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import grow, growth_gradients, scores, start_values


class FirstInput(scores.Score):
    """Prefers the connections of input 0; measures nothing."""

    def __call__(self, connections):
        return tf.one_hot(tf.zeros(connections.weight.shape[1], tf.int32), 8, axis=0)


class Halves(start_values.StartValue):
    def __call__(self, connections):
        assert not connections.active.numpy().any()
        return tf.fill(connections.weight.shape, 0.5)


def test_a_score_and_a_start_value_of_the_users_own_decide(classifier):
    hidden = classifier.get_layer("hidden")
    before = hidden.effective_kernel().numpy()
    dormant = np.flatnonzero(~hidden.kernel_mask.numpy()[0])
    record = grow(
        classifier, count=len(dormant), layers=[hidden], score=FirstInput(), start_value=Halves()
    )
    assert record.loss is None
    np.testing.assert_array_equal(record.layers[0].indices, dormant)
    before[0, dormant] = 0.5
    np.testing.assert_array_equal(hidden.effective_kernel(), before)


def test_a_descent_step_starts_connections_down_their_gradient(blobs, classifier):
    gradients = growth_gradients(classifier, blobs)
    kernels = {layer: layer.effective_kernel().numpy() for layer in gradients}
    record = grow(classifier, blobs, count=40, start_value=start_values.DescentStep(0.01))
    for change, (layer, gradient) in zip(record.layers, gradients.items(), strict=True):
        expected, grown = kernels[layer].copy(), change.indices.numpy()
        expected.flat[grown] = -0.01 * gradient.numpy().flat[grown]
        np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=1e-5, atol=1e-9)


class NotFinite(start_values.StartValue):
    def __call__(self, connections):
        is_last = connections.layer_index == 1
        return tf.fill(connections.weight.shape, np.nan if is_last else 1.0)


class TooLarge(start_values.StartValue):
    """More than a weight-normalized layer, the last, has room for."""

    def __call__(self, connections):
        is_last = connections.layer_index == 1
        return tf.fill(connections.weight.shape, 3e38 if is_last else 1.0)


class TooFew(start_values.StartValue):
    def __call__(self, connections):
        return tf.zeros(3)


class Diverged(scores.Score):
    def __call__(self, connections):
        return tf.fill(connections.weight.shape, np.nan if connections.layer_index == 1 else 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start_value": NotFinite()}, "NaN or infinite entries"),
        ({"start_value": TooLarge()}, "keeps the length of each unit's weights"),
        ({"start_value": TooFew()}, "one finite weight per connection"),
        ({"score": Diverged()}, "Scores must be finite"),
        ({"data": (np.full((4, 8), np.nan), np.zeros(4))}, "must be finite"),
        ({"data": (np.ones((4, 7)), np.zeros(4))}, "could not be run on the data"),
        ({"data": None}, "data=None"),
    ],
)
def test_growth_that_fails_changes_nothing(blobs, classifier, arguments, words, snapshot):
    classifier.fit(*blobs, verbose=0)
    before = snapshot(classifier)
    with pytest.raises(ValueError, match=words):
        grow(classifier, **{"data": blobs, "count": 20, "per_layer": True} | arguments)
    snapshot.assert_same(classifier, before)


class WithoutConfiguration(keras.optimizers.SGD):
    def __init__(self, rate):
        super().__init__(rate, momentum=0.9)


def test_an_optimizer_that_no_fresh_slots_can_be_had_of_is_refused_before_growth(
    blobs, classifier, snapshot
):
    classifier.compile(WithoutConfiguration(0.1), classifier.loss)
    classifier.fit(*blobs, verbose=0)
    before = snapshot(classifier)
    with pytest.raises(ValueError, match="slots can't start afresh"):
        grow(classifier, blobs, count=5)
    snapshot.assert_same(classifier, before)
