"""Inputs that are made up for a model are of every kind that it takes, the likeliest first."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_grow.measuring.samples import OTHER_WORDS, generated_inputs, vocabulary


def _model(*inputs):
    return keras.Model(list(inputs), [layers.Identity()(each) for each in inputs])


def test_integers_lie_below_the_smallest_table_and_are_then_zeros_and_ones():
    x = keras.Input((40,), dtype="int32")
    outputs = [layers.Embedding(size, 2)(x) for size in (9, 5, 7)]
    attempts = [np.asarray(tensors) for tensors in generated_inputs(keras.Model(x, outputs))]
    assert [set(np.unique(each)) for each in attempts] == [{0, 1, 2, 3, 4}] * 2 + [{0, 1}]
    assert attempts[0].shape == (32, 40)
    assert attempts[0].dtype == "int32"


def test_integers_that_no_table_is_known_for_are_zeros_and_ones():
    for tensors in generated_inputs(_model(keras.Input((40,), dtype="int64"))):
        assert set(np.unique(tensors)) == {0, 1}


def test_floats_are_normal_and_then_small_integers():
    x = keras.Input((50,))
    encoded = layers.CategoryEncoding(4, "count")(x)
    first, second, third = (np.asarray(t) for t in generated_inputs(keras.Model(x, encoded)))
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.1
    assert set(np.unique(second)) == {0, 1, 2, 3}
    assert set(np.unique(third)) == {0, 1}


def test_free_sizes_are_one_after_the_other_and_others_stay():
    x, fixed = keras.Input((None, 3)), keras.Input((6,))
    shapes = [tuple(t.shape for t in tensors) for tensors in generated_inputs(_model(x, fixed))]
    assert shapes[::3] == [((32, size, 3), (32, 6)) for size in (32, 128, 8)]
    assert len(shapes) == 9
    assert len(list(generated_inputs(_model(fixed)))) == 3


@pytest.mark.parametrize(
    ("shapes", "count"),
    [([(3,)], 32), ([(2**14,)], 16), ([(2**14,), (2**14,)], 8), ([(2**20,)], 2)],
)
def test_there_are_as_many_samples_as_numbers_allow(shapes, count):
    first = next(generated_inputs(_model(*map(keras.Input, shapes))))
    assert {tensor.shape[0] for tensor in tf.nest.flatten(first)} == {count}


def test_a_fixed_batch_is_kept():
    first = next(generated_inputs(_model(keras.Input(batch_shape=(5, 3)))))
    assert tf.nest.flatten(first)[0].shape == (5, 3)


def test_texts_are_one_to_three_words_of_the_vocabularies_and_others():
    x = keras.Input((1,), dtype="string")
    lookup = layers.StringLookup(vocabulary=["dog", "cat", "bird"])
    model = keras.Model(x, lookup(x))
    assert vocabulary(model) == ["[UNK]", "bird", "cat", "dog"]
    texts = [text.decode() for text in np.ravel(next(generated_inputs(model)))]
    assert {len(text.split()) for text in texts} == {1, 2, 3}
    words = {word for text in texts for word in text.split()}
    assert words == {"[UNK]", "bird", "cat", "dog", *OTHER_WORDS}


def test_sparse_inputs_and_the_structure_of_inputs_stay():
    inputs = {"a": keras.Input((4,), sparse=True), "b": keras.Input((3,))}
    outputs = layers.Dense(2)(inputs["a"]) + layers.Dense(2)(inputs["b"])
    first = next(generated_inputs(keras.Model(inputs, outputs)))
    assert isinstance(first["a"], tf.SparseTensor)
    assert first["b"].shape == (32, 3)
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert next(generated_inputs(sequential)).shape == (32, 4)


def test_they_are_those_of_the_seed():
    model = _model(keras.Input((4,)))
    a, b, c = (np.asarray(next(generated_inputs(model, seed))[0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)
