"""Every score on arrays that can be checked by eye."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import scores
from keras_grow.policies.scores import Connections
from keras_grow.policies.statistics import Gradient, InputRMS, MagnitudeSum, OutputScale
from keras_grow.search.measurements import Measurements

_CONNECTIONS = Connections(
    weight=tf.constant([[0.5, -2.0, 0.0], [0.0, 1.0, -4.0]]),
    active=tf.constant([[True, True, False], [False, True, True]]),
    statistics={
        Gradient(): tf.constant([[1.0, -3.0, 0.25], [-8.0, 0.0, 2.0]]),
        InputRMS(): tf.constant([[2.0], [0.5]]),
        OutputScale(): tf.constant([2.0, 1.0, -0.5]),
    },
    l1=0.0,
    layer_index=0,
    first_index=0,
    step=0,
)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (scores.GradientMagnitude(), [[1.0, 3.0, 0.25], [8.0, 0.0, 2.0]]),
        (scores.Magnitude(), [[0.5, 2.0, 0.0], [0.0, 1.0, 4.0]]),
        (scores.EffectiveMagnitude(), [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]),
        (scores.ActivationMagnitude(), [[1.0, 4.0, 0.0], [0.0, 0.5, 2.0]]),
    ],
)
def test_a_score_is_this_function_of_weight_gradient_and_input(score, expected):
    np.testing.assert_array_equal(score(_CONNECTIONS), expected)


def test_under_an_l1_penalty_a_connection_promises_its_gradient_less_the_penalty():
    connections = dataclasses.replace(_CONNECTIONS, l1=0.5)
    expected = [[0.5, 2.5, -0.25], [7.5, -0.5, 1.5]]
    np.testing.assert_array_equal(scores.GradientMagnitude()(connections), expected)


def test_scores_say_what_must_be_measured_for_them():
    assert scores.GradientMagnitude().statistics == (Gradient(),)
    assert scores.ActivationMagnitude().statistics == (InputRMS(),)
    assert scores.EffectiveMagnitude().statistics == (OutputScale(),)
    assert scores.Magnitude().statistics == scores.Random().statistics == ()


def test_a_look_at_a_statistic_that_is_not_named_says_what_to_name():
    bare = dataclasses.replace(_CONNECTIONS, statistics={InputRMS(): tf.ones((2, 1))})
    with pytest.raises(ValueError, match=r"a look at Gradient\(\), expected one of \[InputRMS"):
        scores.GradientMagnitude()(bare)


def _random(seed=0, **changes):
    weight = tf.zeros((50, 40))
    return scores.Random(seed)(dataclasses.replace(_CONNECTIONS, weight=weight, **changes)).numpy()


def test_random_scores_are_uniform_and_look_at_nothing_but_their_place():
    drawn = _random()
    assert drawn.shape == (50, 40)
    assert 0 <= drawn.min() < drawn.max() < 1
    # 2000 draws: the mean has a deviation of 0.0065, a tenth of them of 13.4 in 200.
    assert abs(drawn.mean() - 0.5) < 0.033
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert np.abs(counts - 200).max() < 67
    np.testing.assert_array_equal(_random(statistics={}, l1=3.0), drawn)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"step": 1}, {"layer_index": 1}, {"first_index": 2000}]
)
def test_random_scores_repeat_for_the_same_seed_step_and_layer_and_differ_otherwise(change):
    np.testing.assert_array_equal(_random(**change), _random(**change))
    other = _random()
    assert abs(np.corrcoef(_random(**change).ravel(), other.ravel())[0, 1]) < 0.1
    assert (_random(**change) != other).mean() > 0.99


def test_seed_step_and_layer_do_not_stand_in_for_each_other():
    changes = [{"seed": 1}, {"step": 1}, {"layer_index": 1}, {"first_index": 1}, {}]
    assert len({_random(**change).tobytes() for change in changes}) == len(changes)


def test_random_scores_are_these_very_numbers():
    weight = tf.zeros((3,))
    connections = dataclasses.replace(_CONNECTIONS, weight=weight, step=7, layer_index=2)
    golden = [0.94246876, 0.2891233, 0.06707418]
    np.testing.assert_allclose(scores.Random(11)(connections), golden, rtol=1e-6)


def test_a_score_must_be_written_out():
    with pytest.raises(TypeError, match="abstract"):
        scores.Score()


def test_signed_magnitude_is_the_share_of_its_sign_that_is_smaller():
    connections = dataclasses.replace(
        _CONNECTIONS,
        weight=tf.constant([[3.0, -0.1, 9.0], [1.0, 2.0, -4.0]]),
        active=tf.constant([[True, True, False], [True, True, True]]),
    )
    expected = [[2 / 3, 0, 0], [0, 1 / 3, 0.5]]
    np.testing.assert_allclose(scores.SignedMagnitude()(connections), expected, rtol=1e-6)


def test_relative_importance_divides_by_the_sums_of_units_and_of_inputs():
    layer = keras_grow.GrowableDense(3, use_bias=False)
    model = keras.Sequential([keras.Input((2,)), layer])
    kernel = np.array([[1.0, -2.0, 0.0], [3.0, 2.0, -4.0]], "float32")
    layer.kernel.assign(kernel)
    relative = scores.RelativeImportance()
    statistics = {
        each: each.look_up(model, [layer], lambda model: None)[layer]
        for each in relative.statistics
    }
    found = relative(layer.view(Measurements(statistics=statistics)))
    size = np.abs(kernel)
    expected = size / size.sum(0, keepdims=True) + size / size.sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("exponent", [1.0, lambda step: 1.0])
def test_a_soft_choice_draws_in_proportion_to_the_score(exponent):
    weight = tf.constant([1.0, 2.0, 5.0, 0.0])
    times = np.zeros(4)
    for seed in range(2000):
        soft = scores.Soft(scores.Magnitude(), exponent, seed=seed)
        seen = dataclasses.replace(_CONNECTIONS, weight=weight, active=weight > 0)
        times[np.argmax(soft(seen))] += 1
    expected = 2000 * weight.numpy() / 8
    # Six standard deviations never happen by chance.
    assert np.all(np.abs(times - expected) <= 6 * np.sqrt(expected * (1 - expected / 2000)))


def test_a_sharp_choice_is_the_ranking_and_one_of_steps_goes_on():
    seen = dataclasses.replace(_CONNECTIONS, weight=tf.constant([3.0, 1.0, 2.0, 8.0]))
    sharp = scores.Soft(scores.Magnitude(), 1e4)
    np.testing.assert_array_equal(np.argsort(sharp(seen)), [1, 2, 0, 3])
    soft = scores.Soft(scores.Magnitude(), seed=3)
    np.testing.assert_array_equal(soft(seen), soft(seen))
    assert np.any(soft(seen) != soft(dataclasses.replace(seen, step=1)))


def test_what_can_be_no_soft_score_is_refused():
    for exponent in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="`exponent` must be"):
            scores.Soft(scores.Magnitude(), exponent)
    with pytest.raises(ValueError, match='"inputs" or "units"'):
        MagnitudeSum("rows")


def test_soft_scores_of_what_promises_nothing_are_finite():
    seen = dataclasses.replace(_CONNECTIONS, weight=tf.zeros(5))
    assert np.all(np.isfinite(scores.Soft(scores.Magnitude(), 3.0)(seen)))
