"""The factors of a statistic, kept or computed again, are those of NumPy's product."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import SparseDense, TiledSearch
from keras_grow.measuring.activities import ActivityRecord, RecomputedArray
from keras_grow.measuring.hebbian import _Hebbian
from keras_grow.search.tiled_array import FactoredArray

NUM_INPUTS, NUM_UNITS, NUM_SAMPLES = 5, 4, 12


def _recorded(batches, search, *, num_layers=1):
    """The arrays of equal layers, and how often the data was passed over again."""
    layers = [SparseDense(NUM_UNITS, capacity=3) for _ in range(num_layers)]
    for layer in layers:
        layer.build((None, NUM_INPUTS))
    record = ActivityRecord(layers, [_Hebbian()], search)
    activities = [[[tuple(map(tf.constant, batch))]] * num_layers for batch in batches]
    for of_batch in activities:
        record.add(of_batch)
    passes = []

    def pass_over_data(consume):
        passes.append(1)
        for of_batch in activities:
            consume(of_batch)

    return [array for *_, array in record.arrays(NUM_SAMPLES, pass_over_data)], passes


def _batches(dtype="float64", scale=1.0):
    random = np.random.default_rng(0)
    x, d = (random.normal(size=(NUM_SAMPLES, size)) for size in (NUM_INPUTS, NUM_UNITS))
    x, d = x.astype(dtype), (d * scale).astype(dtype)
    # The last batch is smaller.
    return x, d, [(x[:5], d[:5]), (x[5:10], d[5:10]), (x[10:], d[10:])]


@pytest.fixture
def _float64():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(("max_bytes", "kind"), [(2**20, FactoredArray), (64, RecomputedArray)])
def test_it_is_the_mean_product_whether_its_factors_are_kept_or_computed_again(max_bytes, kind):
    x, d, batches = _batches()
    (array,), passes = _recorded(batches, TiledSearch(max_bytes=max_bytes, tile_shape=(2, 2)))
    expected = x.T @ d / NUM_SAMPLES
    assert type(array) is kind
    assert array.shape == expected.shape
    assert array.dtype == "float64"
    assert array.num_terms == NUM_SAMPLES
    blocks = [([0, 3], [2]), (range(NUM_INPUTS), range(NUM_UNITS))]
    blocks = [tuple(tf.constant(list(side), tf.int64) for side in block) for block in blocks]
    for (rows, columns), tile in zip(blocks, array.tiles(blocks), strict=True):
        np.testing.assert_allclose(tile, expected[np.ix_(rows, columns)], atol=1e-15)
    assert len(passes) == (kind is RecomputedArray)
    places = tf.constant([7, 19, 0], tf.int64)
    np.testing.assert_allclose(array.at(places), expected.reshape(-1)[places], atol=1e-15)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("max_bytes", [2**20, 64])
def test_its_bound_is_that_of_balanced_samples(max_bytes):
    x, d, batches = _batches()
    (array,), _ = _recorded(batches, TiledSearch(max_bytes=max_bytes, tile_shape=(2, 2)))
    scale = np.sqrt(np.linalg.norm(d, axis=1) / np.linalg.norm(x, axis=1))[:, None]
    bound = np.outer(np.linalg.norm(x * scale, axis=0), np.linalg.norm(d / scale, axis=0))
    np.testing.assert_allclose(
        np.outer(array.row_norms, array.column_norms), bound / NUM_SAMPLES, rtol=1e-12
    )


@pytest.mark.parametrize("max_bytes", [2**20, 64])
def test_its_bound_holds_where_squares_of_float32_are_zero(max_bytes):
    x, d, batches = _batches("float32", scale=1e-30)
    (array,), _ = _recorded(batches, TiledSearch(max_bytes=max_bytes, tile_shape=(2, 2)))
    bound = np.outer(array.row_norms, array.column_norms)
    whole = np.abs(x.T.astype("float64") @ d) / NUM_SAMPLES
    assert np.all(whole <= bound * (1 + 1e-5))
    assert bound.max() < 4 * whole.max()


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("num_layers", [1, 2])
def test_each_layer_may_keep_half_of_its_share(num_layers):
    _, _, batches = _batches()
    taken = (NUM_INPUTS + NUM_UNITS) * NUM_SAMPLES * 8
    enough = 2 * num_layers * taken
    for max_bytes, kind in ((enough, FactoredArray), (enough - 1, RecomputedArray)):
        search = TiledSearch(max_bytes=max_bytes, tile_shape=(2, 2))
        arrays, _ = _recorded(batches, search, num_layers=num_layers)
        assert [type(array) for array in arrays] == num_layers * [kind]
    # Tiles of 4 numbers.
    assert {array.tiles_at_once for array in arrays} == {(taken - 1) // (4 * 8)}


def test_a_tile_is_computed_even_where_none_fits():
    (array,), _ = _recorded(_batches("float32")[2], TiledSearch(max_bytes=1, tile_shape=(2, 2)))
    assert array.tiles_at_once == 1
