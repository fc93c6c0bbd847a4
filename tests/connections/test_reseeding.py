"""Other connections to start with."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import reseed, seeds


@pytest.mark.parametrize(
    "kind", [keras_grow.GrowableDense, keras_grow.WeightNormDense, keras_grow.SparseDense]
)
def test_a_layer_starts_with_what_the_seed_chose_and_weights_of_its_initializer(kind):
    layer = kind(
        30,
        initial_density=0.2,
        kernel_initializer=keras_grow.ActiveFanIn("he_normal"),
        name="hidden",
    )
    model = keras.Sequential([keras.Input((40,)), layer, keras.layers.Dense(3)])
    before = layer.num_active
    seed = seeds.ReceptiveField(0.2, seed=3)
    record = reseed(model, seed)
    connections, weights = layer.active_connections()
    np.testing.assert_array_equal(connections, seed(layer.axes, before))
    np.testing.assert_array_equal(record.layers[0].indices, connections)
    assert layer.num_active == before
    # He: a variance of 2 / fan-in, of 240 weights.
    assert abs(np.std(weights) - (2 / 8) ** 0.5) < 0.1
    assert np.all(np.isfinite(model(np.ones((2, 40)))))


class _TooFew(seeds.Seed):
    def __call__(self, kernel, count):
        return np.arange(count - 1)


class _Twice(seeds.Seed):
    def __call__(self, kernel, count):
        return np.zeros(count, np.int64)


@pytest.mark.parametrize(("seed", "message"), [(_TooFew(), "as many"), (_Twice(), "each connec")])
def test_a_wrong_seed_changes_nothing(classifier, seed, message):
    before = classifier.get_weights()
    with pytest.raises(ValueError, match=message):
        reseed(classifier, seed)
    for a, b in zip(classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_no_seed_is_refused(classifier):
    with pytest.raises(TypeError, match="seed"):
        reseed(classifier, 3)


def test_kernels_in_other_layers_are_drawn_by_their_initializers():
    recurrent = keras.layers.LSTM(5, recurrent_initializer="he_normal")
    growable = keras_grow.make_growable(keras.Sequential([keras.Input((4, 3)), recurrent]))
    keras_grow.prune(growable, density=0.5)
    before = [layer.num_active for layer in keras_grow.growable_layers(growable)]
    reseed(growable, seeds.Even(4))
    after = [layer.num_active for layer in keras_grow.growable_layers(growable)]
    assert after == before


def test_a_kernel_that_is_drawn_as_a_whole_is_refused_in_words():
    growable = keras_grow.make_growable(
        keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(5)])
    )
    keras_grow.prune(growable, density=0.5)
    before = growable.get_weights()
    with pytest.raises(ValueError, match="weights one by one"):
        reseed(growable, seeds.Even())
    for a, b in zip(growable.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
