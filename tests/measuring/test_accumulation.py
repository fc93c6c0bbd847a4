"""Passes over data: what is added up, and how often it is traced."""

import numpy as np
import pytest
import tensorflow as tf

from keras_grow.measuring.accumulation import accumulate, summed

_X = np.arange(22.0).reshape(11, 2)


def test_a_step_is_traced_once_whatever_the_sizes_of_batches():
    traces = []

    @summed
    def step(x, y, sample_weight, draw):
        traces.append(x.shape)
        return {"sum": tf.reduce_sum(x, axis=0), "draws": draw}

    for data in ((_X,), (_X[:5],)):
        sums, num_samples = accumulate(step, data, batch_size=4)
        np.testing.assert_allclose(sums["sum"], data[0].sum(0))
        assert num_samples == len(data[0])
        assert sums["draws"] == {11: 0 + 1 + 2, 5: 0 + 1}[num_samples]
    assert traces == [(None, 2)]


def test_what_is_handed_on_stands_beside_the_sums():
    def measure(x, y, sample_weight, draw, factor):
        return factor * tf.reduce_sum(x), x

    step, seen = summed(measure, hands_on=True), []

    def doubled(sums, *batch):
        sums, x = step(sums, *batch, tf.constant(2.0, tf.float64))
        seen.append(x.numpy())
        return sums

    total, _ = accumulate(doubled, (_X,), batch_size=4)
    np.testing.assert_allclose(total, 2 * _X.sum())
    np.testing.assert_array_equal(np.concatenate(seen), _X)


def test_a_batch_that_the_step_refuses_is_named_by_its_shapes():
    @summed
    def step(x, y, sample_weight, draw):
        return tf.matmul(x, x)

    with pytest.raises(ValueError, match=r"of shapes \(\(4, 2\), None, None\)"):
        accumulate(step, (_X,), batch_size=4)
