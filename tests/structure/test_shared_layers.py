"""A layer that is called several times is one layer: units at both calls are the same."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_grow
from keras_grow.structure.unit_graph import _roots, units_along


@pytest.mark.parametrize("is_shared", [True, False])
def test_units_behind_calls_of_one_normalization_are_one(is_shared):
    x = keras.Input((4,))
    first = layers.BatchNormalization()
    second = first if is_shared else layers.BatchNormalization()
    one = first(layers.Dense(5, name="one")(x))
    other = second(layers.Dense(5, name="other")(x))
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()([one, other])))
    free = [group for group in keras_grow.groups(model) if group.why_fixed is None]
    makers = [[end.path for end in group.made_by] for group in free]
    assert makers == ([["one", "other"]] if is_shared else [["one"], ["other"]])
    assert {group.count for group in free} == {5}


class _Scaled(layers.Layer):
    """A layer of one's own, that takes one tensor or two."""

    def build(self, *shapes):
        self.scale = self.add_weight(shape=())

    def call(self, x, y=None):
        return self.scale * (x if y is None else x + y)


def test_calls_with_other_numbers_of_tensors_are_followed_as_far_as_they_go():
    x = keras.Input((4,))
    scaled = _Scaled()
    ends = [layers.Dense(5, name=name)(x) for name in ("one", "other")]
    outputs = layers.Dense(2, name="last")(scaled(ends[0]) + scaled(*ends))
    reasons = {g.made_by[0].path: g.why_fixed for g in keras_grow.groups(keras.Model(x, outputs))}
    assert all(reasons[name] is not None for name in ("one", "other"))


def test_units_of_calls_of_different_width_are_not():
    x = keras.Input((4,))
    activation = layers.ReLU()
    widths = [activation(layers.Dense(n, name=f"of{n}")(x)) for n in (3, 5)]
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()(widths)))
    free = [group for group in keras_grow.groups(model) if group.why_fixed is None]
    assert sorted(group.count for group in free) == [3, 5]


def test_roots_are_the_lowest_of_all_that_is_tied_however_the_ties_are_ordered():
    random = np.random.default_rng(0)
    for _ in range(30):
        # A chain of all units of three lots, in a random order, and pairs within the lots.
        lots = np.array_split(random.permutation(40), 3)
        pairs = [pair for lot in lots for pair in itertools.pairwise(lot)]
        random.shuffle(pairs)
        ties = [(np.array([a]), np.array([b])) for a, b in pairs]
        roots = _roots(40, ties)
        for lot in lots:
            assert set(roots[lot]) == {min(lot)}
    assert _roots(3, []).tolist() == [0, 1, 2]


def test_units_along_an_axis_are_those_of_its_sides_the_last_fastest():
    class Stream:
        def __init__(self, units):
            self.units, self.count = np.array(units), len(units)

    sides = {"heads": Stream([7, 8]), "size": Stream([3, 5, 9])}
    found = units_along(("heads", 2, "size"), sides)
    assert found["heads"].tolist() == [7] * 6 + [8] * 6
    assert found["size"].tolist() == [3, 5, 9] * 4
