"""The exact choice of connections, against a sort in plain Python."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_grow.search import flat_arrays
from keras_grow.search.atoms import Runs
from keras_grow.search.selection import Candidates, best_candidates, merge

# Few distinct scores, so that nearly every choice meets ties; -0.0 and 0.0 are equal.
_TIED = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 0.5, 3.0])
# TensorFlow may flush subnormal numbers to 0, which makes ties of them.
_ANY = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)


def _sorted_candidates(scores, candidates):
    """Pairs of score and index, the best first; of equals the lower index."""
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
    ranked = _sorted_candidates(scores, candidates)
    count = data.draw(st.integers(0, len(ranked)))
    best, indices, *_ = best_candidates(tf.constant(scores), tf.constant(candidates), count)
    assert indices.dtype == tf.int64
    expected = sorted((i, s) for s, i in ranked[:count])
    assert list(zip(indices.numpy().tolist(), best.numpy().tolist())) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("share_of_candidates", [0.01, 0.6, 1.0])
def test_many_scores_with_many_ties_are_ranked_as_by_a_stable_sort(dtype, share_of_candidates):
    random = np.random.default_rng(0)
    scores = tf.cast(np.round(random.normal(size=(200, 300)), 2), dtype)
    candidates = random.random((200, 300)) < share_of_candidates
    places = np.flatnonzero(candidates)
    flat = tf.cast(scores, tf.float64).numpy().reshape(-1)[places]
    ranked = places[np.argsort(-flat, kind="stable")]
    for count in (0, 1, len(places) // 20, len(places) // 2, len(places) - 1, len(places)):
        best, indices, *_ = best_candidates(scores, tf.constant(candidates), count)
        np.testing.assert_array_equal(indices, np.sort(ranked[:count]))
        np.testing.assert_array_equal(best, tf.gather(tf.reshape(scores, [-1]), indices))


def test_away_from_the_host_the_choice_is_the_same(monkeypatch):
    random = np.random.default_rng(0)
    scores = [tf.constant(np.round(random.normal(size=s), 2), tf.float32) for s in (500, 700)]
    candidates = [tf.constant(random.random(s) < 0.6) for s in (500, 700)]

    def choose():
        of_layers = [best_candidates(s, c, 200) for s, c in zip(scores, candidates)]
        return [indices.numpy().tolist() for indices in merge(of_layers, 250)]

    on_host = choose()
    monkeypatch.setattr(flat_arrays, "is_on_host", lambda tensor: False)
    assert choose() == on_host


@settings(max_examples=150, deadline=None)
@given(st.lists(_layer() | _layer(_TIED), min_size=1, max_size=4), st.data())
def test_merging_layers_is_a_sort_by_score_then_layer_then_index(layers, data):
    everyone = sorted(
        (-s, number, i)
        for number, layer in enumerate(layers)
        for s, i in _sorted_candidates(*layer)
    )
    count = data.draw(st.integers(0, len(everyone)))
    of_layers = [
        best_candidates(tf.constant(s), tf.constant(c), min(count, int(c.sum()))) for s, c in layers
    ]
    expected = [[] for _ in layers]
    for _, number, index in everyone[:count]:
        expected[number].append(index)
    expected = [sorted(indices) for indices in expected]
    assert [chosen.numpy().tolist() for chosen in merge(of_layers, count)] == expected


def test_ties_go_to_the_earlier_layer_then_the_lower_index():
    scores = [[[1.0, 5.0], [5.0, 1.0]], [[5.0, 5.0, 9.0]]]
    of_layers = [best_candidates(tf.constant(s), tf.ones_like(s, tf.bool), 3) for s in scores]
    assert [indices.numpy().tolist() for _, indices, *_ in of_layers] == [[0, 1, 2], [0, 1, 2]]
    # One 9, then the fives: two of the first layer come before the two of the second.
    merged = {
        count: [i.numpy().tolist() for i in merge(of_layers, count)] for count in (1, 2, 3, 4)
    }
    assert merged == {
        1: [[], [2]],
        2: [[1], [2]],
        3: [[1, 2], [2]],
        4: [[1, 2], [0, 2]],
    }


def test_a_connection_that_is_no_candidate_is_never_chosen_however_good_its_score():
    scores = tf.constant([np.finfo("float32").min, 8.0, -1.0, np.inf, np.nan])
    candidates = tf.constant([True, False, True, False, False])
    best, indices, *_ = best_candidates(scores, candidates, 2)
    assert indices.numpy().tolist() == [0, 2]
    assert best.numpy().tolist() == [float(np.finfo("float32").min), -1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_of_candidates_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite"):
        best_candidates(tf.constant([1.0, bad, 2.0]), tf.constant([True, True, False]), 1)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="one number per connection"):
        best_candidates(tf.zeros((3, 1)), tf.ones((3, 2), tf.bool), 1)


def test_scores_of_layers_in_different_precisions_compete():
    of_layers = [
        best_candidates(tf.constant([1.0, 4.0], dtype), tf.constant([True, True]), 2)
        for dtype in ("bfloat16", "float64", "float32")
    ]
    assert [i.numpy().tolist() for i in merge(of_layers, 4)] == [[0, 1], [1], [1]]


def test_close_scores_of_double_precision_are_told_apart():
    scores = tf.constant([1.0, 1.0 + 1e-12, 1.0 - 1e-12], tf.float64)
    candidates = tf.constant([True, True, True])
    found = best_candidates(scores, candidates, 2)
    assert found[1].numpy().tolist() == [0, 1]
    other = best_candidates(tf.constant([1.0 + 5e-13], tf.float64), tf.constant([True]), 1)
    assert [i.numpy().tolist() for i in merge([found, other], 2)] == [[1], [0]]


def _greedy(of_layers, count):
    """One atom after the other in the order of scores, each that still fits."""
    ranked = sorted(
        (-float(score), number, int(atom), of_layer.atoms.size)
        for number, of_layer in enumerate(of_layers)
        for score, atom in zip(of_layer.scores, of_layer.indices)
    )
    chosen = [[] for _ in of_layers]
    for _, number, atom, size in ranked:
        if size <= count:
            count -= size
            chosen[number] += range(atom * size, (atom + 1) * size)
    return [sorted(indices) for indices in chosen]


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1, 3), (32, 32), (5, 8, 64), (2,)])
def test_atoms_are_taken_in_the_order_of_scores_as_far_as_they_fit(sizes):
    random = np.random.default_rng(len(sizes))
    for _ in range(20):
        of_layers = []
        for size in sizes:
            number = random.integers(0, 9)
            indices = np.sort(random.choice(30, number, replace=False))
            scores = tf.constant(random.integers(5, size=number), tf.float32)  # With ties.
            of_layers.append(Candidates(scores, tf.constant(indices), atoms=Runs(size)))
        for count in random.integers(0, 200, size=8).tolist():
            merged = [indices.numpy().tolist() for indices in merge(of_layers, count)]
            assert merged == _greedy(of_layers, count)


def test_an_atom_that_does_not_fit_leaves_room_for_smaller_ones():
    large = Candidates(tf.constant([9.0, 8.0]), tf.constant([0, 3], tf.int64), atoms=Runs(4))
    small = Candidates(tf.constant([1.0, 2.0, 3.0]), tf.constant([5, 6, 7], tf.int64))
    merged = [indices.numpy().tolist() for indices in merge([large, small], 6)]
    assert merged == [[0, 1, 2, 3], [6, 7]]
