"""Growth from a random sample of dormant connections."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import SampledSearch, drop_and_grow, grow, sparse_training


def test_a_draw_is_of_dormant_connections_each_once_and_even():
    random = np.random.default_rng(0)
    active = np.sort(random.choice(40, 15, replace=False))
    times = np.zeros(40)
    for step in range(2000):
        drawn = SampledSearch(ratio=0.4, seed=5).draw(active, 40, 2, layer_index=1, step=step)
        assert len(drawn) == 6
        assert np.all(np.diff(drawn) > 0)
        times[drawn] += 1
    assert times[active].max() == 0
    dormant = np.setdiff1d(np.arange(40), active)
    expected, deviation = 2000 * 6 / 25, np.sqrt(2000 * 6 / 25 * (1 - 6 / 25))
    assert np.all(np.abs(times[dormant] - expected) < 6 * deviation)


def test_a_draw_is_never_less_than_what_grows_nor_more_than_there_is():
    active = np.arange(10)
    assert len(SampledSearch(ratio=0.1).draw(active, 40, 20, 0, 0)) == 20
    np.testing.assert_array_equal(SampledSearch(ratio=99).draw(active, 40, 1, 0, 0), range(10, 40))


@pytest.mark.parametrize("sparse", [False, True])
def test_the_best_of_the_sample_grow(blobs, sparse):
    kind = keras_grow.SparseDense if sparse else keras_grow.GrowableDense
    room = {"capacity": 1.0} if sparse else {}
    layer = kind(30, "relu", initial_density=0.1, seed=0, **room)
    model = keras.Sequential([keras.Input((8,)), layer, keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    active, _ = layer.active_connections()
    search = SampledSearch(ratio=2.0, seed=3)
    drawn = search.draw(active.numpy(), 240, 10, layer_index=0, step=0).numpy()
    gradient = keras_grow.growth_gradients(model, blobs)[layer]
    promises = np.abs(gradient.at(drawn) if sparse else gradient.numpy().ravel()[drawn])
    record = grow(model, blobs, count=10, search=search)
    best = np.sort(drawn[np.argsort(-promises, kind="stable")[:10]])
    np.testing.assert_array_equal(record.layers[0].indices, best)
    assert not record.is_complete


def test_what_is_dropped_may_be_drawn_again(blobs):
    layer = keras_grow.GrowableDense(5, initial_density=0.95, seed=0)
    model = keras.Sequential([keras.Input((8,)), layer])
    record = drop_and_grow(
        model, fraction=1.0, method=sparse_training.SET(), search=SampledSearch()
    )
    assert layer.num_active == 38
    assert record.count <= 2


@pytest.mark.parametrize("changes", [{"ratio": 0}, {"ratio": "1"}, {"seed": -1}, {"max_bytes": 0}])
def test_numbers_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        SampledSearch(**changes)
