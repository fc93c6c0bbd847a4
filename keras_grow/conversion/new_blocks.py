"""New layers for `grow_depth`, of whatever a user may ask for, and what they may be given."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import distinct, nested_layers
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.measuring.agreement import given_inputs
from keras_grow.measuring.interception import run_intercepted
from keras_grow.measuring.samples import generated_inputs
from keras_grow.structure.cloning import clone_with, is_graph
from keras_grow.structure.copying import carry_state, made_anew
from keras_grow.structure.graph import Call
from keras_grow.structure.kernels import has_kernel

_SCALES = (1.0, 100.0)


def new_block(
    call: Call, block: keras.Layer | Callable[[Any], Any] | None, names: Sequence[str]
) -> keras.Layer:
    """The new layer behind a call, built, under a name that is none of `names`."""
    place, tensor = call.operation, call.outputs[0]
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    name = block.name if isinstance(block, keras.Layer) else f"{place.name}_deeper"
    name = distinct([*names, name])[-1]
    # Among the inputs may be masks of timesteps.
    shapes = [tuple(x.shape) for x in call.inputs if x.dtype != "bool"]
    if block is None and shapes != [tuple(tensor.shape)]:
        if not has_kernel(place):
            raise ValueError(
                "Without `block`, new layers are copies of the one they stand behind, which must "
                "put out the shape that it takes, or have a kernel. Received: layer "
                f"{place.name!r} of class {type(place).__name__}, from {shapes} to "
                f"{tuple(tensor.shape)}"
            )
        new = made_anew(place, name=name, **_of_its_kind(place))
        new(inputs)
        return new
    source = place if block is None else block
    if not callable(source):
        raise TypeError(
            "`block` must be a layer, a function of a tensor, or None. Received: "
            f"{block!r} of class {type(block).__name__}"
        )
    try:
        if not isinstance(source, keras.Layer):
            return keras.Model(inputs, source(inputs), name=name)
        if is_graph(source):
            copy = clone_with(source, lambda layer, inside: None, carry_state)
            (source_tensor,), (made,) = copy.inputs, copy.outputs
            new = keras.Model(source_tensor, made, name=name)
            _draw_seeds(new)
            return new
        new = made_anew(source, name=name)
        new(inputs)
        if source.built:
            carry_state(source, new)
            _draw_seeds(new)
    except Exception as error:  # Whatever a block of the user's may raise.
        raise ValueError(
            "A block must be callable on what the layer before it puts out, and able to be copied. "
            f"Received: {source!r}, called on shape {tuple(tensor.shape)}: {error}"
        ) from error
    return new


def _draw_seeds(block: keras.Layer) -> None:
    """Gives a copy random numbers of its own: two blocks must not drop the same units."""
    for layer in nested_layers(block):
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                value.state.assign(keras.random.SeedGenerator().state)


def _of_its_kind(layer: keras.Layer) -> dict[str, Any]:
    """Arguments of a layer of the kind of one that keeps the shape of what that puts out."""
    changes: dict[str, Any] = {}
    if hasattr(layer, "filters"):
        padding = "causal" if layer.padding == "causal" else "same"
        changes |= {"strides": 1, "padding": padding}
    if isinstance(layer, Growable):
        changes["initial_density"] = layer.density
    if isinstance(layer, SparseDense):
        # A unit matrix has one connection more into each unit.
        capacity = layer.capacity / layer.num_connections + 1 / layer.units
        changes["capacity"] = min(1.0, capacity)
        changes["group_size"] = 1  # Units of a group read the same; those of a unit matrix don't.
    return changes


def probes_behind(
    model: keras.Model, layer: keras.Layer, tensor: keras.KerasTensor, verify: Any
) -> list[tf.Tensor]:
    """What a new layer behind one may be given: among others, large numbers of either sign."""
    random = np.random.default_rng(0)
    shape = [size or 4 for size in tensor.shape]
    numbers = [tf.cast(scale * random.normal(size=shape), tensor.dtype) for scale in _SCALES]
    if has_kernel(layer) or isinstance(layer, keras.layers.Activation):
        # What comes out of it shows in what few samples may not: whether that can be negative.
        return [layer.activation(each) for each in numbers]
    recorded: list[tf.Tensor] = []

    def record(number: int, outputs: tf.Tensor) -> tf.Tensor:
        recorded.append(tf.identity(outputs))  # Without a mask of timesteps.
        return outputs

    for inputs in generated_inputs(model) if isinstance(verify, bool) else [given_inputs(verify)]:
        for scale in _SCALES:
            scaled = keras.tree.map_structure(lambda x, s=scale: _scaled(x, s), inputs)
            try:
                run_intercepted(model, scaled, [layer], record)
            except Exception:
                continue
        if recorded:
            return recorded
    return numbers


def _scaled(array: Any, scale: float) -> Any:
    return array * tf.cast(scale, array.dtype) if array.dtype.is_floating else array
