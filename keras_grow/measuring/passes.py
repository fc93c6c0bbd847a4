"""One pass over data: sums over batches, with progress shown when it takes long."""

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_grow.measuring.growth_data import batch_size_of, batches

# A pass that takes longer shows its progress.
_PATIENCE_SECONDS = 2.0


def sum_over_batches(
    step: Callable[..., Any], data: Any, batch_size: int, verbose: str | int
) -> tuple[Any, int]:
    """Runs `step` over the data.

    Args:
        step: called as `step(sums, x, y, sample_weight, draw)` with the sums so far (`None` at
            first) and the number of the batch; returns the new sums.
        data, batch_size: see `growth_data.batches`.
        verbose: 0 shows no progress, 1 shows it, "auto" shows it once the pass has taken two
            seconds; arrays, with how many samples go together.

    Returns:
        The last sums, and the number of samples.

    Raises:
        ValueError: if the data has no sample, or does not fit the model.
    """
    if verbose not in (0, 1, "auto"):
        raise ValueError(f'`verbose` must be 0, 1 or "auto". Received: verbose={verbose!r}')
    read, num_batches = batches(data, batch_size)
    started = time.perf_counter()
    progress = None
    sums, num_samples, largest = None, 0, 0
    for draw, (x, y, sample_weight) in enumerate(read()):
        x, y, sample_weight = tree.map_structure(_to_tensor, (x, y, sample_weight))
        size = int(batch_size_of(x))
        if size == 0:
            continue
        try:
            sums = step(sums, x, y, sample_weight, tf.constant(draw, tf.uint32))
        except (TypeError, ValueError, tf.errors.OpError) as error:
            shapes = tree.map_structure(
                lambda a: None if a is None else tuple(a.shape), (x, y, sample_weight)
            )
            raise ValueError(
                "The model could not be run on the data. Received: a batch (x, y, sample_weight) "
                f"of shapes {shapes}. Expected what `model.fit` takes: {error}"
            ) from error
        num_samples, largest = num_samples + size, max(largest, size)
        is_long = verbose == "auto" and time.perf_counter() - started > _PATIENCE_SECONDS
        if progress is None and (verbose == 1 or is_long):
            # Nobody may have said how many samples of an array go together.
            unit = f"batch of {largest:,}" if isinstance(data, tuple) else "batch"
            progress = keras.utils.Progbar(num_batches, unit_name=unit)
        if progress is not None:
            progress.update(draw + 1, finalize=draw + 1 == num_batches)
    if num_samples == 0:
        raise ValueError(
            "Growth data must hold at least one sample. Received: no batch. A generator gives its "
            "batches only once; pass a dataset, a PyDataset or arrays to use it again."
        )
    return sums, num_samples


def _to_tensor(array: Any) -> Any:
    is_ready = array is None or isinstance(array, (tf.SparseTensor, tf.RaggedTensor))
    return array if is_ready else tf.convert_to_tensor(array)
