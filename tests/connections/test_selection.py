"""The exact choice of connections, against a sort in plain Python."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_grow.connections import selection
from keras_grow.connections.selection import best_candidates, merge

# Few distinct scores, so that nearly every choice meets ties; -0.0 and 0.0 are equal.
_TIED = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 0.5, 3.0])
# TensorFlow flushes subnormal numbers to 0, which makes ties of them.
_ANY = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)


def _sorted_candidates(scores, candidates):
    flat = [(-float(s), i) for i, (s, c) in enumerate(zip(scores.flat, candidates.flat)) if c]
    return [(-s, i) for s, i in sorted(flat)]


@st.composite
def _layer(draw, elements=_TIED | _ANY):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=7))
    scores = draw(hnp.arrays(np.float32, shape, elements=elements))
    candidates = draw(hnp.arrays(bool, shape))
    return scores, candidates


@settings(max_examples=150, deadline=None)
@given(_layer() | _layer(_TIED), st.data())
def test_the_best_candidates_are_those_of_a_sort_by_score_then_index(layer, data):
    scores, candidates = layer
    expected = _sorted_candidates(scores, candidates)
    count = data.draw(st.integers(0, len(expected)))
    best, indices, _ = best_candidates(tf.constant(scores), tf.constant(candidates), count)
    assert indices.dtype == tf.int64
    assert indices.numpy().tolist() == [i for _, i in expected[:count]]
    assert best.numpy().tolist() == [s for s, _ in expected[:count]]


@pytest.mark.parametrize("worth_a_sort", [1, 2**62], ids=["sorted", "heap"])
def test_large_selections_by_a_sampled_threshold_are_those_of_a_sort(monkeypatch, worth_a_sort):
    monkeypatch.setattr(selection, "_WORTH_A_SAMPLE", 1)
    monkeypatch.setattr(selection, "_WORTH_A_SORT", worth_a_sort)
    num_sorted = []
    top_k = tf.math.top_k
    monkeypatch.setattr(
        tf.math, "top_k", lambda scores, k: num_sorted.append(len(scores)) or top_k(scores, k)
    )

    @settings(max_examples=150, deadline=None)
    @given(_layer() | _layer(_TIED), st.integers(1, 40), st.data())
    def check(layer, sample_size, data):
        monkeypatch.setattr(selection, "_SAMPLE_SIZE", sample_size)
        scores, candidates = layer
        expected = _sorted_candidates(scores, candidates)
        count = data.draw(st.integers(0, len(expected)))
        best, indices, _ = best_candidates(tf.constant(scores), tf.constant(candidates), count)
        assert indices.numpy().tolist() == [i for _, i in expected[:count]]
        assert best.numpy().tolist() == [s for s, _ in expected[:count]]

    check()
    random = np.random.default_rng(0)
    scores = random.normal(size=10_000).astype("float32")
    candidates = random.random(10_000) < 0.7
    monkeypatch.setattr(selection, "_SAMPLE_SIZE", 2_000)
    num_sorted.clear()
    found = best_candidates(tf.constant(scores), tf.constant(candidates), 300).indices
    assert found.numpy().tolist() == [i for _, i in _sorted_candidates(scores, candidates)[:300]]
    # The sample, and then no more than twice what is chosen.
    sampled, reached = num_sorted
    assert sampled == 2_000
    assert 300 <= reached < 600


def test_a_sample_that_misleads_costs_time_and_nothing_else(monkeypatch):
    monkeypatch.setattr(selection, "_WORTH_A_SAMPLE", 1)
    monkeypatch.setattr(selection, "_SAMPLE_SIZE", 16)
    size = 1_000
    sampled = np.arange(16) * (int(size * 0.6180339887) | 1) % size
    scores = np.zeros(size, "float32")
    scores[sampled] = 1 + np.arange(16)
    found = best_candidates(tf.constant(scores), tf.ones(size, tf.bool), 100).indices.numpy()
    rest = [i for i in range(size) if i not in sampled]
    assert found.tolist() == [*sampled[::-1], *rest[:84]]


@settings(max_examples=150, deadline=None)
@given(st.lists(_layer() | _layer(_TIED), min_size=1, max_size=4), st.data())
def test_merging_layers_is_a_sort_by_score_then_layer_then_index(layers, data):
    everyone = sorted(
        (-s, number, i)
        for number, layer in enumerate(layers)
        for s, i in _sorted_candidates(*layer)
    )
    count = data.draw(st.integers(0, len(everyone)))
    proposals = [
        best_candidates(tf.constant(s), tf.constant(c), min(count, int(c.sum()))) for s, c in layers
    ]
    expected = [[] for _ in layers]
    for _, number, index in everyone[:count]:
        expected[number].append(index)
    assert [chosen.numpy().tolist() for chosen in merge(proposals, count)] == expected


def test_ties_go_to_the_earlier_layer_then_the_lower_index():
    scores = [[[1.0, 5.0], [5.0, 1.0]], [[5.0, 5.0, 9.0]]]
    proposals = [best_candidates(tf.constant(s), tf.ones_like(s, tf.bool), 3) for s in scores]
    assert [indices.numpy().tolist() for _, indices, _ in proposals] == [[1, 2, 0], [2, 0, 1]]
    # One 9, then the fives: two of the first layer come before the two of the second.
    merged = {
        count: [i.numpy().tolist() for i in merge(proposals, count)] for count in (1, 2, 3, 4)
    }
    assert merged == {
        1: [[], [2]],
        2: [[1], [2]],
        3: [[1, 2], [2]],
        4: [[1, 2], [2, 0]],
    }


def test_a_connection_that_is_no_candidate_is_never_chosen_however_good_its_score():
    scores = tf.constant([np.finfo("float32").min, 8.0, -1.0, np.inf, np.nan])
    candidates = tf.constant([True, False, True, False, False])
    best, indices, _ = best_candidates(scores, candidates, 2)
    assert indices.numpy().tolist() == [2, 0]
    assert best.numpy().tolist() == [-1.0, float(np.finfo("float32").min)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_of_candidates_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite"):
        best_candidates(tf.constant([1.0, bad, 2.0]), tf.constant([True, True, False]), 1)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="one number per connection"):
        best_candidates(tf.zeros((3, 1)), tf.ones((3, 2), tf.bool), 1)


def test_scores_of_layers_in_different_precisions_compete():
    proposals = [
        best_candidates(tf.constant([1.0, 4.0], dtype), tf.constant([True, True]), 2)
        for dtype in ("bfloat16", "float64", "float32")
    ]
    assert [i.numpy().tolist() for i in merge(proposals, 4)] == [[1, 0], [1], [1]]


def test_close_scores_of_double_precision_are_told_apart():
    scores = tf.constant([1.0, 1.0 + 1e-12, 1.0 - 1e-12], tf.float64)
    candidates = tf.constant([True, True, True])
    proposal = best_candidates(scores, candidates, 3)
    assert proposal[1].numpy().tolist() == [1, 0, 2]
    other = best_candidates(tf.constant([1.0 + 5e-13], tf.float64), tf.constant([True]), 1)
    assert [i.numpy().tolist() for i in merge([proposal, other], 2)] == [[1], [0]]
