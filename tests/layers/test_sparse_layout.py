"""The tables of a sparse layer lead to every connection once, however they are spread."""

import numpy as np
import pytest

from keras_grow.layers.sparse_layout import Layout, RowPlan, Rows, stable_order, why_no_layout


@pytest.mark.parametrize("largest", [1, 2, 2**16 - 1, 2**16, 2**17 + 3, 2**33, 2**50])
def test_the_order_is_that_of_a_stable_sort(largest):
    random = np.random.default_rng(0)
    few = random.integers(0, largest, size=5)
    keys = np.concatenate([random.integers(0, largest, size=400), np.repeat(few, 40)])
    random.shuffle(keys)
    # Numbers that differ in any one bit.
    keys = np.concatenate([keys, [bit for bit in 2 ** np.arange(51) if bit <= largest]])
    np.testing.assert_array_equal(stable_order(keys), np.argsort(keys, kind="stable"))


def test_of_no_keys_there_is_no_order():
    assert stable_order(np.zeros(0, np.int64)).tolist() == []


def _spreads(num_keys, capacity, width):
    """Numbers of connections by key: even, all in one, one more than a row in as many as can be."""
    random = np.random.default_rng(0)
    yield np.bincount(random.integers(0, num_keys, size=capacity), minlength=num_keys)
    yield np.eye(num_keys, dtype=int)[num_keys // 2] * capacity
    for each in (width, width + 1, 2 * width, 2 * width + 1):
        counts = np.zeros(num_keys, int)
        counts[: capacity // each] = each
        yield counts
    yield np.zeros(num_keys, int)


@pytest.mark.parametrize(("num_keys", "capacity"), [(5, 3), (7, 400), (64, 900), (300, 3000)])
def test_rows_hold_the_connections_of_each_key(num_keys, capacity):
    plan = RowPlan.of(num_keys, capacity)
    for counts in _spreads(num_keys, capacity, plan.width):
        rows = Rows.of(counts, plan)
        assert np.all(np.diff(rows.table[1]) <= 0)
        assert rows.table[1].max(initial=0) <= plan.width
        assert rows.table.shape == (2, plan.num_rows)
        assert rows.table[1, -1] == rows.long_table[1, -1] == 0
        ends = np.cumsum(counts)
        for key, (end, count) in enumerate(zip(ends, counts, strict=True)):
            row, long_row = rows.places[:, key]
            pieces = [row]
            if long_row != plan.num_long - 1:
                assert row == plan.num_rows - 1
                first, length = rows.long_table[:, long_row]
                pieces = rows.pieces[first : first + length]
                assert length > 1
            spans = [np.arange(s, s + n) for s, n in rows.table[:, pieces].T]
            assert np.concatenate(spans).tolist() == list(range(end - count, end))


def test_arrays_that_are_no_layout_say_why():
    shape, capacity = (6, 5), 12
    connections = np.array([0, 3, 7, 8, 14, 22, 29])
    sound = Layout.of(connections, shape, capacity).arrays()
    assert why_no_layout(sound, shape, capacity) is None
    np.testing.assert_array_equal((sound["inputs"] * 5 + sound["units"])[:7], connections)
    for name, place, value, why in [
        ("inputs", 0, -1, "no connections of its kernel"),
        ("units", 0, -1, "no connections of its kernel"),
        ("units", 6, 5, "no connections of its kernel"),
        ("inputs", 9, 7, "no connections of its kernel"),
        ("inputs", 2, 0, "out of order, or there twice"),
        ("units", 1, 0, "out of order, or there twice"),
        ("by_unit_slots", 0, 1, "tables that do not belong"),
        ("unit_table", (0, 0), 2, "tables that do not belong"),
        ("units", 8, 0, "tables that do not belong"),
    ]:
        arrays = {key: array.copy() for key, array in sound.items()}
        arrays[name][place] = value
        assert why in (why_no_layout(arrays, shape, capacity) or "")
