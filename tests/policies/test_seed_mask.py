"""Seed masks: exact counts, units that are fed, the same on every machine."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.densities import check_density, exact_count, seed_mask

_SHAPES = st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple)
_SEEDS = st.integers(0, 2**32)


@settings(max_examples=200, deadline=None)
@given(_SHAPES, _SEEDS, st.data())
def test_a_seed_mask_has_the_exact_count_and_feeds_every_unit_where_that_allows(shape, seed, data):
    count = data.draw(st.integers(0, math.prod(shape)))
    mask = seed_mask(KernelAxes(shape), count, seed)
    assert mask.shape == shape
    assert mask.dtype == bool
    assert mask.sum() == count
    fan_in = mask.sum(axis=tuple(range(len(shape) - 1)))
    if count >= shape[-1]:
        assert fan_in.min() >= 1
    else:
        assert fan_in.max() <= 1
    np.testing.assert_array_equal(seed_mask(KernelAxes(shape), count, seed), mask)


def test_a_seed_gives_this_very_mask():
    golden = [
        [1, 1, 0, 1],
        [0, 1, 0, 1],
        [1, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 1, 1, 0],
    ]
    np.testing.assert_array_equal(seed_mask(KernelAxes((5, 4)), 9, seed=3), golden)


def test_seeds_differ_and_no_seed_follows_numpys_global_generator():
    masks = {seed_mask(KernelAxes((8, 8)), 20, seed).tobytes() for seed in range(20)}
    assert len(masks) == 20
    np.random.seed(5)
    first, second = seed_mask(KernelAxes((8, 8)), 20), seed_mask(KernelAxes((8, 8)), 20)
    assert (first != second).any()
    np.random.seed(5)
    np.testing.assert_array_equal(seed_mask(KernelAxes((8, 8)), 20), first)


def test_every_connection_is_active_equally_often():
    # 25 of 60 connections: each in 5/12 of 3000 masks, with a deviation of 0.009.
    share = np.mean([seed_mask(KernelAxes((10, 6)), 25, seed) for seed in range(3000)], axis=0)
    np.testing.assert_allclose(share, 25 / 60, atol=0.045)


@pytest.mark.parametrize(
    ("density", "num_connections", "count"),
    [
        (0, 10, 0),
        (1, 10, 10),
        (0.25, 10, 3),
        (0.24, 10, 2),
        (0.5, 3, 2),
        (0.1, 266_200, 26_620),
        (1.0, 2**53 - 1, 2**53 - 1),
        (0.5, 65_536**2, 2**31),
    ],
)
def test_an_exact_count_is_the_nearest_integer_and_halves_go_up(density, num_connections, count):
    assert exact_count(density, num_connections) == count


@given(st.floats(0, 1), st.integers(0, 10**12))
def test_an_exact_count_is_in_range_and_within_a_half_of_the_share(density, num_connections):
    count = exact_count(density, num_connections)
    assert isinstance(count, int)
    assert 0 <= count <= num_connections
    assert abs(count - density * num_connections) <= 0.5 + 1e-3


@pytest.mark.parametrize("density", [-0.1, 1.01, float("nan"), float("inf"), "0.5", None, True])
def test_densities_out_of_range_are_refused(density):
    with pytest.raises(ValueError, match="must be a number from 0"):
        check_density(density)
