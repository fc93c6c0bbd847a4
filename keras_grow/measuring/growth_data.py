"""Growth data in any form that `model.fit` knows, as batches."""

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.integers import checked_integer

Batch = tuple[Any, Any, Any]
"""`(x, y, sample_weight)`, each a tensor, a structure of tensors, or `None`."""


def batches(data: Any, batch_size: int) -> tuple[Callable[[], Iterator[Batch]], int | None]:
    """Reads growth data batch by batch.

    Args:
        data: a tuple of arrays `(x,)`, `(x, y)` or `(x, y, sample_weight)`, each an array or a
            structure of arrays with the samples on the first axis; or anything that gives
            batches of that form: a `tf.data.Dataset`, a `keras.utils.PyDataset`, an iterable.
        batch_size: positive integer, the samples per batch of a tuple of arrays; the other
            forms come in batches already.

    Returns:
        A function that starts a pass over the data, and the number of batches in a pass, or
        `None` where it is not known.

    Raises:
        TypeError: for data of another kind.
        ValueError: for empty arrays, arrays of different lengths, and data without an end.
    """
    if isinstance(data, tuple):
        return _array_batches(data, batch_size)
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        if count is None:
            raise ValueError(
                "Growth data must end. Received: a PyDataset without a length (`num_batches` is "
                "None). Define `__len__`."
            )
        return lambda: (_unpack(data[i]) for i in range(count)), count
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        if count == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "Growth data must end. Received: a dataset that repeats for ever. Take a part of "
                "it: `dataset.take(num_batches)`."
            )
        return lambda: map(_unpack, data), count if count >= 0 else None
    if isinstance(data, (np.ndarray, tf.Tensor, str, dict)) or not isinstance(data, Iterable):
        raise TypeError(
            "Growth data must be a tuple of arrays `(x, y)` or `(x, y, sample_weight)`, a "
            "tf.data.Dataset, a keras.utils.PyDataset or an iterable of batches. "
            f"Received: {type(data).__name__}"
        )
    if isinstance(data, list) and any(isinstance(x, np.ndarray | tf.Tensor) for x in data):
        raise TypeError(
            "A list is read as batches, each of them `(x,)`, `(x, y)` or `(x, y, sample_weight)`; "
            f"arrays go together in a tuple. Received: a list of {len(data)} arrays. Pass "
            "`(x, y)` in the place of `[x, y]`."
        )
    count = len(data) if isinstance(data, Sized) else None
    return lambda: map(_unpack, data), count


def drawn(data: Any, num_samples: int, seed: int, step: int) -> tuple:
    """Some samples of arrays, without replacement: a function of (seed, step).

    Args:
        data: a tuple of arrays as `batches` takes it.
        num_samples: how many; all where there are not more.
        seed, step: non-negative integers.

    Raises:
        TypeError: for data in batches.
    """
    if not isinstance(data, tuple):
        raise TypeError(
            "Samples are drawn from a tuple of arrays, `(x, y)` or `(x, y, sample_weight)`. "
            f"Received: num_samples={num_samples} and data of type {type(data).__name__}. Of a "
            "dataset take a part: `dataset.take(num_batches)`."
        )
    # What is wrong with the arrays is said where they are read.
    _array_batches(data, 1)
    data = tree.map_structure(_as_array, data)
    size = next(len(array) for array in tree.flatten(data) if array is not None)
    if num_samples >= size:
        return data
    chosen = np.random.default_rng([seed, step]).choice(size, num_samples, replace=False)
    chosen.sort()

    def take(array: Any) -> Any:
        if array is None:
            return None
        return tf.gather(array, chosen) if isinstance(array, tf.Tensor) else array[chosen]

    return tree.map_structure(take, data)


def batch_size_of(x: Any) -> tf.Tensor:
    """The number of samples in a batch, int64 scalar.

    Raises:
        ValueError: if `x` holds no array, or a scalar.
    """
    arrays = [array for array in tree.flatten(x) if array is not None]
    if not arrays:
        raise ValueError(
            f"A batch of growth data must hold at least one array x. Received: x={x!r}"
        )
    if arrays[0].shape.rank == 0:
        raise ValueError(
            "Growth data must hold arrays with the samples on the first axis. "
            f"Received: {arrays[0]!r}"
        )
    return tf.shape(arrays[0], out_type=tf.int64)[0]


def _array_batches(arrays: tuple, batch_size: int) -> tuple[Callable[[], Iterator[Batch]], int]:
    batch_size = checked_integer(batch_size, "batch_size")
    if not 1 <= len(arrays) <= 3:
        raise ValueError(
            "Growth data as a tuple must be `(x,)`, `(x, y)` or `(x, y, sample_weight)`. "
            f"Received: a tuple of {len(arrays)}"
        )
    arrays = tree.map_structure(_as_array, arrays)
    if all(array is None for array in tree.flatten(arrays[0])):
        raise ValueError(f"Growth data must hold at least one array x. Received: x={arrays[0]!r}")
    lengths = {len(array) for array in tree.flatten(arrays) if array is not None}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "Growth data must have the same, positive number of samples in every array. "
            f"Received: lengths {sorted(lengths)}"
        )
    (num_samples,) = lengths

    def read() -> Iterator[Batch]:
        for start in range(0, num_samples, batch_size):
            part = slice(start, start + batch_size)
            yield _unpack(
                tree.map_structure(lambda a, part=part: None if a is None else a[part], arrays)
            )

    return read, math.ceil(num_samples / batch_size)


def _as_array(array: Any) -> Any:
    if array is None:
        return array
    array = array if isinstance(array, tf.Tensor) else np.asarray(array)
    if array.ndim == 0:
        raise ValueError(
            "Growth data as a tuple must hold arrays with the samples on the first axis. "
            f"Received: {array!r}"
        )
    return array


def _unpack(batch: Any) -> Batch:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return x, y, sample_weight
