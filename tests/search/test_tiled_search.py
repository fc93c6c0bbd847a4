"""The search by tiles finds what a sort of all scores would."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_grow import TiledSearch, scores
from keras_grow.measuring.activities import RecomputedArray
from keras_grow.policies.statistics import Gradient, InputRMS
from keras_grow.search.tiled_array import FactoredArray
from keras_grow.search.tiled_search import best_dormant as search_for


def best_dormant(shape, active, count, score, *, gradient=None, statistics=(), **settings):
    statistics = dict(statistics) | ({} if gradient is None else {Gradient(): gradient})
    return search_for(shape, active, count, score, statistics, **settings)


def _factored(x, d):
    return FactoredArray(tf.constant(x), tf.constant(d))


def _recomputed(x, d, tiles_at_once=3):
    """The same gradient from passes over the samples, in batches of 2."""

    def replay(consume):
        for start in range(0, x.shape[1], 2):
            consume(*(tf.constant(a[:, start : start + 2].T) for a in (x, d)))

    norms = [tf.constant(np.sqrt(np.square(a).sum(axis=1))) for a in (x, d)]
    return RecomputedArray(*norms, x.shape[1], replay, tiles_at_once)


def _by_sorting(all_scores, active, count):
    """Indices of the best, ascending; ties go to the lower."""
    dormant = np.setdiff1d(np.arange(all_scores.size), active)
    flat = all_scores.reshape(-1)
    return np.sort(dormant[np.lexsort((dormant, -flat[dormant]))][:count])


@st.composite
def _problem(draw):
    num_inputs, num_units, samples = (draw(st.integers(1, 13)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    # Few different integers: sums are exact, and ties abound.
    largest = draw(st.integers(0, 3))
    x, d = (
        random.integers(-largest, largest + 1, size=(size, samples)).astype("float32")
        for size in (num_inputs, num_units)
    )
    total = num_inputs * num_units
    active = np.sort(random.choice(total, draw(st.integers(0, total)), replace=False))
    return x, d, active, draw(st.integers(0, total + 2))


@settings(max_examples=200, deadline=None)
@given(_problem(), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.booleans())
def test_the_best_dormant_are_those_of_a_sort(problem, tile_shape, recompute):
    x, d, active, count = problem
    gradient = (_recomputed if recompute else _factored)(x, d)
    found = best_dormant(
        (len(x), len(d)),
        active,
        count,
        scores.GradientMagnitude(),
        gradient=gradient,
        search=TiledSearch(tile_shape=tile_shape),
    )
    expected = _by_sorting(np.abs(x @ d.T), active, count)
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.scores, np.abs(x @ d.T).reshape(-1)[expected])
    assert found.is_complete


def _activities(random, skew, shape=(150, 230), samples=40):
    """Normal activities; with a skew, a few inputs and units have most of the norm."""
    return tuple(
        (random.normal(size=(size, samples)) * random.gamma(1 / skew, size=(size, 1)))
        for size in shape
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("skew", [0.01, 1, 10])
def test_floats_give_the_best_up_to_the_order_of_summation(dtype, skew):
    random = np.random.default_rng(0)
    x, d = (a.astype(dtype) for a in _activities(random, skew))
    active = np.sort(random.choice(150 * 230, 3000, replace=False))
    search = TiledSearch(tile_shape=(16, 32))
    found = best_dormant(
        (150, 230), active, 500, scores.GradientMagnitude(), gradient=_factored(x, d), search=search
    )
    magnitudes = np.abs(x.astype("float64") @ d.T.astype("float64"))
    best = np.sort(magnitudes.reshape(-1)[_by_sorting(magnitudes, active, 500)])
    np.testing.assert_allclose(
        np.sort(found.scores), best, rtol=1e-4 if dtype == "float32" else 1e-12
    )
    assert len(np.unique(found.indices)) == 500
    assert not np.isin(found.indices, active).any()


class _CountingGradient(FactoredArray):
    num_tiles = num_entries = 0

    def tiles(self, blocks):
        self.num_tiles += len(blocks)
        self.num_entries += sum(len(rows) * len(columns) for rows, columns in blocks)
        return super().tiles(blocks)


def test_tiles_that_cannot_hold_one_of_the_best_are_not_computed():
    random = np.random.default_rng(0)
    x, d = (tf.constant(a) for a in _activities(random, skew=10))
    gradient = _CountingGradient(x, d)
    search = TiledSearch(tile_shape=(16, 16))
    best_dormant((150, 230), [], 100, scores.GradientMagnitude(), gradient=gradient, search=search)
    assert 0 < gradient.num_tiles < 0.3 * 10 * 15


def test_tiles_are_cut_to_what_competes_without_losing_any_of_the_best():
    random = np.random.default_rng(0)
    # Integers, so that sums are exact; most of the norm is in few inputs, units and samples.
    x, d = (
        np.round(4 * random.normal(size=(size, 1)) ** 4 * random.normal(size=(size, 6)))
        for size in (700, 900)
    )
    x, d = x.astype("float32"), (d * [1, 1, 0, 0, 8, 0]).astype("float32")
    all_scores = np.abs(x @ d.T)
    for search in (TiledSearch(tile_shape=(256, 256)), TiledSearch(tile_shape=(700, 100))):
        gradient = _CountingGradient(tf.constant(x), tf.constant(d))
        active = np.sort(random.choice(700 * 900, 9000, replace=False))
        found = best_dormant(
            (700, 900), active, 300, scores.GradientMagnitude(), gradient=gradient, search=search
        )
        expected = _by_sorting(all_scores, active, 300)
        np.testing.assert_array_equal(found.indices, expected)
        np.testing.assert_array_equal(found.scores, all_scores.reshape(-1)[expected])
        assert gradient.num_entries < 0.4 * 700 * 900


class _CappedGradient(scores.Score):
    "Grows with |gradient| in steps, so that different gradients tie."

    statistics = (Gradient(),)
    increases_with_gradient = True

    def __call__(self, connections):
        return tf.minimum(tf.floor(tf.abs(connections[Gradient()]) / 2), 3)


@settings(max_examples=100, deadline=None)
@given(_problem(), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_different_gradients_of_one_score_are_ties(problem, tile_shape):
    x, d, active, count = problem
    search = TiledSearch(tile_shape=tile_shape)
    found = best_dormant(
        (len(x), len(d)), active, count, _CappedGradient(), gradient=_factored(x, d), search=search
    )
    all_scores = np.minimum(np.floor(np.abs(x @ d.T) / 2), 3)
    expected = _by_sorting(all_scores, active, count)
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.scores, all_scores.reshape(-1)[expected])


def test_the_bound_holds_and_is_close_where_few_samples_carry_the_loss():
    random = np.random.default_rng(0)
    x, d = random.normal(size=(40, 200)), random.normal(size=(50, 200))
    d[:, 5:] *= 1e-3
    d[:, 7] = 0
    gradient = _factored(x, d)
    bounds = np.outer(gradient.row_norms, gradient.column_norms)
    plain = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(d, axis=1))
    assert np.all(np.abs(x @ d.T) <= bounds)
    assert bounds.mean() < 0.3 * plain.mean()


def test_the_bound_holds_for_numbers_whose_squares_float32_cannot_hold():
    random = np.random.default_rng(0)
    x, d = (random.normal(size=(size, 5)).astype("float32") for size in (30, 40))
    gradient = _factored(1e12 * x, 1e-25 * d)
    found = best_dormant(
        (30, 40),
        [],
        20,
        scores.GradientMagnitude(),
        gradient=gradient,
        search=TiledSearch(tile_shape=(4, 4)),
    )
    best = np.sort(np.abs(x.astype("float64") @ d.T.astype("float64")).reshape(-1))[:-21:-1]
    np.testing.assert_allclose(np.sort(found.scores)[::-1], 1e-13 * best, rtol=1e-4)


def test_a_score_that_promises_no_bound_sees_every_tile():
    class Eccentric(scores.Score):
        statistics = (Gradient(), InputRMS())

        def __call__(self, connections):
            return -tf.abs(connections[Gradient()]) + connections[InputRMS()]

    random = np.random.default_rng(0)
    x, d = _activities(random, skew=10)
    rms = np.linspace(0, 5, 150)
    found = best_dormant(
        (150, 230),
        [],
        100,
        Eccentric(),
        gradient=_factored(x, d),
        statistics={InputRMS(): tf.constant(rms)[:, None]},
        search=TiledSearch(tile_shape=(16, 32)),
    )
    expected = _by_sorting(rms[:, None] - np.abs(x @ d.T), [], 100)
    np.testing.assert_array_equal(found.indices, expected)


def test_random_scores_need_no_gradient_and_differ_between_tiles():
    search = TiledSearch(tile_shape=(7, 11))
    found = [
        best_dormant((40, 50), [5], 400, scores.Random(seed), step=3, search=search)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0].indices, found[1].indices)
    assert np.any(found[0].indices != found[2].indices)
    assert len(np.unique(found[0].scores)) == 400
    # A fifth of all: about a fifth of each half.
    assert 150 < np.count_nonzero(found[0].indices < 1000) < 250


def test_a_score_that_needs_no_gradient_has_none_computed():
    gradient = _CountingGradient(tf.ones((40, 3)), tf.ones((50, 3)))
    alone, beside = (
        best_dormant((40, 50), [], 9, scores.Random(0), gradient=g) for g in (None, gradient)
    )
    np.testing.assert_array_equal(alone.indices, beside.indices)
    assert gradient.num_tiles == 0


def test_an_l1_penalty_lowers_the_scores():
    x, d = _activities(np.random.default_rng(0), skew=1)
    plain, penalized = (
        best_dormant(
            (150, 230), [], 50, scores.GradientMagnitude(), gradient=_factored(x, d), l1=l1
        )
        for l1 in (0.0, 0.5)
    )
    np.testing.assert_array_equal(plain.indices, penalized.indices)
    np.testing.assert_allclose(penalized.scores, plain.scores - 0.5)


def test_when_the_time_is_over_the_best_found_so_far_come_back_and_say_so():
    x, d = _activities(np.random.default_rng(0), skew=1)
    search = TiledSearch(max_seconds=1e-9, tile_shape=(16, 16))
    found = best_dormant(
        (150, 230), [3], 100, scores.GradientMagnitude(), gradient=_factored(x, d), search=search
    )
    assert not found.is_complete
    assert len(found.indices) == 100
    magnitudes = np.abs(x @ d.T).reshape(-1)
    np.testing.assert_allclose(found.scores, magnitudes[found.indices.numpy()])
    # The first tile is the most promising one.
    best = found.indices[np.argmax(found.scores)]
    assert best == np.argmax(np.where(np.arange(150 * 230) == 3, 0, magnitudes))


def test_ties_do_not_pile_up():
    """All scores are 0: every tile brings candidates, and the first indices win."""
    gradient = _CountingGradient(tf.zeros((300, 5)), tf.ones((400, 5)))
    search = TiledSearch(tile_shape=(32, 32))
    found = best_dormant(
        (300, 400), [0, 2], 7, scores.GradientMagnitude(), gradient=gradient, search=search
    )
    np.testing.assert_array_equal(found.indices, [1, 3, 4, 5, 6, 7, 8])
    assert gradient.num_tiles == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    x, d = _activities(np.random.default_rng(0), skew=1)
    x[3, 2] = bad
    with pytest.raises(ValueError, match="Scores must be finite"):
        best_dormant((150, 230), [], 5, scores.GradientMagnitude(), gradient=_factored(x, d))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bytes": 0}, "`max_bytes` must be positive. Received: max_bytes=0"),
        ({"max_seconds": -1.0}, "`max_seconds` must be positive"),
        ({"tile_shape": (0, 5)}, "two positive integers"),
        ({"tile_shape": (5,)}, "two positive integers"),
        ({"verbose": 2}, "`verbose` must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TiledSearch(**settings)


@pytest.mark.parametrize("make", [_factored, _recomputed])
def test_parts_of_a_gradient_are_those_of_the_whole(make):
    x, d = _activities(np.random.default_rng(0), skew=1)
    gradient, whole = make(x, d), x @ d.T
    assert gradient.shape == (150, 230)
    bounds = gradient.row_norms[:, None] * gradient.column_norms
    assert np.all(np.abs(whole) <= bounds.numpy() * (1 + 1e-12))
    blocks = [([3, 149, 0], [229]), (range(150), range(230))]
    blocks = [tuple(tf.constant(list(side), tf.int64) for side in block) for block in blocks]
    for (rows, columns), tile in zip(blocks, gradient.tiles(blocks), strict=True):
        np.testing.assert_allclose(tile, whole[np.ix_(rows, columns)], atol=1e-12)
    indices = tf.constant([0, 150 * 230 - 1, 777, 777], tf.int64)
    np.testing.assert_allclose(gradient.at(indices), whole.reshape(-1)[indices], atol=1e-12)
