"""Inputs made up for a model, of every kind that it takes."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.paths import nested_layers

# More samples find more; these many numbers in all are enough, and still quick.
_MOST_NUMBERS = 2**18
_MOST_SAMPLES = 32
# Words that no vocabulary is likely to have, and that parse as numbers.
OTHER_WORDS = ("1", "0", "unheard-of")


def generated_inputs(model: keras.Model, seed: int = 0) -> Iterator[Any]:
    """Inputs in the structure that `model` takes, the likeliest to suit it first.

    Floats are normal numbers, then 0 and 1, in case they stand for something to be looked up;
    integers lie below the smallest table that a layer looks them up in, then are 0 and 1; strings
    are words of the vocabularies of the model's layers, one or several in each. Free sizes become
    32, then others, for models that shrink their inputs or add up to a size.

    Args:
        model: a built Sequential or functional model.
        seed: of the numbers.
    """
    layers = nested_layers(model)
    words = [*vocabulary(model), *OTHER_WORDS]
    tables = [
        getattr(layer, "input_dim", None) or getattr(layer, "num_tokens", None)
        for layer in layers
        if isinstance(layer, keras.layers.Embedding | keras.layers.CategoryEncoding)
    ]
    smallest_table = min((size for size in tables if size), default=2)
    has_free_sizes = any(None in tensor.shape[1:] for tensor in model.inputs)
    for free_size in (32, 128, 8) if has_free_sizes else (32,):
        for largest, is_normal in ((smallest_table, True), (smallest_table, False), (2, False)):
            random = np.random.default_rng(seed)
            count = _num_samples(model, free_size)
            tensors = [
                _draw(tensor, count, free_size, largest, is_normal, words, random)
                for tensor in model.inputs
            ]
            if isinstance(model, keras.Sequential):
                yield tensors[0]
            else:
                yield keras.tree.pack_sequence_as(model.input, tensors)


def _num_samples(model: keras.Model, free_size: int) -> int:
    fixed = [tensor.shape[0] for tensor in model.inputs if tensor.shape and tensor.shape[0]]
    if fixed:
        return fixed[0]
    numbers = sum(
        math.prod(free_size if size is None else size for size in tensor.shape[1:])
        for tensor in model.inputs
    )
    return min(_MOST_SAMPLES, max(2, _MOST_NUMBERS // numbers))


def _draw(
    tensor: keras.KerasTensor,
    count: int,
    free_size: int,
    largest: int,
    is_normal: bool,
    words: list[str],
    random: np.random.Generator,
) -> Any:
    shape = [free_size if size is None else size for size in tensor.shape]
    if shape:
        shape[0] = tensor.shape[0] or count
    dtype = tf.as_dtype(tensor.dtype)
    if dtype == tf.string:
        texts = [" ".join(random.choice(words, 1 + i % 3)) for i in range(math.prod(shape))]
        drawn = tf.reshape(tf.constant(texts), shape)
    elif is_normal and (dtype.is_floating or dtype.is_complex):
        drawn = tf.cast(random.normal(size=shape), dtype)
    else:
        drawn = tf.cast(random.integers(0, largest, size=shape), dtype)
    if getattr(tensor, "ragged", False):
        return tf.RaggedTensor.from_tensor(drawn)
    return tf.sparse.from_dense(drawn) if getattr(tensor, "sparse", False) else drawn


def vocabulary(model: keras.Model) -> list[str]:
    """The words that layers of a model look up, sorted."""
    lookups = [layer for layer in nested_layers(model) if hasattr(layer, "get_vocabulary")]
    words = [str(word) for layer in lookups for word in layer.get_vocabulary()]
    return sorted({word for word in words if word})
