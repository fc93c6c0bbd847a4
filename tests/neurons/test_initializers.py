"""Neuron initializers on literal bridging gradients, which one can check by eye."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_grow import neuron_initializers
from keras_grow.neurons.initializers import (
    Bridge,
    BridgingGradient,
    RandomWeights,
    SingularVectors,
)


def _bridge(gradient, count=1, mean_input=None, step=0):
    gradient = tf.constant(gradient, tf.float64)
    if mean_input is None:
        mean_input = tf.ones(gradient.shape[0], gradient.dtype)
    return Bridge(gradient, tf.constant(mean_input, gradient.dtype), count, 0.2, 0.3, step)


def _product(birth, neuron=0):
    return np.outer(birth.incoming[:, neuron], birth.outgoing[neuron])


_GRADIENT = [[0.0, -9.0, 1.0], [0.5, 0.0, 4.0]]


def test_the_best_pair_is_bridged_by_a_step_down():
    birth = BridgingGradient(growth_ratio=0.0)(_bridge(_GRADIENT))
    np.testing.assert_array_equal(birth.wakes_incoming[:, 0], [True, False])
    np.testing.assert_array_equal(birth.wakes_outgoing[0], [False, True, False])
    np.testing.assert_allclose(_product(birth), [[0, 0.06, 0], [0, 0, 0]], atol=1e-12)


def test_weights_are_sums_over_pairs_of_roots_of_the_gradient():
    birth = BridgingGradient(growth_ratio=0.5)(_bridge(_GRADIENT))
    # The pairs are (0, 1), (1, 2) and (0, 2), with |G| of 9, 4 and 1, and any signs a, b, c.
    found = 0
    for a, b, c in itertools.product((1, -1), repeat=3):
        incoming, outgoing = np.array([3 * a - c, -2 * b]), np.array([0, 3 * a, 2 * b + c])
        incoming = incoming * 0.2 * 2 / np.abs(incoming).sum()
        outgoing = outgoing * 0.3 * 2 / np.abs(outgoing).sum()
        is_incoming = np.allclose(birth.incoming[:, 0], incoming)
        found += is_incoming and np.allclose(birth.outgoing[0], outgoing)
    assert found == 1
    np.testing.assert_array_equal(birth.wakes_incoming[:, 0], [True, True])
    np.testing.assert_array_equal(birth.wakes_outgoing[0], [False, True, True])


def test_several_neurons_bridge_the_next_best_pairs_each():
    birth = BridgingGradient(growth_ratio=1 / 6)(_bridge(_GRADIENT, count=3))
    pairs = [
        np.argwhere(np.outer(birth.wakes_incoming[:, j], birth.wakes_outgoing[j])).tolist()
        for j in range(3)
    ]
    assert pairs == [[[0, 1]], [[1, 2]], [[0, 2]]]
    with pytest.raises(ValueError, match="more than the 6 pairs"):
        BridgingGradient(growth_ratio=0.5)(_bridge(_GRADIENT, count=3))


def test_pairs_without_gradient_do_not_wake():
    birth = BridgingGradient(growth_ratio=1.0)(_bridge([[0.0, 2.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(birth.wakes_incoming[:, 0], [True, False])
    np.testing.assert_array_equal(birth.wakes_outgoing[0], [False, True])


# As many draws as make the bound four standard errors, whatever the seed.
@pytest.mark.parametrize(
    ("growth_ratio", "share", "draws"), [(0.01, 0.70, 300), (0.1, 0.56, 60), (0.3, 0.53, 30)]
)
def test_the_share_of_pairs_with_the_right_sign_is_the_one_in_the_docstring(
    growth_ratio, share, draws
):
    random = np.random.default_rng(0)
    right = []
    for seed in range(draws):
        gradient = random.normal(size=(40, 3)) @ random.normal(size=(3, 20))
        birth = BridgingGradient(growth_ratio, seed=seed)(_bridge(gradient))
        magnitude = np.abs(gradient)
        is_bridged = magnitude >= np.sort(magnitude, axis=None)[-round(growth_ratio * 800)]
        signs = np.sign(_product(birth))
        right.append(np.mean(signs[is_bridged] == -np.sign(gradient[is_bridged])))
    assert np.mean(right) == pytest.approx(share, abs=0.03)


def test_singular_vectors_are_those_of_the_decomposition():
    random = np.random.default_rng(0)
    for shape in [(7, 4), (4, 7)]:
        gradient, mean_input = random.normal(size=shape), random.normal(size=shape[0])
        birth = SingularVectors(0.5)(_bridge(gradient, 2, mean_input))
        expected = np.linalg.svd(gradient)[0][:, :2]
        expected *= 0.5 * 0.2 / np.abs(expected).mean(axis=0)
        expected *= np.sign(expected.T @ mean_input)
        np.testing.assert_allclose(birth.incoming, expected, rtol=1e-9)
        np.testing.assert_array_equal(birth.outgoing, np.zeros((2, shape[1])))
        assert np.all(birth.wakes_incoming)
        assert np.all(birth.wakes_outgoing)


def test_no_random_direction_gives_the_outgoing_weights_a_larger_gradient():
    gradient = np.random.default_rng(0).normal(size=(30, 10))

    def size(incoming):
        return np.linalg.norm(gradient.T @ incoming) / np.linalg.norm(incoming)

    best = size(SingularVectors()(_bridge(gradient)).incoming)
    assert all(size(RandomWeights(seed=s)(_bridge(gradient)).incoming) < best for s in range(50))


@pytest.mark.parametrize("kind", [SingularVectors, RandomWeights])
def test_the_mean_input_switches_newborns_on(kind):
    random = np.random.default_rng(1)
    for _ in range(10):
        mean_input = random.normal(size=9)
        birth = kind()(_bridge(random.normal(size=(9, 5)), 3, mean_input))
        assert np.all(mean_input @ birth.incoming.numpy() > 0)
    # A mean of 0 decides nothing; the largest weight does.
    birth = kind()(_bridge(random.normal(size=(9, 5)), 3, np.zeros(9)))
    incoming = birth.incoming.numpy()
    assert np.all(incoming[np.abs(incoming).argmax(axis=0), np.arange(3)] > 0)


@pytest.mark.parametrize("kind", [SingularVectors, RandomWeights])
def test_only_so_many_connections_wake_at_the_strength_of_all(kind):
    bridge = _bridge(np.random.default_rng(2).normal(size=(9, 5)), 3)
    birth = kind(2.0, num_inputs=4, num_outputs=2)(bridge)
    np.testing.assert_array_equal(np.sum(birth.wakes_incoming, axis=0), [4] * 3)
    np.testing.assert_array_equal(np.sum(birth.wakes_outgoing, axis=1), [2] * 3)
    np.testing.assert_array_equal(birth.incoming != 0, birth.wakes_incoming)
    np.testing.assert_allclose(np.abs(birth.incoming).sum(axis=0) / 4, 2 * 0.2)
    whole = np.abs(kind()(bridge).incoming)
    kept = np.where(birth.wakes_incoming, whole, 0)
    np.testing.assert_allclose(kept.sum(axis=0), np.sort(whole, axis=0)[-4:].sum(axis=0))


def test_more_neurons_than_singular_directions_are_refused():
    gradient = np.outer([1.0, 2.0, 3.0], [1.0, -1.0])
    SingularVectors()(_bridge(gradient))
    with pytest.raises(ValueError, match="has 1 singular directions, .* Received: count=2"):
        SingularVectors()(_bridge(gradient, 2))


@pytest.mark.parametrize("kind", [BridgingGradient, RandomWeights])
def test_random_numbers_follow_seed_and_step_alone(kind):
    gradient = np.random.default_rng(3).normal(size=(20, 10))

    def incoming(seed, step):
        return kind(seed=seed)(_bridge(gradient, step=step)).incoming.numpy()

    np.testing.assert_array_equal(incoming(1, 5), incoming(1, 5))
    assert np.any(incoming(1, 5) != incoming(2, 5))
    assert np.any(incoming(1, 5) != incoming(1, 6))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BridgingGradient(1.5), "`growth_ratio` must be a number from 0"),
        (lambda: BridgingGradient(birth_strength=0), "`birth_strength` must be positive"),
        (lambda: SingularVectors(num_inputs=0), "`num_inputs` must be a positive integer"),
        (lambda: RandomWeights(num_outputs=-1), "`num_outputs` must be a positive integer"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_initializer_is_written_by_overriding_one_method():
    assert neuron_initializers.NeuronInitializer.__abstractmethods__ == {"__call__"}
