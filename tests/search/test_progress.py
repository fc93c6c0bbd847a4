"""A search shows its progress where that is asked for, or where it takes long."""

import numpy as np
import pytest
import tensorflow as tf

from keras_grow import TiledSearch, scores
from keras_grow.policies.statistics import Gradient
from keras_grow.search import tiled_search
from keras_grow.search.tiled_array import FactoredArray


class _Slow(scores.GradientMagnitude):
    clock = None

    def __call__(self, connections):
        self.clock.spend(1.0)
        return super().__call__(connections)


@pytest.mark.parametrize(
    ("verbose", "patience", "is_shown"),
    [(0, 0.0, False), (1, 1e9, True), ("auto", 0.5, True), ("auto", 1e9, False)],
)
def test_tiles_are_counted_to_the_last(clock, capsys, monkeypatch, verbose, patience, is_shown):
    monkeypatch.setattr(tiled_search, "_PATIENCE_SECONDS", patience)
    random = np.random.default_rng(0)
    x, d = (tf.constant(random.normal(size=(8, 3))) for _ in range(2))
    score = _Slow()
    score.clock = clock
    found = tiled_search.best_dormant(
        (8, 8),
        [],
        60,
        score,
        {Gradient(): FactoredArray(x, d)},
        search=TiledSearch(tile_shape=(4, 4), verbose=verbose),
    )
    assert len(found.indices) == 60
    shown = capsys.readouterr().out
    assert bool(shown) == is_shown
    if is_shown:
        assert "4/4" in shown
        assert "/tile" in shown
