"""One pass over data: what a model gives batch by batch is added up, and progress is shown."""

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from keras_grow.measuring.growth_data import batch_size_of, batches

# A pass that takes longer shows its progress.
_PATIENCE_SECONDS = 2.0


def summed(measure: Callable[..., Any], *, hands_on: bool = False) -> Callable[..., Any]:
    """A step of `accumulate`, compiled once for batches of any size, that adds up what it measures.

    Args:
        measure: called as `measure(x, y, sample_weight, draw, ...)` with a batch, and whatever
            else the step is called with; returns a structure of tensors of static shapes.
        hands_on: whether `measure` returns a pair, of what is added up and of anything else, which
            the step hands on beside the sums.

    Returns:
        A function `step(sums, x, y, sample_weight, draw, ...)` of the sums so far, `None` at first.
    """

    @tf.function(reduce_retracing=True)
    def found(*batch):
        new = measure(*batch)
        return new if hands_on else (new, ())

    # Adding inside a compiled step spares the memory of one more array of each.
    @tf.function(reduce_retracing=True)
    def found_and_added(sums, *batch):
        new, rest = found(*batch)
        return tf.nest.map_structure(tf.add, sums, new), rest

    def step(sums, *batch):
        if sums is None:
            # Traced for any number of samples: a smaller last batch is no new trace.
            specs = tree.map_structure(_of_any_size, batch)
            outputs, _ = found.get_concrete_function(*specs).structured_outputs
            sums = tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), outputs)
            sum_specs = tf.nest.map_structure(tf.type_spec_from_value, sums)
            found_and_added.get_concrete_function(sum_specs, *specs)
        sums, rest = found_and_added(sums, *batch)
        return (sums, rest) if hands_on else sums

    return step


def accumulate(
    step: Callable[..., Any], data: Any, batch_size: int, verbose: str | int = "auto"
) -> tuple[Any, int]:
    """Runs `step` over the data.

    Args:
        step: called as `step(sums, x, y, sample_weight, draw)` with the sums so far (`None` at
            first) and the number of the batch; returns the new sums. `summed` makes one.
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


def _of_any_size(array: Any) -> Any:
    """The type of a batch's array, whatever its number of samples."""
    if array is None:
        return None
    spec = tf.type_spec_from_value(array)
    is_batch = isinstance(spec, tf.TensorSpec) and spec.shape.rank
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) if is_batch else spec
