"""Seeds by receptive field and by correlation."""

import numpy as np
import pytest

from keras_grow import seeds
from keras_grow.kernel_axes import KernelAxes


def test_without_randomness_each_unit_reads_the_nearest_inputs_on_a_ring():
    chosen = seeds.ReceptiveField(0.0)(KernelAxes((8, 4)), 12)
    inputs, units = np.divmod(chosen, 4)
    # Units stand between inputs 0 and 1, 2 and 3, ...; of equals the lower input is nearer.
    for unit, expected in enumerate([{0, 1, 2}, {1, 2, 3}, {3, 4, 5}, {0, 6, 7}]):
        assert set(inputs[units == unit]) == expected


@pytest.mark.parametrize("randomness", [0.0, 0.3, 1.0])
def test_units_have_equally_many_connections_but_for_one(randomness):
    chosen = seeds.ReceptiveField(randomness, seed=2)(KernelAxes((30, 7)), 38)
    assert len(np.unique(chosen)) == 38
    assert np.all(np.diff(chosen) > 0)
    assert set(np.bincount(chosen % 7)) == {5, 6}
    again = seeds.ReceptiveField(randomness, seed=2)(KernelAxes((30, 7)), 38)
    np.testing.assert_array_equal(chosen, again)


def test_the_more_random_the_further_away():
    def mean_distance(randomness):
        chosen = seeds.ReceptiveField(randomness)(KernelAxes((400, 400)), 4000)
        inputs, units = np.divmod(chosen, 400)
        away = np.abs(inputs - units)
        return np.minimum(away, 400 - away).mean()

    near, middle, far = map(mean_distance, (0.0, 0.4, 1.0))
    assert near < 3 < middle < far
    assert abs(far - 100) < 5


def test_chunks_are_as_the_whole(monkeypatch):
    whole = seeds.ReceptiveField(0.3)(KernelAxes((20, 9)), 50)
    monkeypatch.setattr("keras_grow.policies.seeds._CHUNK_NUMBERS", 60)
    np.testing.assert_array_equal(seeds.ReceptiveField(0.3)(KernelAxes((20, 9)), 50), whole)


@pytest.fixture
def pairs():
    """Inputs 0 and 1 vary together, 2 and 3 against each other, 4 by itself, 5 not at all."""
    random = np.random.default_rng(0)
    a, b, c = random.normal(size=(3, 500))
    return np.stack([a, 2 * a + 1, b, -b, c, np.full(500, 0.1)], axis=1).astype("float32")


def test_units_read_inputs_that_vary_together(pairs):
    chosen = seeds.CorrelatedInputs(pairs, seed=1)(KernelAxes((6, 5)), 9)
    inputs, units = np.divmod(chosen, 5)
    read = sorted(tuple(inputs[units == unit]) for unit in range(5))
    # Five inputs vary, each stands for one of five units.
    assert read == [(0, 1), (0, 1), (2, 3), (2, 3), (4,)]


def test_inputs_stand_for_about_equally_many_units(pairs):
    chosen = seeds.CorrelatedInputs(pairs)(KernelAxes((6, 12)), 12)
    assert len(np.unique(chosen)) == 12
    assert np.bincount(chosen // 12, minlength=6)[5] == 0


def test_what_does_not_fit_is_refused(pairs):
    with pytest.raises(ValueError, match="reads 7 inputs"):
        seeds.CorrelatedInputs(pairs)(KernelAxes((7, 5)), 5)
    with pytest.raises(ValueError, match=r"kernels of shape \(inputs, units\)"):
        seeds.ReceptiveField()(KernelAxes((3, 3, 2, 5)), 5)
    with pytest.raises(ValueError, match="finite, and vary"):
        seeds.CorrelatedInputs(np.ones((4, 3)))
    with pytest.raises(ValueError, match="`randomness` must be"):
        seeds.ReceptiveField(1.5)
