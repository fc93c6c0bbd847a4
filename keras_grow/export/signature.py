"""What a model takes and what it answers with, in names that every format understands."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.measuring.samples import OTHER_WORDS


def input_signature(model: keras.Model) -> Any:
    """The structure of `tf.TensorSpec` that `model` takes, each with a name; the batch is free.

    Raises:
        ValueError: for a subclassed model, which does not know its inputs.
    """
    if getattr(model, "inputs", None) is None:
        raise ValueError(
            "A subclassed model does not know its inputs. Received: "
            f"{type(model).__name__} without `inputs`. Pass `input_signature=`, such as "
            '`tf.TensorSpec((None, 784), "float32", name="images")`.'
        )
    return tree.map_structure(
        lambda tensor: tf.TensorSpec(
            tensor.shape, tensor.dtype, name=re.sub(r"\W", "_", tensor.name)
        ),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )


def output_names(model: keras.Model) -> list[str] | None:
    """Names of the outputs in their order, `None` where the model has no names for them."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    names = getattr(model, "output_names", None)
    if names is None or len(set(names)) < len(names):
        return None
    return list(names)


def random_inputs(signature: Any, count: int, seed: int = 0, words: Sequence[str] = ()) -> Any:
    """Inputs to check an export on: normal numbers, 0 and 1 for whole numbers, words for strings.

    Args:
        signature: a structure of `tf.TensorSpec`.
        count: samples; it takes the place of the free batch size. Other free sizes become 4.
        seed: of the numbers.
        words: for strings, beside some that no vocabulary has.

    Returns:
        NumPy arrays in the structure of `signature`.
    """
    random = np.random.default_rng(seed)

    def draw(spec: tf.TensorSpec) -> np.ndarray:
        sizes = [4 if size is None else size for size in spec.shape]
        if spec.shape.rank:
            sizes[0] = spec.shape[0] or count
        dtype = tf.as_dtype(spec.dtype)
        if dtype.is_floating:
            return random.normal(size=sizes).astype(dtype.as_numpy_dtype)
        if dtype == tf.string:
            return random.choice([*words, *OTHER_WORDS], size=sizes).astype(object)
        return random.integers(0, 2, size=sizes).astype(dtype.as_numpy_dtype)

    return tree.map_structure(draw, signature)
