"""Every start value on arrays that can be checked by eye."""

import numpy as np
import pytest
import tensorflow as tf

from keras_grow import start_values
from keras_grow.policies.scores import Connections
from keras_grow.policies.statistics import Gradient

_GROWN = Connections(
    weight=tf.constant([0.0, 0.0, 0.0], tf.float64),
    active=tf.constant([False, False, False]),
    statistics={Gradient(): tf.constant([4.0, -0.5, 0.0], tf.float64)},
)


def test_zero_is_zero_in_the_precision_of_the_weights():
    values = start_values.Zero()(_GROWN)
    np.testing.assert_array_equal(values, [0.0, 0.0, 0.0])
    assert values.dtype == tf.float64
    assert start_values.Zero().statistics == ()


def test_a_descent_step_goes_against_the_gradient():
    step = start_values.DescentStep(0.25)
    assert step.statistics == (Gradient(),)
    np.testing.assert_array_equal(step(_GROWN), [-1.0, 0.125, 0.0])


@pytest.mark.parametrize("size", [0, -0.1, float("nan")])
def test_a_descent_step_of_no_size_is_refused(size):
    with pytest.raises(ValueError, match="`size` must be positive"):
        start_values.DescentStep(size)


@pytest.mark.parametrize(
    "make", [start_values.Zero, lambda **k: start_values.DescentStep(1.0, **k)]
)
def test_second_moments_start_afresh_unless_asked_for_the_mean(make):
    assert make().second_moment_starts_at_mean is False
    assert make(second_moment_starts_at_mean=True).second_moment_starts_at_mean is True
