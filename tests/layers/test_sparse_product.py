"""Products with a sparse kernel, forward and backward, are the dense ones."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_grow.layers.sparse_layout import Layout, RowPlan, Rows, stable_order
from keras_grow.layers.sparse_product import sparse_matmul

_TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}


def _random(random, shape, capacity):
    return np.sort(random.choice(np.prod(shape), min(capacity, np.prod(shape)) // 2, replace=False))


def _a_unit_with_every_input(random, shape, capacity):
    hub = np.arange(shape[0]) * shape[1] + shape[1] // 2
    return np.unique(np.concatenate([hub, _random(random, shape, capacity)]))[:capacity]


def _an_input_of_every_unit(random, shape, capacity):
    hub = shape[0] // 2 * shape[1] + np.arange(shape[1])
    return np.unique(np.concatenate([hub, _random(random, shape, capacity)]))[:capacity]


def _empty(random, shape, capacity):
    return np.zeros(0, np.int64)


def _full(random, shape, capacity):
    return np.arange(min(capacity, np.prod(shape)))


_PATTERNS = [_random, _a_unit_with_every_input, _an_input_of_every_unit, _empty, _full]


def _deviation(actual, expected):
    """max|a - b| / max|b|"""
    actual = np.asarray(tf.cast(actual, tf.float64))
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)


@functools.cache
def _run(jit_compile):
    """The product and its gradients, traced and compiled once for all layers of one shape."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(x, values, layout, d):
        with tf.GradientTape() as tape:
            tape.watch([x, values])
            y = sparse_matmul(x, values, layout)
        return y, *tape.gradient(y, [x, values], d)

    return run


def _check(shape, capacity, pattern, batch, dtype, jit_compile=False):
    random = np.random.default_rng(0)
    connections = pattern(random, shape, capacity)
    arrays = Layout.of(connections, shape, capacity).arrays()
    layout = {name: tf.constant(array) for name, array in arrays.items()}
    # Free slots store something, which must not be seen.
    values = tf.constant(random.normal(size=capacity), dtype)
    x, d = (tf.constant(random.normal(size=(batch, size)), dtype) for size in shape)

    y, dx, dvalues = _run(jit_compile)(x, values, layout, d)
    x, values, d = (np.asarray(tf.cast(a, tf.float64)) for a in (x, values, d))
    kernel = np.zeros(shape)
    kernel.reshape(-1)[connections] = values[: len(connections)]
    tolerance = _TOLERANCES[dtype]
    assert _deviation(y, x @ kernel) <= tolerance
    assert _deviation(dx, d @ kernel.T) <= tolerance
    of_active = (x.T @ d).reshape(-1)[connections]
    if len(connections):
        assert _deviation(dvalues[: len(connections)], of_active) <= tolerance
    assert not np.any(dvalues[len(connections) :].numpy())


# Every pattern in one precision and every precision in one pattern, where rows differ in length;
# both half precisions sum in float32.
@pytest.mark.parametrize(
    ("pattern", "dtype"),
    [
        pytest.param(
            pattern,
            dtype,
            id=f"{pattern.__name__}-{dtype}",
            marks=()
            if dtype == "float64" or (pattern is _random and dtype != "bfloat16")
            else pytest.mark.slow,
        )
        for pattern in _PATTERNS
        for dtype in _TOLERANCES
    ],
)
def test_the_product_and_its_gradients_are_the_dense_ones(pattern, dtype):
    _check((60, 45), 300, pattern, 20, dtype)


# The gradient takes each layout the other way round: (9, 1) is (1, 9) there.
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, marks=() if shape in ((9, 1), (700, 1300)) else pytest.mark.slow)
        for shape in ((1, 1), (1, 9), (9, 1), (700, 1300), (3, 2000))
    ],
)
def test_any_shape_of_the_kernel(shape):
    _check(shape, 5000 if shape[1] > 9 else 8, _random, 7, "float64")


# The quick one is more than all lanes take at once.
@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(batch, marks=() if batch == 129 else pytest.mark.slow)
        for batch in (1, 2, 15, 16, 17, 32, 33, 64, 65, 128, 129, 300)
    ],
)
def test_any_batch_size(batch):
    _check((60, 45), 2100, _a_unit_with_every_input, batch, "float64")


# Of both, this one has the long row as well.
@pytest.mark.parametrize(
    "pattern", [pytest.param(_random, marks=pytest.mark.slow), _an_input_of_every_unit]
)
def test_inside_a_step_that_xla_compiles_as_a_whole(pattern):
    _check((60, 45), 300, pattern, 20, "float32", jit_compile=True)


def test_rows_hold_each_connection_once_and_stand_by_length():
    random = np.random.default_rng(1)
    for capacity in (1, 5, 40, 3000):
        counts = random.multinomial(capacity, random.dirichlet(np.full(37, 0.1)))
        plan = RowPlan.of(37, capacity)
        rows = Rows.of(counts, plan)
        (starts, lengths), (long_starts, long_lengths) = rows.table, rows.long_table
        for each in (lengths, long_lengths):
            assert np.all(np.diff(each) <= 0)
            assert each[-1] == 0
        for key in range(37):
            row, long_row = rows.places[:, key]
            begin = long_starts[long_row]
            of_key = [row, *rows.pieces[begin : begin + long_lengths[long_row]]]
            held = [range(starts[r], starts[r] + lengths[r]) for r in of_key]
            begin = counts[:key].sum()
            assert [i for some in held for i in some] == list(range(begin, begin + counts[key]))


def test_a_unit_may_take_all_of_the_capacity():
    for keys, capacity in [(1, 10_000), (37, 3000), (5000, 20)]:
        plan = RowPlan.of(keys, capacity)
        for heavy in (0, keys - 1):
            counts = np.zeros(keys, int)
            counts[heavy] = capacity
            assert Rows.of(counts, plan).table[1].sum() == capacity


def test_the_order_by_radix_is_numpys_stable_order():
    random = np.random.default_rng(2)
    for largest in (1, 100, 70_000, 2**40):
        keys = random.integers(largest, size=1000)
        np.testing.assert_array_equal(stable_order(keys), np.argsort(keys, kind="stable"))
    assert len(stable_order(np.zeros(0, np.int64))) == 0


def test_the_example_in_the_layouts_description_is_what_it_makes():
    layout = Layout.of(np.array([0, 3, 4]), (3, 2), 4)
    np.testing.assert_array_equal(layout.inputs, [0, 1, 2, 3])
    np.testing.assert_array_equal(layout.units, [0, 1, 0, 2])
    np.testing.assert_array_equal(layout.by_unit_slots, [0, 2, 1, 3])
    np.testing.assert_array_equal(layout.unit_rows.table[:, :2], [[0, 2], [2, 1]])
    np.testing.assert_array_equal(layout.input_rows.table[:, :3], [[0, 1, 2], [1, 1, 1]])
