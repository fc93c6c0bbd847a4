"""Where the largest numbers stand, by NumPy and by counting digits, against a stable sort."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_grow.search.ranking import largest, largest_first

# Few distinct numbers, so that nearly every choice meets ties; -0.0 and 0.0 are equal.
_TIED = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 3.0])


def _any_float(width):
    return st.floats(allow_nan=False, allow_infinity=False, width=width)


def _by_sorting(numbers, count):
    """The same choice by a sort in plain Python, by number and then place."""
    return sorted(range(len(numbers)), key=lambda i: (-float(numbers[i]), i))[:count]


@pytest.mark.parametrize("kind", [np.array, tf.constant], ids=["host", "device"])
@pytest.mark.parametrize("width", [32, 64])
def test_the_largest_are_those_of_a_sort_by_number_then_place(kind, width):
    @settings(max_examples=150, deadline=None)
    @given(hnp.arrays(f"float{width}", st.integers(0, 40), elements=_TIED | _any_float(width)))
    @example(np.array([-0.0, 1e-41], f"float{width}"))  # Which TensorFlow takes for two zeros.
    @example(np.array([0.0, 5e-320], f"float{width}"))
    def check(numbers):
        for count in {0, 1, len(numbers) // 3, len(numbers) // 2, len(numbers) - 1, len(numbers)}:
            if 0 <= count <= len(numbers):
                places = largest(kind(numbers), count)
                assert places.dtype == "int64"
                in_order = _by_sorting(numbers, count)
                assert np.asarray(places).tolist() == sorted(in_order)
                assert np.asarray(largest_first(kind(numbers), count)).tolist() == in_order

    check()


@pytest.mark.parametrize("kind", [np.array, tf.constant], ids=["host", "device"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.7, 0.999])
def test_large_choices_are_those_of_a_stable_sort(kind, share):
    random = np.random.default_rng(0)
    normal = random.normal(size=100_000).astype("float32")
    for numbers in (
        normal,
        normal * 10.0 ** random.integers(-38, 38, 100_000),  # Subnormal ones included.
        np.where(random.random(100_000) < 0.6, 0, -np.abs(normal)),  # Most are one number.
        np.zeros(100_000),
    ):
        numbers = numbers.astype("float32")
        count = int(share * len(numbers))
        order = np.argsort(-numbers, kind="stable")[:count]
        np.testing.assert_array_equal(largest(kind(numbers), count), np.sort(order))
