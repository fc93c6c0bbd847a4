"""A pass over data shows its progress where that is asked for, or where it takes long."""

import numpy as np
import pytest
import tensorflow as tf

from keras_grow.measuring import accumulation
from keras_grow.measuring.accumulation import accumulate

X = np.arange(10.0)[:, None]


def _step(clock):
    def step(sums, x, y, sample_weight, draw):
        clock.spend(1.0)
        return (0 if sums is None else sums) + float(tf.reduce_sum(x))

    return step


@pytest.mark.parametrize(
    ("verbose", "patience", "is_shown"),
    [(0, 0.0, False), (1, 1e9, True), ("auto", 1.5, True), ("auto", 1e9, False)],
)
def test_batches_are_counted_to_the_last(clock, capsys, monkeypatch, verbose, patience, is_shown):
    monkeypatch.setattr(accumulation, "_PATIENCE_SECONDS", patience)
    total, num_samples = accumulate(_step(clock), (X,), 4, verbose)
    assert (total, num_samples) == (45, 10)
    shown = capsys.readouterr().out
    assert bool(shown) == is_shown
    if is_shown:
        assert "3/3" in shown
        assert "/batch of 4" in shown


def test_batches_that_are_given_are_batches_of_any_size(clock, capsys):
    accumulate(_step(clock), [(X[:3],), (X[3:],)], None, 1)
    assert "/batch\n" in capsys.readouterr().out.replace("\x08", "").replace(" ", "") + "\n"


def test_empty_batches_count_for_nothing(clock):
    batches = [(X[:0],), (X[:3],), (X[:0],), (X[3:],)]
    assert accumulate(_step(clock), batches, None, 0) == (45, 10)
    with pytest.raises(ValueError, match="at least one sample. Received: no batch"):
        accumulate(_step(clock), [(X[:0],)], None, 0)


@pytest.mark.parametrize("verbose", [2, -1, "yes", None])
def test_how_it_is_shown_must_be_known(clock, verbose):
    with pytest.raises(ValueError, match='`verbose` must be 0, 1 or "auto"'):
        accumulate(_step(clock), (X,), 4, verbose)
