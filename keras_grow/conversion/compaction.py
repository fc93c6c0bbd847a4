"""Smaller models with the same function: units and inputs that no longer matter are removed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable, check_finite
from keras_grow.layers.paths import nested_layers, paths_of
from keras_grow.layers.weight_norm_kernel import WeightNormKernel
from keras_grow.measuring.agreement import check_copy, given_inputs
from keras_grow.structure.axes import Axes, Places
from keras_grow.structure.cloning import Inside, check_convertible, clone_with
from keras_grow.structure.constants import Kernel
from keras_grow.structure.copying import carry_seeds, carry_state, made_anew
from keras_grow.structure.flow import Flow
from keras_grow.structure.graph import Step, Stream
from keras_grow.structure.kernels import axes_of
from keras_grow.structure.resizing import carry, resized
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import KernelCall
from keras_grow.structure.wirings import INPUT, OUTPUT


@dataclasses.dataclass(frozen=True)
class LayerCompaction:
    """What is left of a layer with a kernel.

    Attributes:
        name: the layer's path in the model.
        num_inputs, num_units: how many it had; of a convolution, input maps and maps.
        inputs, units: int64 arrays, ascending: which of them are left.
    """

    name: str
    num_inputs: int
    num_units: int
    inputs: np.ndarray
    units: np.ndarray


@dataclasses.dataclass(frozen=True)
class Compaction:
    """A compact model, and how it came about; its `str` is a table.

    Attributes:
        model: the compact model, not compiled. `keras_grow.convert_optimizer(old, compaction)`
            makes the optimizer with which its training goes on.
        layers: a `LayerCompaction` for each layer with a kernel, in the model's order.
        input_indices: for each of the model's inputs an int64 array: which entries of its last
            axis the outputs depend on. With `drop_inputs` the compact model takes these and no
            others: `x[..., input_indices[0]]`.
        drops_inputs: whether it does.
        reasons: by layer path, why constant units that might have gone were left as they are; where
            nothing could go, which layers are in the way.
        difference: how far the outputs are from those of the model, max|a - b| / max|b| on the data
            of `verify`, where the function was allowed to change; `None` where it was not.
        axes, bias_shifts: for each layer of the model, nested ones included, where the entries of
            its variables stood and stand, and what constants added to its biases;
            `convert_optimizer` reads them.
    """

    model: keras.Model
    layers: tuple[LayerCompaction, ...]
    input_indices: tuple[np.ndarray, ...]
    drops_inputs: bool
    reasons: Mapping[str, str]
    difference: float | None
    axes: tuple[Axes, ...] = dataclasses.field(repr=False)
    bias_shifts: tuple[np.ndarray | None, ...] = dataclasses.field(repr=False)

    def as_model_takes(self, inputs: Any) -> Any:
        """What the compact model takes in the place of inputs of the model it was made of."""
        if not self.drops_inputs:
            return inputs
        flat = [
            tf.gather(x, used, axis=-1)
            for x, used in zip(keras.tree.flatten(inputs), self.input_indices, strict=True)
        ]
        return keras.tree.pack_sequence_as(inputs, flat)

    def __str__(self) -> str:
        rows = [["layer", "inputs", "units"]]
        for layer in self.layers:
            inputs = f"{len(layer.inputs):,} of {layer.num_inputs:,}"
            rows.append([layer.name, inputs, f"{len(layer.units):,} of {layer.num_units:,}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        lines[1:1] = ["-" * max(map(len, lines))]
        for number, indices in enumerate(self.input_indices):
            takes = "takes those" if self.drops_inputs else "takes all"
            lines.append(f"input {number}: {len(indices):,} entries are used, the model {takes}")
        lines += [f"{name}: {reason}" for name, reason in self.reasons.items()]
        if self.difference is not None:
            lines.append(f"the outputs are others: by {self.difference:.2g} of the largest")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Carried:
    """How the variables of a layer lie in those of its compact copy.

    Attributes:
        axes: by the sides of the layer.
        absorbed: which of the old inputs went into the biases.
        shift: what they added to the biases that are left, `None` if they are none.
    """

    axes: Axes
    absorbed: np.ndarray
    shift: np.ndarray | None


_UNCHANGED = _Carried({}, np.zeros(0, np.int64), None)


def compact(
    model: keras.Model,
    *,
    drop_inputs: bool = False,
    through_normalization: bool = False,
    verify: Any = True,
) -> Compaction:
    """A smaller model with the same function, without the units that no longer matter.

    A mask saves nothing by itself. This removes, for good, units and feature maps that nothing
    reads, and those that nothing feeds: these are constant, and what they add to the units that
    read them goes into their biases. One removal may make room for another, and so it goes on,
    through activations, BatchNormalization, dropout, Flatten, pooling, additions, concatenations,
    convolutions of all kinds, recurrent layers, embeddings, shared layers and nested models; of an
    attention, heads go whole, and dimensions alike in all heads. Layers that mix units or are not
    known, such as layers of your own, keep all that they read and make, and so does
    LayerNormalization, whose mean and variance run over them. The layers of the copy are of the
    same kinds and stay growable; `keras_grow.make_plain` makes them plain.

    At inference the function is the same up to rounding. In training, dropout no longer acts on
    units that are gone, nor do activity regularizers see them. A constant goes into the biases of
    a convolution only where its padding can't be told from it.

    Args:
        model: a built Sequential or functional model, trained or not. In a plain layer, weights
            other than 0 count as connections, so that models pruned by other tools serve too.
        drop_inputs: whether the compact model takes only those entries of its inputs' last axes
            that it uses. The caller then picks them, `x[..., compaction.input_indices[0]]`, best
            where the data is prepared: picked inside the model, they would eat the gain.
        through_normalization: whether units go behind a LayerNormalization too that nothing reads
            any more. Its mean and variance then run over the others alone, which changes the
            function: the result says by how much on the data of `verify`, which must be given.
        verify: as in `make_growable`; data is given as `model` takes it.

    Returns:
        A `Compaction` with the new `model`; `model` itself stays as it was.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, one with weights that are NaN or infinite,
            and one without a layer with a kernel.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    compaction = keras_grow.compact(model)
    print(compaction)
    keras_grow.export_saved_model(compaction.model, "small")
    ```
    """
    check_convertible(model)
    layers = nested_layers(model)
    check_finite(model, [x for x in layers if isinstance(x, Growable) and x.built])
    if through_normalization and isinstance(verify, bool):
        raise ValueError(
            "How much the function changes is measured on data. Received: "
            f"through_normalization=True, verify={verify}. Pass `verify=x`."
        )
    flow = Flow(UnitGraph(model, through_normalization), keeps_inputs=not drop_inputs)
    steps: dict[int, Step] = {}
    for step in flow.graph.steps:
        steps.setdefault(id(step.layer), step)
    carried = {id(layer): _carried(flow, steps.get(id(layer)), layer) for layer in layers}
    if not flow.kernel_calls:
        raise ValueError(
            "The model has no layer whose units could be removed: a Dense, growable or convolution "
            f"layer. Received: a model with layers {paths_of(model, layers[1:])}"
        )

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        counts = _counts_left(flow, steps.get(id(layer)))
        if not counts:
            return None
        changes = {}
        kernel = flow.kernel(layer)
        if kernel is not None and isinstance(layer, Growable):
            (source,), (output,) = steps[id(layer)].inputs, steps[id(layer)].outputs
            changes["initial_density"] = _density_left(kernel, flow.kept(source), flow.kept(output))
        return resized(layer, counts, **changes)

    def transfer(old: keras.Layer, new: keras.Layer) -> None:
        if not carried[id(old)].axes:
            return
        what = carried[id(old)]
        carry(_without(old, steps[id(old)], what.absorbed), new, what.axes)
        if what.shift is not None:
            new.bias.assign_add(tf.cast(what.shift, new.bias.dtype))

    input_shapes = {id(model): [_narrowed(flow, stream) for stream in flow.graph.inputs]}
    for nested, streams in flow.graph.inputs_of_nested.items():
        input_shapes[nested] = [_narrowed(flow, stream) for stream in streams]
    compacted = clone_with(model, convert, transfer, input_shapes)
    carry_seeds(model, compacted)
    compaction = Compaction(
        compacted,
        tuple(_layer_compaction(flow, call) for call in flow.kernel_calls),
        flow.used_inputs,
        drop_inputs,
        flow.reasons,
        None,
        tuple(carried[id(layer)].axes for layer in layers),
        tuple(carried[id(layer)].shift for layer in layers),
    )
    changed = [layer for layer in layers if carried[id(layer)].axes]
    places = {
        id(layer): _computed(flow, steps[id(layer)])
        for layer in changed
        if OUTPUT in carried[id(layer)].axes and _makes_its_output(flow, layer)
    }
    # What stands inside a layer may be what nothing reads, left where one must be.
    inside = [inner for layer in changed for inner in nested_layers(layer)[1:]]
    if not through_normalization:
        check_copy(model, compacted, verify, places, inside, compaction.as_model_takes)
        return compaction
    x = given_inputs(verify)
    outputs = compacted(compaction.as_model_takes(x), training=False)
    difference = _difference(outputs, model(x, training=False))
    return dataclasses.replace(compaction, difference=difference)


def _difference(outputs: Any, expected: Any) -> float:
    """The largest max|a - b| / max|b| of the outputs of two models."""
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True)
    arrays = [[tf.cast(each, tf.float64) for each in pair] for pair in pairs]
    return max(float(tf.reduce_max(tf.abs(a - b)) / tf.reduce_max(tf.abs(b))) for a, b in arrays)


def _makes_its_output(flow: Flow, layer: keras.Layer) -> bool:
    """Whether all that a layer makes are its units: a tied embedding makes words too."""
    steps = [step for step in flow.graph.steps if step.layer is layer]
    return not any(flow.makes_others(step) for step in steps)


def _sides(flow: Flow, step: Step | None) -> Mapping[str, Stream]:
    """The tensors on the sides of a layer that may have fewer units in its copy."""
    if step is None:
        return {}
    streams = flow.sides(step)
    if streams is None:
        is_one = len(step.inputs) == 1 and len(step.outputs) == 1
        streams = {INPUT: step.inputs[0], OUTPUT: step.outputs[0]} if is_one else {}
    return streams


def _counts_left(flow: Flow, step: Step | None) -> dict[str, int]:
    """How many entries the sides of a layer have left, of those that have lost some."""
    counts = {side: len(flow.kept(stream)) for side, stream in _sides(flow, step).items()}
    return {side: n for side, n in counts.items() if n < _sides(flow, step)[side].count}


def _carried(flow: Flow, step: Step | None, layer: keras.Layer) -> _Carried:
    """What becomes of the variables of a layer, first called in `step`."""
    if step is None or not layer.weights:
        return _UNCHANGED
    streams = _sides(flow, step)
    kept = {side: flow.kept(stream) for side, stream in streams.items()}
    axes = {
        side: Places(units, np.arange(len(units)), streams[side].count, len(units))
        for side, units in kept.items()
        if len(units) < streams[side].count
    }
    if flow.kernel(layer) is None or not axes:
        return dataclasses.replace(_UNCHANGED, axes=axes)
    absorbed, sums = flow.absorbed(layer)
    shift = sums[kept[OUTPUT]]
    # Without biases only a unit that nothing reads, left where one must be, has lost anything.
    has_shift = layer.bias is not None and shift.any()
    return _Carried(axes, absorbed, shift if has_shift else None)


def _without(layer: keras.Layer, step: Step, inputs: np.ndarray) -> keras.Layer:
    """A layer that computes what is left of `layer` once nothing leads out of some inputs.

    Weights that are normalized together change when some of them go; of other layers, what leads
    out of these inputs is simply not carried over.
    """
    if not isinstance(layer, WeightNormKernel) or not len(inputs):
        return layer
    copy = made_anew(layer)
    copy.build(step.inputs[0].shape)
    carry_state(layer, copy)
    connections, _ = copy.active_connections()
    is_gone = np.isin(copy.axes.inputs_of(connections).numpy(), inputs)
    copy.prune_connections(connections[is_gone])
    return copy


def _density_left(kernel: Kernel, inputs: np.ndarray, units: np.ndarray) -> float:
    """The density of a growable layer's kernel once only some inputs and units are left."""
    num_left = np.sum(np.isin(kernel.inputs, inputs) & np.isin(kernel.units, units))
    return float(num_left / (kernel.axes.num_positions * len(inputs) * len(units)))


def _narrowed(flow: Flow, stream: Stream) -> tuple[int | None, ...]:
    """The shape of what is left of a tensor."""
    return (*stream.shape[:-1], len(flow.kept(stream))) if stream.count else stream.shape


def _computed(flow: Flow, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Where units that a layer still computes stand in its output, and in that of its copy."""
    output, *_ = step.outputs  # A recurrent layer's states are its output too.
    kept = flow.kept(output)
    there = np.flatnonzero(~np.isin(kept, flow.left_over(output)))
    return kept[there], there


def _layer_compaction(flow: Flow, call: KernelCall) -> LayerCompaction:
    axes = axes_of(call.layer)
    inputs = flow.kept_along(call.reads, axes.num_inputs)
    units = flow.kept_along(call.makes, axes.num_units)
    return LayerCompaction(call.path, axes.num_inputs, axes.num_units, inputs, units)
