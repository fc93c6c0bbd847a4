"""Samples on which an export is compared with its model."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_grow.export.inference import Arrays, Inference, Serve
from keras_grow.measuring.samples import OTHER_WORDS, vocabulary

_BATCH_SIZE = 32
_NUM_SAMPLES = 64


def batches(inference: Inference, data: Any = None) -> list[Arrays]:
    """Inputs by name, cut into batches.

    Args:
        inference: the model that they are for.
        data: samples in the structure that it takes; by default 64 of `random_inputs`.

    Returns:
        Where the batch size is free, a batch of the first sample alone, which a sparse product
        treats in its own way, and then batches of 32, the last one smaller. Where it is fixed,
        batches of that size; samples left over are not used.

    Raises:
        ValueError: for data of another structure, and for too few of them.
    """
    named = random_inputs(inference, _NUM_SAMPLES) if data is None else inference.named(data)
    fixed = min((s.shape[0] for s in inference.specs if s.shape.rank and s.shape[0]), default=None)
    count, least = _count(named), fixed or 1
    if count < least:
        raise ValueError(
            "There is nothing to compare the export on. Expected `data` of at least "
            f"{least} samples. Received: {count}"
        )
    if fixed:
        return cut(named, fixed)[: count // fixed]
    return [{name: array[:1] for name, array in named.items()}, *cut(named, _BATCH_SIZE)]


def cut(named: Arrays, size: int) -> list[Arrays]:
    """Arrays by name in parts of `size` samples, the last one smaller."""
    return [
        {name: array[start : start + size] for name, array in named.items()}
        for start in range(0, _count(named), size)
    ]


def _count(named: Arrays) -> int:
    return min((len(array) for array in named.values() if array.ndim), default=1)


def random_inputs(inference: Inference, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name: normal numbers, 0 and 1 for whole numbers, words for strings.

    Args:
        inference: the model that they are for, whose vocabulary strings are drawn from, too.
        count: samples; it takes the place of the free batch size. Other free sizes become 4.
        seed: of the numbers.
    """
    random = np.random.default_rng(seed)
    words = [*vocabulary(inference.model), *OTHER_WORDS]

    def draw(spec: tf.TensorSpec) -> np.ndarray:
        sizes = [4 if size is None else size for size in spec.shape]
        if spec.shape.rank:
            sizes[0] = spec.shape[0] or count
        dtype = tf.as_dtype(spec.dtype)
        if dtype.is_floating:
            return random.normal(size=sizes).astype(dtype.as_numpy_dtype)
        if dtype == tf.string:
            return random.choice(words, size=sizes).astype(object)
        return random.integers(0, 2, size=sizes).astype(dtype.as_numpy_dtype)

    return {spec.name: draw(spec) for spec in inference.specs}


def outputs_of(serve: Serve, samples: list[Arrays]) -> dict[str, np.ndarray]:
    """The outputs of all batches by name, each joined over them."""
    outputs = [serve(batch) for batch in samples]
    return {name: np.concatenate([batch[name] for batch in outputs]) for name in outputs[0]}
