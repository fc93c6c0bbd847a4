"""Behind BatchNormalization, pruning ranks the weights of the folded network."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableDense,
    SparseDense,
    WeightNormDense,
    grow,
    growable_layers,
    make_sparse,
    prune,
    scores,
)
from keras_grow.policies.statistics import Gradient, OutputScale
from keras_grow.structure.graph import Graph


def _network(layer_class=GrowableDense, **arguments):
    """Two layers, the first behind a BatchNormalization with a history."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layer_class(8, use_bias=False, name="first", **arguments),
            keras.layers.BatchNormalization(name="normalization"),
            keras.layers.Activation("relu"),
            layer_class(4, name="second", **arguments),
        ]
    )
    random = np.random.default_rng(3)
    layer = model.get_layer("normalization")
    layer.gamma.assign(random.normal(size=8))
    layer.beta.assign(random.normal(size=8))
    layer.moving_mean.assign(random.normal(size=8))
    layer.moving_variance.assign(random.uniform(0.1, 4.0, size=8))
    return model


def _folded(model):
    """The same function without normalization, folded by hand."""
    normalization = model.get_layer("normalization")
    deviation = np.sqrt(normalization.moving_variance.numpy() + normalization.epsilon)
    scale = normalization.gamma.numpy() / deviation
    folded = keras.Sequential(
        [
            keras.Input((6,)),
            GrowableDense(8, "relu", name="first"),
            GrowableDense(4, name="second"),
        ]
    )
    folded.layers[0].kernel.assign(model.get_layer("first").effective_kernel() * scale)
    bias = normalization.beta.numpy() - scale * normalization.moving_mean.numpy()
    folded.layers[0].bias.assign(bias)
    folded.layers[1].kernel.assign(model.get_layer("second").effective_kernel())
    folded.layers[1].bias.assign(model.get_layer("second").bias)
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    np.testing.assert_allclose(folded(x), model(x), rtol=0, atol=1e-5)
    return folded


def _active(model):
    return [layer.active_connections()[0].numpy() for layer in growable_layers(model)]


@pytest.mark.parametrize("layer_class", [GrowableDense, WeightNormDense])
@pytest.mark.parametrize("per_layer", [False, True])
def test_pruning_by_effective_weight_is_pruning_the_folded_network(layer_class, per_layer):
    model = _network(layer_class)
    folded = _folded(model)
    amount = {"count": 15, "per_layer": per_layer}
    prune(model, score=scores.EffectiveMagnitude(), **amount)
    prune(folded, **amount)
    for ours, of_folded in zip(_active(model), _active(folded), strict=True):
        np.testing.assert_array_equal(ours, of_folded)


def test_by_plain_magnitude_other_connections_are_pruned():
    model = _network()
    folded = _folded(model)
    prune(model, count=30)
    prune(folded, count=30)
    assert any(not np.array_equal(a, b) for a, b in zip(_active(model), _active(folded)))


def test_sparse_layers_prune_as_masked_ones_do():
    model = _network()
    sparse = make_sparse(model)
    for each in (model, sparse):
        prune(each, count=40, score=scores.EffectiveMagnitude())
    assert isinstance(sparse.get_layer("first"), SparseDense)
    for masked, of_sparse in zip(_active(model), _active(sparse), strict=True):
        np.testing.assert_array_equal(masked, of_sparse)


def test_a_sparse_layer_shows_the_scale_to_scores_when_it_grows(blobs):
    class ScaledGradient(scores.Score):
        """The gradient with respect to the folded weight."""

        statistics = (Gradient(), OutputScale())

        def __call__(self, connections):
            return tf.abs(connections[Gradient()] / connections[OutputScale()])

    x, labels = blobs
    data = x[:, :6], keras.utils.to_categorical(labels, 4)
    model = _network(initial_density=0.3, seed=1)
    sparse = make_sparse(model, capacity=1.0)
    for each in (model, sparse):
        each.compile("sgd", "mse")
        grow(each, data, count=10, score=ScaledGradient())
    for masked, of_sparse in zip(_active(model), _active(sparse), strict=True):
        np.testing.assert_array_equal(masked, of_sparse)


def test_only_a_normalization_that_reads_the_units_themselves_scales_them():
    activated = keras.Sequential(
        [
            keras.Input((6,)),
            GrowableDense(3, "relu"),
            keras.layers.BatchNormalization(),
            GrowableDense(2),
        ]
    )
    activated.layers[1].moving_variance.assign([4.0, 4.0, 4.0])
    for scale in OutputScale().look_up(activated, growable_layers(activated), Graph).values():
        assert (scale.numpy() == 1).all()
    unscaled = _network()
    unscaled.get_layer("normalization").gamma = None
    variance = unscaled.get_layer("normalization").moving_variance.numpy()
    scale = OutputScale().look_up(unscaled, growable_layers(unscaled), Graph)[
        unscaled.get_layer("first")
    ]
    np.testing.assert_allclose(scale, 1 / np.sqrt(variance + 1e-3), rtol=1e-6)
