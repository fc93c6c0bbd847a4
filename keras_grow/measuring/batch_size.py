"""How many samples a measurement runs a model on at a time, where nobody said."""

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.keras_private import output_shapes
from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer, observing
from keras_grow.layers.sparse_product import LOOP
from keras_grow.measuring.loss import call_model, untouched

MOST_SAMPLES = 1000
MOST_BYTES = 2**30
"""What all that the layers compute for a batch may take together; about half of it is in memory at
a time, as seen on MobileNetV2 on a CPU."""

# A prime that no layer's width is likely to be a multiple of: of a graph for as many samples, what
# has an axis divisible by it grows with them. The graph is not run.
_TRACED_SAMPLES = 1009
_BYTES_OF_A_NUMBER = 4
_bytes_per_sample: weakref.WeakKeyDictionary[keras.Model, dict[Any, float]] = (
    weakref.WeakKeyDictionary()
)


def _unobserved(layers: Sequence[Growable]) -> Observer:
    return Observer()


def fitting_batch_size(
    model: keras.Model,
    data: Any,
    batch_size: int | None,
    training: bool = False,
    most_bytes: int | None = None,
    *,
    observer: Callable[[Sequence[Any]], Observer] = _unobserved,
    layers: Sequence[Growable] = (),
) -> int:
    """The batch size that was asked for, or as many samples as fit, 1,000 at most.

    What a sample costs is counted in the graph of the model's forward pass on a batch, which is
    traced for that and not run: the bytes of all that its operations put out, those inside a loop
    as often as the longest sequence has steps, but for loops of sparse layers, which keep nothing.
    It hangs on no clock and no free memory, so that the same is chosen each time.

    Args:
        model: a built model.
        data: as in `growth_data.batches`. Only a tuple of arrays is cut into batches.
        batch_size: positive integer, or `None`.
        training: the mode in which the model will run.
        most_bytes: for a batch, by default `MOST_BYTES`.
        observer: a function of module level that makes what watches `layers` meanwhile; what it
            computes counts too.
    """
    if batch_size is not None:
        return checked_integer(batch_size, "batch_size")
    if not isinstance(data, tuple) or not data:
        return MOST_SAMPLES
    try:
        cost = _cost_of_a_sample(model, data[0], training, observer, layers)
    except Exception:  # Data that does not fit is refused in words where it is read.
        return MOST_SAMPLES
    most_bytes = MOST_BYTES if most_bytes is None else most_bytes
    return min(MOST_SAMPLES, max(1, int(most_bytes // max(1.0, cost))))


def _cost_of_a_sample(
    model: keras.Model,
    x: Any,
    training: bool,
    observer: Callable[[Sequence[Any]], Observer],
    layers: Sequence[Growable],
) -> float:
    specs = keras.tree.map_structure(_of_traced_size, x)
    flat = [spec for spec in keras.tree.flatten(specs) if spec is not None]
    watched = tuple(map(id, layers))  # Not the layers, which may hold the model.
    key = (training, observer, watched, *((tuple(spec.shape), spec.dtype) for spec in flat))
    known = _bytes_per_sample.setdefault(model, {})
    if key not in known:

        @tf.function
        def forward(x):
            with untouched(model), observing(observer(layers)):
                return call_model(model, x, training=training)

        graph = forward.get_concrete_function(specs).graph.as_graph_def(add_shapes=True)
        functions = {each.signature.name: each.node_def for each in graph.library.function}
        longest = max((spec.shape[1] for spec in flat if spec.shape.rank > 1), default=1)
        known[key] = _num_numbers(graph.node, functions, longest) * (
            _BYTES_OF_A_NUMBER / _TRACED_SAMPLES
        )
    return known[key]


def _of_traced_size(array: Any) -> tf.TensorSpec | None:
    if array is None:
        return None
    array = array if isinstance(array, tf.Tensor) else np.asarray(array)
    return tf.TensorSpec((_TRACED_SAMPLES, *array.shape[1:]), tf.as_dtype(array.dtype))


def _num_numbers(nodes: Any, functions: dict[str, Any], longest: int) -> int:
    """How many numbers, for all traced samples, the operations of a graph put out."""
    total = 0
    for node in nodes:
        for shape in output_shapes(node):
            sizes = [dimension.size for dimension in shape.dim]
            grows = any(size % _TRACED_SAMPLES == 0 for size in sizes)
            if grows and min(sizes) > 0:
                total += math.prod(sizes)
        for name in ("f", "body", "then_branch"):
            function = functions.get(node.attr[name].func.name) if name in node.attr else None
            if function is not None:
                is_of_sparse_layer = node.name.rpartition("/")[2].startswith(LOOP)
                repeats = longest if name == "body" and not is_of_sparse_layer else 1
                total += repeats * _num_numbers(function, functions, longest)
    return total
