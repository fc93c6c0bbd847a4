"""What connections connect, against what a NumPy index of the kernel's shape says."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_grow.kernel_axes import KernelAxes


@st.composite
def _axes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    every = range(-len(shape), 0)
    some = st.sets(st.sampled_from(list(every)), min_size=1)
    return KernelAxes(shape, tuple(draw(some)), tuple(draw(some)))


@settings(max_examples=150, deadline=None)
@given(_axes())
def test_each_connection_has_an_input_a_unit_and_a_position(axes):
    rest = [a for a in range(-len(axes.shape), 0) if a not in (*axes.inputs, *axes.units)]
    every = np.arange(axes.size)
    for chosen, number_of, count in (
        (axes.inputs, axes.inputs_of, axes.num_inputs),
        (axes.units, axes.units_of, axes.num_units),
        (rest, axes.positions_of, axes.num_positions),
    ):
        sizes = [axes.shape[axis] for axis in chosen]
        expected = [
            int(np.ravel_multi_index([index[axis] for axis in chosen], sizes)) if sizes else 0
            for index in np.ndindex(axes.shape)
        ]
        np.testing.assert_array_equal(number_of(every), expected)
        np.testing.assert_array_equal(number_of(tf.constant(every)), expected)
        assert count == np.prod(sizes, dtype=int)
    assert axes.fan_in == axes.count_by_unit(every)[0]
    assert axes.fan_out == axes.count_by_input(every)[0]
    if not set(axes.inputs) & set(axes.units):
        there = axes.connection(
            axes.inputs_of(every), axes.units_of(every), axes.positions_of(every)
        )
        np.testing.assert_array_equal(there, every)


@settings(max_examples=50, deadline=None)
@given(_axes())
def test_values_of_inputs_and_units_broadcast_over_the_kernel(axes):
    every = np.arange(axes.size)
    for spread, number_of, count in (
        (axes.per_input, axes.inputs_of, axes.num_inputs),
        (axes.per_unit, axes.units_of, axes.num_units),
    ):
        values = np.arange(count) + 0.5
        over_kernel = np.broadcast_to(spread(tf.constant(values)), axes.shape).reshape(-1)
        np.testing.assert_array_equal(over_kernel, values[number_of(every)])


def test_units_in_groups_read_inputs_of_their_own():
    # As a grouped convolution of 4 inputs and 6 units has it: window 1, 2 inputs a group, 6 units.
    axes = KernelAxes((1, 2, 6), num_groups=2)
    assert (axes.num_inputs, axes.num_units, axes.fan_in, axes.fan_out) == (4, 6, 2, 3)
    every = np.arange(12)
    np.testing.assert_array_equal(axes.inputs_of(every), [0, 0, 0, 2, 2, 2, 1, 1, 1, 3, 3, 3])
    spread = axes.per_input(tf.constant([10, 11, 12, 13]))
    np.testing.assert_array_equal(spread[0, 0], [10, 10, 10, 12, 12, 12])
    with pytest.raises(ValueError, match="units of their own"):
        axes.connection(0, 0)


def test_connections_between_inputs_and_units_are_all_those_of_the_window():
    axes = KernelAxes((2, 3, 4))
    np.testing.assert_array_equal(
        axes.connections_between(np.array([1]), np.array([0, 2])), [4, 6, 16, 18]
    )
    random = np.random.default_rng(0)
    for axes in (
        KernelAxes((2, 3, 4)),
        KernelAxes((4, 2, 3), inputs=(0,), units=(1, 2)),
        KernelAxes((2, 3, 4), inputs=(0, 1), units=(2,)),
        KernelAxes((3, 2, 5, 4), inputs=(-1,), units=(-2,)),
        KernelAxes((3, 4, 2), inputs=(-2,), units=(-2, -1)),
        KernelAxes((3, 2, 6), num_groups=2),
    ):
        inputs = np.flatnonzero(random.random(axes.num_inputs) < 0.5)
        units = np.flatnonzero(random.random(axes.num_units) < 0.5)
        each = np.arange(axes.size)
        is_between = np.isin(axes.inputs_of(each), inputs) & np.isin(axes.units_of(each), units)
        np.testing.assert_array_equal(
            axes.connections_between(inputs, units), np.flatnonzero(is_between)
        )


def test_axes_that_the_kernel_does_not_have_are_refused():
    with pytest.raises(
        ValueError, match="`inputs` must name axes of the kernel. .*inputs=\\(-3,\\)"
    ):
        KernelAxes((2, 3), inputs=(-3,))
    with pytest.raises(ValueError, match="num_groups=2, 3 units"):
        KernelAxes((2, 3), num_groups=2)
    assert KernelAxes((2, 3, 4), inputs=(0,), units=(1, 2)).units == (-2, -1)
