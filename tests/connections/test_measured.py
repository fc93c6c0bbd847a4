"""Policies get the statistics that they name, of the data, of the model and of its connections."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GradientMeter, SparseDense, TiledSearch, growable_layers
from keras_grow.connections.measured import measure_statistics
from keras_grow.policies.link_prediction import CH2L3n
from keras_grow.policies.scores import Score
from keras_grow.policies.statistics import Gradient, InputRMS, MagnitudeSum


class _Names(Score):
    def __init__(self, *statistics):
        self.statistics = statistics

    def __call__(self, connections):
        return tf.zeros_like(connections.weight)


def _measured(model, data, *policies, **options):
    layers = growable_layers(model)
    options = {"meter": None, "optimizer": None, **options}
    return measure_statistics(model, data, layers, policies, **options)


def test_statistics_of_the_model_need_no_data(classifier):
    over = MagnitudeSum("inputs"), MagnitudeSum("units")
    measured, loss = _measured(classifier, None, _Names(over[0]), _Names(*over))
    assert loss is None
    for index, layer in enumerate(growable_layers(classifier)):
        found = measured[layer]
        assert found.layer_index == index
        assert found.statistics.keys() == set(over)
        kernel = np.abs(layer.effective_kernel())
        for statistic, axis in zip(over, (0, 1), strict=True):
            expected = kernel.sum(axis=axis, keepdims=True)
            spread = np.broadcast_to(found.statistics[statistic], kernel.shape)
            np.testing.assert_allclose(spread, expected + 0 * kernel, rtol=1e-5)


def test_those_of_all_kinds_are_measured_together(blobs, classifier):
    kinds = [Gradient(), InputRMS(), MagnitudeSum("inputs"), CH2L3n()]
    measured, loss = _measured(classifier, blobs, _Names(*kinds[:2]), _Names(*kinds[1:]))
    assert loss == pytest.approx(classifier.evaluate(*blobs, verbose=0)[0], rel=1e-5)
    gradients = GradientMeter().measure(classifier, blobs).gradients
    for layer, found in measured.items():
        assert found.statistics.keys() == set(kinds)
        np.testing.assert_allclose(found.statistics[Gradient()], gradients[layer], rtol=1e-5)
        seen = found.seen_by(_Names(CH2L3n()))
        assert list(seen.statistics) == [CH2L3n()]
        view = layer.view(seen)
        assert view[CH2L3n()].shape == layer.kernel_shape


def test_what_hangs_on_data_asks_for_them(classifier):
    with pytest.raises(ValueError, match="is measured on data. Received: data=None"):
        _measured(classifier, None, _Names(MagnitudeSum("inputs"), InputRMS()))


def test_the_time_of_a_search_is_shared_by_the_sparse_layers(classifier):
    search = TiledSearch(max_seconds=6.0)
    sparse = [SparseDense(4, capacity=6) for _ in range(3)]
    model = keras.Sequential([keras.Input((5,)), *sparse])
    for found in _measured(model, None, _Names(), search=search)[0].values():
        assert found.search.max_seconds == 2.0
    for found in _measured(classifier, None, _Names(), search=search)[0].values():
        assert found.search.max_seconds == 6.0
    for found in _measured(model, None, _Names())[0].values():
        assert found.search.max_seconds is None


def test_the_step_is_that_of_the_optimizer(classifier):
    optimizer = keras.optimizers.SGD()
    optimizer.iterations.assign(7)
    measured, _ = _measured(classifier, None, _Names(), optimizer=optimizer)
    assert {found.step for found in measured.values()} == {7}
