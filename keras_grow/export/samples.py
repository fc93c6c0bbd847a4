"""Samples on which an export is compared with its model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.export.signature import random_inputs
from keras_grow.export.tracing import TracedModel
from keras_grow.measuring.loss import call_model

_BATCH_SIZE = 32
_NUM_SAMPLES = 64
Batch = dict[str, np.ndarray]


def batches(traced: TracedModel, input_signature: Any, data: Any = None) -> list[Batch]:
    """Inputs by name, cut into batches.

    Args:
        traced: what the inputs are for.
        input_signature: the structure of `tf.TensorSpec` that the model takes.
        data: samples in that structure; by default 64 of normal numbers.

    Returns:
        Where the batch size is free, a batch of the first sample alone, and then batches of 32,
        the last one smaller. Where it is fixed, batches of that size; samples left over are not
        used.
    """
    if data is None:
        data = random_inputs(input_signature, _NUM_SAMPLES)
    named = traced.named(data)
    fixed = {spec.shape[0] for spec in traced.signature if spec.shape.rank} - {None}
    size = min(fixed, default=_BATCH_SIZE)
    count = min((len(array) for array in named.values() if array.ndim), default=1)
    starts = list(range(0, count - size + 1 if fixed else count, size))
    if not starts:
        raise ValueError(
            "There is nothing to compare the export on. Expected `data` of at least "
            f"{size if fixed else 1} samples. Received: {count}"
        )
    cut = [{name: array[i : i + size] for name, array in named.items()} for i in starts]
    first = [] if fixed else [{name: array[:1] for name, array in named.items()}]
    return first + cut


def outputs_of(run: Callable[[Batch], list[Any]], samples: list[Batch]) -> list[np.ndarray]:
    """The outputs of all batches, each output joined over them."""
    outputs = [[np.asarray(array) for array in run(batch)] for batch in samples]
    return [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]


def expected_outputs(
    model: keras.Model, traced: TracedModel, input_signature: Any, samples: list[Batch]
) -> list[np.ndarray]:
    """What `model` itself makes of the samples at inference, called as a user calls it."""

    def run(batch: Batch) -> list[Any]:
        flat = [tf.constant(batch[name]) for name in traced.input_names]
        inputs = tree.pack_sequence_as(input_signature, flat)
        return tree.flatten(call_model(model, inputs, training=False))

    return outputs_of(run, samples)
