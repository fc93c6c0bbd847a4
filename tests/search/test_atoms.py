"""Atoms are ranked by the norms of their connections' numbers, tile by tile as in one array."""

import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow.policies.statistics import Gradient
from keras_grow.search.atoms import (
    AtomArray,
    connections_of,
    over_atoms,
    root_mean_square,
    splits_atoms,
)
from keras_grow.search.tiled_array import FactoredArray
from keras_grow.search.tiled_search import TiledSearch, best_dormant


@pytest.fixture
def factors():
    random = np.random.default_rng(0)
    return [tf.constant(random.normal(size=(size, 30))) for size in (40, 24)]


def _norms(array, size):
    array = np.asarray(array)
    return np.sqrt(np.mean(np.square(array.reshape(*array.shape[:-1], -1, size)), axis=-1))


def test_an_atom_has_the_root_mean_square_of_its_connections(factors):
    gradient = tf.matmul(*factors, transpose_b=True)
    atoms = AtomArray(FactoredArray(*factors), 4)
    expected = _norms(gradient, 4)
    rows, columns = tf.constant([3, 0, 39], tf.int64), tf.constant([5, 1], tf.int64)
    (tile,) = atoms.tiles([(rows, columns)])
    np.testing.assert_allclose(tile, expected[np.ix_(rows, columns)], rtol=1e-12)
    everywhere = tf.range(40 * 6, dtype=tf.int64)
    np.testing.assert_allclose(atoms.at(everywhere), expected.reshape(-1), rtol=1e-12)
    bounds = np.outer(atoms.row_norms, atoms.column_norms)
    assert np.all(expected <= bounds * (1 + 1e-12))


def test_the_best_dormant_atoms_are_those_of_largest_norm(factors):
    expected = _norms(tf.matmul(*factors, transpose_b=True), 4).reshape(-1)
    active = np.sort(np.random.default_rng(1).choice(240, 50, replace=False))
    expected[active] = -1
    found = best_dormant(
        (40, 6),
        tf.constant(active),
        17,
        keras_grow.scores.GradientMagnitude(),
        {Gradient(): AtomArray(FactoredArray(*factors), 4)},
        search=TiledSearch(tile_shape=(7, 2)),
    )
    np.testing.assert_array_equal(found.indices, np.sort(np.argsort(-expected)[:17]))


def test_what_is_the_same_for_all_units_stays_itself():
    of_inputs = tf.constant([[-2.0], [3.0]])
    assert over_atoms(of_inputs, 4) is of_inputs
    np.testing.assert_allclose(
        over_atoms(tf.constant([3.0, -4.0, 0.0, 1.0]), 2), [12.5**0.5, 0.5**0.5]
    )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_squares_do_not_leave_the_range_of_the_type(scale):
    values = tf.constant([3.0, 4.0, 0.0, 0.0]) * scale
    np.testing.assert_allclose(root_mean_square(values, 2), [12.5**0.5 * scale, 0.0], rtol=1e-6)


def test_nan_and_infinity_are_not_hidden():
    values = tf.constant([np.nan, 1.0, np.inf, 1.0, 2.0, 2.0])
    assert np.isfinite(root_mean_square(values, 2)).tolist() == [False, False, True]


def test_parts_of_atoms_are_told_from_whole_ones():
    whole = connections_of(tf.constant([0, 3, 7], tf.int64), 4)
    assert whole.numpy().tolist() == [0, 1, 2, 3, 12, 13, 14, 15, 28, 29, 30, 31]
    assert not splits_atoms(tf.random.shuffle(whole), 4)
    assert not splits_atoms(whole[:0], 4)
    for part in (whole[1:], whole[:-4][::2], whole[2:10]):
        assert splits_atoms(part, 4)
