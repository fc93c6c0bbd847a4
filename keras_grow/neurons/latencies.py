"""How long the layers of a model take, each alone, at several sizes."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.export.turns import interleaved_seconds
from keras_grow.integers import checked_integer
from keras_grow.layers.affine import Affine
from keras_grow.layers.paths import find_layers
from keras_grow.measuring.agreement import given_inputs
from keras_grow.measuring.interception import intercepted, run_intercepted
from keras_grow.measuring.samples import generated_inputs
from keras_grow.neurons.latency_table import LatencyTable
from keras_grow.structure.copying import made_anew
from keras_grow.structure.graph import Graph, Step
from keras_grow.structure.kernels import has_kernel, why_not_resizable
from keras_grow.structure.rules import Depthwise, computing, rule_for
from keras_grow.structure.unit_graph import UnitGraph


def measure_latencies(
    model: keras.Model,
    data: Any = None,
    *,
    batch_size: int = 1,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    layers: Sequence[str | keras.Layer] | None = None,
    seconds: float = 0.5,
) -> LatencyTable:
    """Measures the table by which `keras_grow.budgets.Milliseconds` chooses units to prune.

    For each layer whose units may come and go, plain layers of its kind with some shares of its
    inputs and units are called in turns, each in a compiled function, at the positions that the
    model gives it. The median counts, less what a call of nothing takes, which a layer inside a
    model does not cost again. Where noise would have a larger layer be faster, it gets the smaller
    one's time. Threads and device are those of the process: measure where the network is to run.
    Layers with several kernels, such as attention, and convolutions with groups are not measured,
    and a budget of milliseconds does not count them.

    Args:
        model: a built Sequential or functional model, which stays as it was.
        data: samples x as the model takes them, in the forms that `grow` takes; they say of what
            size inputs are that may have any. By default inputs are made up, free sizes being 32.
        batch_size: positive integer, how many samples a call has.
        shares: numbers in (0, 1], which shares of inputs and units to measure.
        layers: some of these layers, or their paths or names; by default all.
        seconds: how long to measure each layer, all its sizes together; each size has five turns.

    Returns:
        A `LatencyTable`, with `save` and `keras_grow.budgets.LatencyTable.load`.

    Raises:
        TypeError, ValueError: for a subclassed or unbuilt model, one without such layers, shares
            out of range, and data that the model can't be run on.

    Example:

    ```python
    table = keras_grow.measure_latencies(model)
    table.save("laptop.json")
    budget = keras_grow.budgets.Milliseconds(0.5, table)
    keras_grow.prune_neurons(model, budget=budget, multiple_of=8, data=(x,))
    ```
    """
    batch_size = checked_integer(batch_size, "batch_size")
    shares = sorted(set(shares))
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(
            f"`shares` must be numbers above 0, up to 1. Received: shares={list(shares)!r}"
        )
    graph = UnitGraph(model).graph
    steps = _steps(graph)
    if not steps:
        raise ValueError(
            "The model has no layer whose units could come and go: a Dense, growable or "
            f"convolution layer. Received: {model.name!r}"
        )
    if layers is not None:
        need = "`layers` must list layers with a kernel, or their paths or names."
        wanted = find_layers(model, layers, [step.layer for step in steps], need)
        steps = [step for step in steps if step.layer in wanted]
    shapes = _input_shapes(model, [step.layer for step in steps], data)
    table = {}
    for step in steps:
        sizes = _sizes(step, graph, shares)
        calls = [_nothing(), *(_call(step.layer, shapes[step.layer], n, batch_size) for n in sizes)]
        nothing, *times = map(np.median, interleaved_seconds(calls, seconds))
        milliseconds = np.maximum.accumulate([1e3 * max(0.0, time - nothing) for time in times])
        table[step.path] = dict(zip(sizes, milliseconds.tolist(), strict=True))
    return LatencyTable(table, batch_size)


def _steps(graph: Graph) -> list[Step]:
    """The first calls of layers that a budget counts and that can be made at other sizes."""
    found: dict[int, Step] = {}
    for step in graph.steps:
        layer = computing(step.layer)
        is_depthwise = isinstance(rule_for(step.layer), Depthwise)
        has_sizes = has_kernel(layer) and getattr(layer, "groups", 1) == 1
        is_counted = is_depthwise or (has_sizes and why_not_resizable(layer) is None)
        if is_counted and len(step.inputs) == len(step.outputs) == 1:
            found.setdefault(id(step.layer), step)
    return list(found.values())


def _sizes(step: Step, graph: Graph, shares: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of inputs and units as budgets count them, smallest first; the model's own all stay."""
    (source,), (output,) = step.inputs, step.outputs
    shares_in = [1.0] * len(shares) if source in graph.inputs else shares
    shares_out = [1.0] * len(shares) if output in graph.outputs else shares
    inputs = [math.ceil(share * source.count) for share in shares_in]
    units = [math.ceil(share * output.count) for share in shares_out]
    if isinstance(rule_for(step.layer), Depthwise):
        copies = output.count // source.count
        units, inputs = [copies * count for count in inputs], [1] * len(inputs)
    return list(dict.fromkeys(zip(inputs, units, strict=True)))


def _input_shapes(
    model: keras.Model, layers: Sequence[keras.Layer], data: Any
) -> dict[keras.Layer, tuple[int, ...]]:
    """What layers are given in their first calls: shapes without the batch."""
    shapes: dict[keras.Layer, tuple[int, ...]] = {}

    def around(layer: keras.Layer, method: Callable) -> Callable:
        def call(inputs: Any, *arguments: Any, **keywords: Any) -> Any:
            shapes.setdefault(layer, tuple(inputs.shape[1:]))
            return method(inputs, *arguments, **keywords)

        return call

    failure: Exception | None = None
    for inputs in generated_inputs(model) if data is None else [given_inputs(data)]:
        try:
            with contextlib.ExitStack() as stack:
                for layer in layers:
                    stack.enter_context(intercepted(layer, functools.partial(around, layer)))
                run_intercepted(model, inputs, [], lambda number, outputs: outputs)
            return shapes
        except Exception as error:  # Whatever the model's layers may raise.
            failure = failure or error
    raise ValueError(
        "Layers are measured on what the model gives them. Received: a model that can't be run on "
        f"{'inputs that are made up for it' if data is None else 'this data'}: {failure} Pass "
        "`data=(x,)` with samples that it takes."
    ) from failure


def _call(
    layer: keras.Layer, shape: tuple[int, ...], size: tuple[int, int], batch_size: int
) -> Callable[[], Any]:
    """A call of a plain layer of the kind of one, of another size; it returns when it is done."""
    inputs, units = size
    is_depthwise = isinstance(rule_for(layer), Depthwise)
    layer = computing(layer)
    changes: dict[str, Any] = {}
    if is_depthwise:
        inputs = units // layer.depth_multiplier
    else:
        changes["filters" if hasattr(layer, "filters") else "units"] = units
    kind = layer.plain_class if isinstance(layer, Affine) else None
    fresh = made_anew(layer, kind, **changes)
    x = np.random.default_rng(0).normal(size=(batch_size, *shape[:-1], inputs))
    x = tf.cast(x, fresh.compute_dtype)
    fresh.build(x.shape)
    return compiled(fresh, x)


def _nothing() -> Callable[[], Any]:
    return compiled(tf.identity, tf.zeros((1, 1)))


def compiled(function: Callable, x: tf.Tensor) -> Callable[[], Any]:
    """`function(x)` as a compiled call that returns when its result is there."""
    traced = tf.function(function)
    return lambda: traced(x).numpy()
