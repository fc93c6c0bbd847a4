"""Deeper copies of models: new layers that are born as the identity, with nothing else changed."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.conversion.identity import born_as_identity
from keras_grow.conversion.new_blocks import new_block, probes_behind
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import distinct, find_layer, paths_of
from keras_grow.measuring.agreement import CopyDiffers, check_copy, given_inputs
from keras_grow.measuring.interception import run_intercepted
from keras_grow.measuring.samples import generated_inputs
from keras_grow.structure.cloning import check_convertible, clone_with, is_graph
from keras_grow.structure.copying import carry_state
from keras_grow.structure.graph import Call, calls_of

_TOLERANCES = {"float64": 1e-10, "float16": 1e-2, "bfloat16": 6e-2}


def grow_depth(
    model: keras.Model,
    after: str | keras.Layer,
    block: keras.Layer | Callable[[Any], Any] | None = None,
    *,
    residual: bool | None = None,
    verify: Any = True,
) -> keras.Model:
    """A copy of `model` with a new layer behind one of its layers, born as the identity.

    The function is therefore the same at that moment, up to 1e-6 and mostly to the bit, and so are
    the gradients of all old weights; training goes on from there. A block that adds something to
    its input, x + f(x), stands as it is; a Dense layer or convolution, or a chain of them with
    BatchNormalization, whose activation allows it, starts with unit matrices for kernels
    (Net2DeeperNet); what any other block makes is added to its input. The last weights of what is
    added are 0: they alone learn in the first step, and the others from the second. All other
    weights of the block stay as they were made, so that a stacked copy of a trained block knows
    what that one does.

    Old layers keep their names, weights, connections, state, and are frozen where they were; new
    ones can learn. The copy is not compiled: `convert_optimizer` makes its optimizer, with fresh
    slots for new weights. `model` stays as it was.

    Args:
        model: a built Sequential or functional model.
        after: the layer behind which the new one stands, wherever it is called, or its path or
            name: one of the model or of models nested in it, with one output.
        block: what is new: a layer or model, of which a copy is placed, with its weights if it is
            built; a function of a Keras tensor that returns one of the same shape; or by default a
            copy of the layer `after` with its weights (stacking), where it keeps shapes, else a
            layer of its kind with as many units, if it is Dense or a convolution. Layers that make
            up a block of a functional model are `keras.Model(tensor_before, tensor_behind)`.
        residual: whether what the block makes is added to its input; by default as it needs. False
            asks for one that is the identity by itself.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind. The new layer is called as `block`, of a copy
        "<name>_deeper"; with the addition around it, "<name>_residual", a model.

    Raises:
        TypeError: if `model` is not a Keras 3 model, and for a `block` that is none.
        ValueError: for a subclassed or unbuilt model, a layer that it does not call itself, and a
            block that can't be the identity, or could not learn from there.
        CopyDiffers: a `ValueError`, where the copy would compute something else.

    Example:

    ```python
    deeper = keras_grow.grow_depth(model, "block_2")
    deeper.compile(keras_grow.convert_optimizer(model, deeper), model.loss)
    ```

    Reference: Chen, Goodfellow, Shlens, "Net2Net", arXiv:1511.05641, section 2.3; Gong et al.,
    "Efficient Training of BERT by Progressively Stacking", ICML 2019; Wu et al., "LLaMA Pro",
    arXiv:2401.02415, section 3.2; Goyal et al., arXiv:1706.02677, section 5.1.
    """
    check_convertible(model)
    old = _layer_in_a_graph(model, after)
    copy = clone_with(model, lambda layer, inside: None, carry_state)
    check_copy(model, copy, verify)
    place = dict(paired_layers(model, copy))[old]
    parent, call = _where_it_stands(copy, place)
    names = [layer.name for layer in parent.layers]
    new = new_block(call, block, names)
    around = distinct([*names, new.name, f"{new.name}_residual"])[-1]
    tensor = call.outputs[0]
    probes = probes_behind(model, old, tensor, verify)
    new = born_as_identity(new, tensor, probes, residual, around)
    joined = _with_behind(copy, place, new)
    if type(joined) is not type(copy):
        raise ValueError(
            "Only Sequential and functional models of Keras's own classes can be made deeper. "
            f"Received: a model of class {type(model).__name__}. Deepen "
            "`keras.Model(model.inputs, model.outputs)`, and make a model of your class from the "
            "inputs and outputs of what comes out."
        )
    # A layer of `joined` was called in `copy` too, and would answer for its outputs there.
    deeper = clone_with(joined, lambda layer, inside: None, carry_state)
    _check_function(model, deeper, verify)
    return deeper


def deepened_layers(
    model: keras.Model, deeper: keras.Model
) -> list[tuple[keras.Layer, keras.Layer]]:
    """The layers of `model`, each with what it is in a copy that `grow_depth` made.

    Raises:
        ValueError: where a layer is not there.
    """
    inner = {layer.name: layer for layer in deeper.layers}
    pairs = [(model, deeper)]
    for layer in model.layers:
        if layer.name not in inner:
            raise ValueError(f"The copy has no layer of this name. Received: {layer.name!r}")
        its_copy = inner[layer.name]
        deepens = is_graph(layer) and is_graph(its_copy)
        pairs += (deepened_layers if deepens else paired_layers)(layer, its_copy)
    return pairs


def _layer_in_a_graph(model: keras.Model, after: Any) -> keras.Layer:
    layers = [layer for graph in _graphs(model) for layer in graph.layers]
    layers = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    found = find_layer(model, after, list(dict.fromkeys(layers)))
    if found is None:
        raise ValueError(
            "`after` must be a layer of the model, or of a model nested in it, or its path or "
            f"name. Received: {after!r}, expected one of {paths_of(model, layers)}"
        )
    return found


def _graphs(model: keras.Model) -> Iterator[keras.Model]:
    yield model
    for layer in model.layers:
        if is_graph(layer):
            yield from _graphs(layer)


def _where_it_stands(model: keras.Model, layer: keras.Layer) -> tuple[keras.Model, Call]:
    """The first model that calls a layer, and how it does."""
    parent = next(graph for graph in _graphs(model) if layer in graph.layers)
    call = next(call for call in calls_of(parent) if call.operation is layer)
    tensor = call.outputs[0]
    is_dense = not (getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False))
    if len(call.outputs) > 1 or not tf.as_dtype(tensor.dtype).is_floating or not is_dense:
        raise ValueError(
            "New layers stand behind one with one output of floating point numbers. Received: "
            f"layer {layer.name!r}, which puts out {[(x.shape, x.dtype) for x in call.outputs]}"
        )
    return parent, call


def _with_behind(
    model: keras.Model,
    place: keras.Layer,
    new: keras.Layer,
    made: dict[keras.Model, keras.Model] | None = None,
) -> keras.Model:
    """`model` with `new` called on what `place` puts out, of the same layers."""
    # A model that several others hold is made once.
    made = {} if made is None else made
    for layer in model.layers:
        if is_graph(layer) and layer is not place and layer not in made and _holds(layer, place):
            made[layer] = _with_behind(layer, place, new, made)
    if isinstance(model, keras.Sequential):
        layers = [made.get(layer, layer) for layer in model.layers]
        if place in layers:
            layers.insert(layers.index(place) + 1, new)
        return keras.Sequential([*model.inputs, *layers], name=model.name)

    def call(layer: keras.Layer, *arguments: Any, **keywords: Any) -> Any:
        outputs = layer(*arguments, **keywords)
        return new(outputs) if layer is place else outputs

    return keras.models.clone_model(
        model,
        model.input,
        clone_function=lambda layer: made.get(layer, layer),
        call_function=call,
    )


def _holds(model: keras.Model, layer: keras.Layer) -> bool:
    return any(layer in graph.layers for graph in _graphs(model))


def _check_function(model: keras.Model, deeper: keras.Model, verify: Any) -> None:
    """Raises `CopyDiffers` unless both compute the same, where `verify` asks for it."""
    if verify is False:
        return
    for inputs in generated_inputs(model) if verify is True else [given_inputs(verify)]:
        try:
            expected = keras.tree.flatten(run_intercepted(model, inputs, [], _same))
        except Exception:  # `check_copy` has warned of it.
            continue
        try:
            outputs = keras.tree.flatten(run_intercepted(deeper, inputs, [], _same))
        except Exception as error:
            raise _differs(
                f"a copy that can't be run on what the model runs on: {error}"
            ) from error
        for ours, original in zip(outputs, expected, strict=True):
            deviation = _deviation(ours, original)
            if deviation is not None:
                raise _differs(f"outputs with an error of {deviation:.3g}")
        return


def _differs(how: str) -> CopyDiffers:
    return CopyDiffers(
        f"The deeper model would not compute what the model does. Received: {how}. Is a layer "
        "behind the new one told more than its inputs, as by a mask of timesteps, which `x + y` in "
        "a block drops, and `keras.layers.Add()` passes on? Pass `verify=False` if you expect it."
    )


def _same(number: int, outputs: Any) -> Any:
    return outputs


def _deviation(ours: Any, original: Any) -> float | None:
    """The largest error of outputs in parts of the largest of them; `None` if they agree."""
    if not isinstance(original, tf.Tensor) or original.dtype == tf.string:
        return None
    tolerance = max(_TOLERANCES.get(each.dtype.name, 1e-5) for each in (ours, original))
    ours, original = (tf.cast(each, tf.float64).numpy() for each in (ours, original))
    is_alike = (ours == original) | (np.isnan(ours) & np.isnan(original))
    with np.errstate(invalid="ignore"):
        error = np.where(is_alike, 0.0, np.abs(ours - original)).max(initial=0.0)
    scale = np.max(np.abs(original), where=np.isfinite(original), initial=1e-30)
    return None if error <= tolerance * scale else float(error / scale)
