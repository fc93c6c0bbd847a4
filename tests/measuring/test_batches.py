"""How many batches there are in each form of growth data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow.measuring.growth_data import batches

X, Y = np.arange(10.0)[:, None], np.arange(10)


class _PyDataset(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


_DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
_PAIRS = [(X[:4], Y[:4]), (X[4:8], Y[4:8]), (X[8:], Y[8:])]


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ((X, Y), 3),
        (_DATASET, 3),
        (_DATASET.filter(lambda x, y: True), None),
        (_PyDataset(), 3),
        (_PAIRS, 3),
        (iter(_PAIRS), None),
    ],
    ids=["arrays", "dataset", "of unknown length", "PyDataset", "list", "iterator"],
)
def test_batches_are_counted_where_that_is_known(data, count):
    read, found = batches(data, 4)
    assert found == count
    parts = list(read())
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in parts]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y, _ in parts]), Y)
    assert [len(x) for x, _, _ in parts] == [4, 4, 2]
    assert all(weight is None for _, _, weight in parts)


def test_data_without_an_end_are_refused():
    with pytest.raises(ValueError, match="a dataset that repeats for ever"):
        batches(_DATASET.repeat(), 4)
