"""Patterns of active connections, against brute force."""

import itertools

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import patterns, prune, scores
from keras_grow.errors import NothingToChange
from keras_grow.kernel_axes import KernelAxes

_AXES = {
    "dense": KernelAxes((10, 3)),
    "convolution": KernelAxes((2, 2, 7, 3)),
    "groups": KernelAxes((2, 2, 3, 4), num_groups=2),
    "output of an attention": KernelAxes((2, 5, 3), inputs=(0, 1), units=(2,)),
}


def _by_place(axes):
    """The connections of each position and unit, by input."""
    every = np.arange(axes.size)
    places = zip(axes.positions_of(every), axes.units_of(every), axes.inputs_of(every), every)
    found = {}
    for position, unit, number, connection in sorted(tuple(map(int, p)) for p in places):
        found.setdefault((position, unit), {})[number] = connection
    return found


@pytest.mark.parametrize("axes", _AXES.values(), ids=_AXES)
@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4)])
def test_the_best_n_of_every_m_inputs_of_a_unit_stay(axes, n, m):
    random = np.random.default_rng(0)
    indices = np.flatnonzero(random.random(axes.size) < 0.8)
    worth = dict(zip(indices, random.permutation(len(indices)), strict=True))
    pattern = patterns.NM(n, m)
    goes = pattern.surplus(axes, indices, np.array(list(worth.values()), float))
    expected = set()
    for by_input in _by_place(axes).values():
        for start in range(0, axes.num_inputs, m):
            group = [by_input[i] for i in range(start, start + m) if i in by_input]
            active = sorted((c for c in group if c in worth), key=worth.get)
            expected |= set(active[: max(0, len(active) - n)])
    assert set(indices[goes]) == expected
    assert not pattern.holds(axes, indices)
    assert pattern.holds(axes, indices[~goes])


def test_of_equals_the_lower_index_goes():
    axes = KernelAxes((4, 2))
    goes = patterns.NM(2, 4).surplus(axes, np.arange(8), np.ones(8))
    np.testing.assert_array_equal(np.flatnonzero(goes), [0, 1, 2, 3])


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_the_blocks_of_largest_norm_stay(density):
    axes, random = KernelAxes((10, 6)), np.random.default_rng(1)
    kernel = random.random((10, 6)) * (random.random((10, 6)) < 0.9)
    indices = np.flatnonzero(kernel)
    pattern = patterns.Blocks(4, 3, density)
    goes = pattern.surplus(axes, indices, kernel.ravel()[indices])
    corners = list(itertools.product(range(0, 10, 4), range(0, 6, 3)))
    norms = {c: np.mean(kernel[c[0] : c[0] + 4, c[1] : c[1] + 3] ** 2) for c in corners}
    kept = sorted(norms, key=norms.get)[-round(density * len(corners)) :]
    expected = np.zeros((10, 6), bool)
    for down, across in kept:
        expected[down : down + 4, across : across + 3] = True
    np.testing.assert_array_equal(
        np.isin(np.arange(60), indices[~goes]), (expected & (kernel > 0)).ravel()
    )


def test_blocks_hold_where_all_of_them_is_active_or_none():
    axes = KernelAxes((4, 4))
    mask = np.kron([[1, 0], [0, 1]], np.ones((2, 2))).astype(bool)
    blocks = patterns.Blocks(2, 2, 0.5)
    assert blocks.holds(axes, np.flatnonzero(mask))
    mask[0, 0] = False
    assert not blocks.holds(axes, np.flatnonzero(mask))


@pytest.mark.parametrize(
    "kind", [keras_grow.GrowableDense, keras_grow.WeightNormDense, keras_grow.SparseDense]
)
def test_a_network_is_pruned_to_a_pattern_and_not_twice(kind):
    density = {"initial_density": 1.0}
    layers = [kind(8, name="a", **density), kind(4, name="b", **density)]
    model = keras.Sequential([keras.Input((12,)), *layers])
    record = prune(model, pattern=patterns.NM(2, 4))
    assert [layer.density for layer in layers] == [0.5, 0.5]
    assert record.count == (12 * 8 + 8 * 4) // 2
    for layer in layers:
        assert patterns.NM(2, 4).holds(layer.axes, layer.active_connections()[0].numpy())
    with pytest.raises(NothingToChange, match="lie in the pattern"):
        prune(model, pattern=patterns.NM(2, 4))


def test_a_score_says_what_stays_in_a_pattern(blobs, classifier):
    prune(classifier, pattern=patterns.NM(1, 2), score=scores.ActivationMagnitude(), data=blobs)
    for layer in keras_grow.growable_layers(classifier):
        assert patterns.NM(1, 2).holds(layer.axes, layer.active_connections()[0].numpy())


def test_what_is_no_pattern_is_refused(classifier):
    for wrong in ((2, 2), (0, 4), (3, 2)):
        with pytest.raises(ValueError, match="n"):
            patterns.NM(*wrong)
    with pytest.raises(ValueError, match="leaves no block"):
        patterns.Blocks(2, 2, 0.0)
    with pytest.raises(TypeError, match="pattern"):
        prune(classifier, pattern="2:4")
    with pytest.raises(ValueError, match="exactly one"):
        prune(classifier, pattern=patterns.NM(2, 4), density=0.1)
    shared = keras_grow.SparseDense(8, initial_density=0.5, group_size=4)
    model = keras.Sequential([keras.Input((4,)), shared])
    with pytest.raises(ValueError, match="come and go in groups"):
        prune(model, pattern=patterns.NM(2, 4))
