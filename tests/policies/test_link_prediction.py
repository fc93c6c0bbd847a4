"""Link prediction against its definition, path by path."""

import numpy as np
import pytest
import tensorflow as tf

from keras_grow import statistics
from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.topology import Topology
from keras_grow.search.topology_array import TopologyArray


def _community(adjacency, u, v):
    """All pairs of a unit t and an input z on paths u, t, z, v."""
    units = np.flatnonzero(adjacency[u])
    return [(t, z) for t in units for z in np.flatnonzero(adjacency[:, t]) if adjacency[z, v]]


def _outside(adjacency, paths):
    """1 + the links that lead out of the community, and 1 + those inside, of each of its nodes."""
    units, inputs = {t for t, _ in paths}, {z for _, z in paths}
    links = {}
    for z in inputs:
        inside = sum(adjacency[z, t] for t in units)
        links["input", z] = adjacency[z].sum() - inside, 1 + inside
    for t in units:
        inside = sum(adjacency[z, t] for z in inputs)
        links["unit", t] = adjacency[:, t].sum() - inside, 1 + inside
    return links


def ch2_l3n(adjacency, u, v):
    links = _outside(adjacency, _community(adjacency, u, v))
    return sum(inside / outside for outside, inside in links.values())


def ch3_l3p(adjacency, u, v):
    paths = _community(adjacency, u, v)
    links = _outside(adjacency, paths)
    return sum((links["unit", t][0] * links["input", z][0]) ** -0.5 for t, z in paths)


_PREDICTORS = [(statistics.CH2L3n(), ch2_l3n), (statistics.CH3L3p(), ch3_l3p)]


def _array(statistic, adjacency):
    axes = KernelAxes(adjacency.shape)
    return TopologyArray(statistic, Topology(axes, np.flatnonzero(adjacency)))


@pytest.mark.parametrize(("statistic", "expected"), _PREDICTORS)
@pytest.mark.parametrize("density", [0.05, 0.2, 0.6, 0.97])
def test_every_dormant_connection_gets_what_the_definition_says(statistic, expected, density):
    adjacency = np.random.default_rng(0).random((13, 11)) < density
    found = _array(statistic, adjacency).whole().numpy()
    for u, v in np.argwhere(~adjacency):
        assert found[u, v] == pytest.approx(expected(adjacency, u, v), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("statistic", "expected"), _PREDICTORS)
def test_parts_are_those_of_the_whole(statistic, expected, monkeypatch):
    monkeypatch.setattr("keras_grow.search.topology_array._ROWS", 4)
    random = np.random.default_rng(1)
    adjacency = random.random((13, 11)) < 0.3
    array = _array(statistic, adjacency)
    whole = array.whole().numpy()
    indices = random.permutation(143)[:50]
    np.testing.assert_allclose(array.at(tf.constant(indices)), whole.ravel()[indices], rtol=1e-6)
    blocks = [(random.permutation(13)[:5], random.permutation(11)[:3]) for _ in range(3)]
    tiles = array.tiles([tuple(map(tf.constant, block)) for block in blocks])
    for (rows, columns), tile in zip(blocks, tiles, strict=True):
        np.testing.assert_allclose(tile, whole[np.ix_(rows, columns)], rtol=1e-6)


@pytest.mark.parametrize(("statistic", "expected"), _PREDICTORS)
def test_where_no_path_leads_it_is_0(statistic, expected):
    adjacency = np.eye(4, dtype=bool)
    assert not np.any(_array(statistic, adjacency).whole().numpy()[~adjacency])
    assert not np.any(_array(statistic, adjacency & False).whole())


def test_a_convolution_reads_each_input_at_each_place_of_its_window():
    axes = KernelAxes((3, 3, 2, 5))
    topology = Topology(axes, np.array([0, 7]))
    assert topology.shape == (18, 5)
    np.testing.assert_array_equal(topology.neighbors(1, 0), [2])


def test_a_kernel_with_axes_behind_its_units_has_no_topology():
    with pytest.raises(ValueError, match="last axes are those of units"):
        Topology(KernelAxes((4, 3), inputs=(-1,), units=(-2,)), np.arange(3))
