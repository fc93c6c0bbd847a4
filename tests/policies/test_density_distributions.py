"""How a total density is shared among layers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.densities import (
    ErdosRenyi,
    Uniform,
    exact_count,
    exact_counts,
    seed_evenly,
)

_SHAPES = st.lists(
    st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5
)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1), _SHAPES)
def test_erdos_renyi_spends_the_whole_budget_in_proportion_to_the_kernels_sides(density, shapes):
    densities = ErdosRenyi(density)(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    assert all(0 <= d <= 1 for d in densities)
    budget = density * sum(sizes)
    assert sum(d * n for d, n in zip(densities, sizes)) == pytest.approx(budget, rel=1e-9)
    total = sum(exact_count(d, n) for d, n in zip(densities, sizes))
    assert abs(total - budget) <= len(shapes) / 2 + 1e-6
    # The constant of proportion is one for all layers but the full ones, which deserve more.
    factors = [d * n / sum(shape) for d, n, shape in zip(densities, sizes, shapes)]
    open_factors = [f for f, d in zip(factors, densities) if d < 1]
    if open_factors:
        assert max(open_factors) == pytest.approx(min(open_factors), rel=1e-9)
        assert all(f <= open_factors[0] * (1 + 1e-9) for f, d in zip(factors, densities) if d == 1)


def test_erdos_renyi_of_lenet_300_100():
    # (784 + 300, 300 + 100, 100 + 10) share 10% of 266,200 as 1084 : 400 : 110, and the last
    # would get 1837 of its 1000 connections: it is full, and the rest is shared anew.
    densities = ErdosRenyi(0.1)([(784, 300), (300, 100), (100, 10)])
    rest = 26_620 - 1000
    expected = [rest * 1084 / 1484 / 235_200, rest * 400 / 1484 / 30_000, 1.0]
    np.testing.assert_allclose(densities, expected, rtol=1e-12)


def test_erdos_renyi_counts_all_four_sides_of_a_convolution_kernel():
    densities = ErdosRenyi(0.1)([(3, 3, 8, 16), (3, 3, 16, 16)])
    assert densities[0] / densities[1] == pytest.approx((30 / 1152) / (38 / 2304))


def test_layers_fill_up_one_after_the_other():
    # The sides over the size: 2, 1.25, 0.4. At 0.9 of 121 the second round fills another layer.
    shapes = [(1, 1), (4, 1), (10, 10)]
    assert ErdosRenyi(0.9)(shapes)[:2] == [1.0, 1.0]
    assert ErdosRenyi(0.9)(shapes)[2] == pytest.approx((0.9 * 105 - 5) / 100)
    assert ErdosRenyi(1.0)(shapes) == [1.0, 1.0, 1.0]
    assert ErdosRenyi(0.0)(shapes) == [0.0, 0.0, 0.0]


def test_uniform_gives_every_layer_the_same_density():
    assert Uniform(0.3)([(3, 4), (5, 6), (3, 3, 2, 2)]) == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("kind", [Uniform, ErdosRenyi])
def test_a_total_density_out_of_range_is_refused(kind):
    with pytest.raises(ValueError, match="must be a number from 0"):
        kind(1.5)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.3, 1.0]), st.integers(1, 60)), min_size=1))
def test_counts_have_the_total_of_the_nearest_integers_and_no_layer_is_empty(layers):
    of_layers, sizes = zip(*layers)
    counts = exact_counts(of_layers, sizes)
    nearest = [exact_count(d, n) for d, n in layers]
    assert all((count > 0) == (d > 0) for count, d in zip(counts, of_layers))
    num_wanted = sum(d > 0 for d in of_layers)
    assert sum(counts) == max(sum(nearest), num_wanted)
    # Only what the layers that had none got is missing elsewhere.
    num_lifted = sum(count > n for count, n in zip(counts, nearest))
    assert sum(max(0, n - count) for count, n in zip(counts, nearest)) <= num_lifted


def test_layers_that_stay_as_they_are_give_nothing():
    # Of 40, 30 and 4 connections at 10%: 4, 3 and 1, of which the largest would give one.
    assert exact_counts([0.1] * 3, [40, 30, 4]) == [3, 3, 1]
    assert exact_counts([0.1] * 3, [40, 30, 4], most=[2, 30, 4]) == [2, 2, 1]
    assert exact_counts([0.1] * 3, [40, 30, 4], least=[4, 0, 0]) == [4, 2, 1]
    assert exact_counts([0.1] * 3, [40, 30, 4], most=[40, 30, 0]) == [4, 3, 0]
    assert exact_counts([0.1] * 2, [4, 4]) == [1, 1]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 37, 100])
def test_seeds_spread_evenly_lead_into_all_units_alike(count):
    axes = KernelAxes((10, 10))
    connections = seed_evenly(axes, count, seed=0)
    assert len(np.unique(connections)) == count
    counts = axes.count_by_unit(connections)
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(seed_evenly(axes, count, seed=0), connections)
    assert np.all(np.diff(connections) > 0)
