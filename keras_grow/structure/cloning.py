"""Copies of Sequential and functional models in which layers are exchanged."""

import collections
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.compatibility import check_is_keras_model
from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.in_place import masked_in_place
from keras_grow.layers.pairing import torn_layers
from keras_grow.layers.paths import nested_layers, paths_of
from keras_grow.structure.copying import (
    Undrawn,
    carry_state,
    carry_trainable,
    carry_vocabularies,
    carry_what_is_saved,
    made_anew,
)

Inside = Mapping[int, keras.Layer]
"""Layers to take in the place of those inside a layer, by their `id`."""

# Arguments of an InputLayer that its tensor says.
_TOLD_BY_TENSOR = ("batch_shape", "dtype")


class UnknownArguments(ValueError):
    """Raised for a model of a class of the user's whose arguments can't be told."""


def clone_with(
    model: keras.Model,
    convert: Callable[[keras.Layer, Inside], keras.Layer | None],
    transfer: Callable[..., None],
    input_shapes: Mapping[int, Sequence[tuple[int | None, ...]]] | None = None,
) -> keras.Model:
    """A copy of `model` with other layers in the place of some.

    The other layers come along with all that Keras would save of them, and frozen where they are.
    No layer is shared with `model`, and functions of the user's stay the objects that they are.

    Args:
        model: a built Sequential or functional model.
        convert: gives the new layer in the place of one of `exchangeable_layers(model)`, or `None`
            for those that are copied as they are; it is asked once for each. It is also given the
            copies of layers that the layer holds and that stand elsewhere too.
        transfer: called as `transfer(old, new)` for each pair of the others, once the copy is
            built; it brings the weights over.
        input_shapes: the shapes of the inputs, in their order, with the batch, of those of `model`
            and of the models nested in it that take others than before, by their `id`.

    Returns:
        A new model of the same class, not compiled. Models nested in it whose class can't be made
        of inputs and outputs become plain functional ones, which compute the same.

    Raises:
        ValueError: for a layer that can't be made anew, and a model of a class that can't be made
            of inputs and outputs.
    """
    input_shapes = input_shapes or {}
    arguments = _arguments_beside_the_graph(model)
    shared = _shared_inside(model)
    pairs: list[tuple[keras.Layer, keras.Layer, Callable]] = []
    clones: dict[int, keras.Layer] = {}

    def clone(layer: keras.Layer) -> keras.Layer:
        # A shared layer is cloned once.
        if id(layer) not in clones:
            clones[id(layer)] = clone_anew(layer)
        return clones[id(layer)]

    def clone_anew(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, keras.Layer):  # An operation, such as `a + b` of two tensors.
            return made_anew(layer)
        if is_graph(layer):
            shapes = input_shapes.get(id(layer))
            try:
                return _clone_graph(layer, clone, shapes, _arguments_beside_the_graph(layer))
            except UnknownArguments:  # How it would train by itself does not matter here.
                return _clone_graph(layer, clone, shapes)
        if uses_layer_as_given(layer):
            copy = made_anew(layer, inside={id(layer.layer): clone(layer.layer)})
            pairs.append((layer, copy, carry_what_is_saved))
            return copy
        held = {id(each): clone(each) for each in shared.get(id(layer), ())}
        converted = convert(layer, held)
        if converted is not None:
            undrawn.add(converted, only_kernels=not isinstance(converted, GrowableKernels))
            pairs.append((layer, converted, transfer))
            return converted
        copy = made_anew(layer, inside=held)
        carry_vocabularies(layer, copy)
        undrawn.add(copy)
        pairs.append((layer, copy, carry_state))
        return copy

    with Undrawn() as undrawn:
        new_model = _clone_graph(model, clone, input_shapes.get(id(model)), arguments)
    torn = torn_layers(model, new_model)
    if torn:
        raise ValueError(
            "Layers that stand in several places share their weights, and so must their copies. "
            f"Received: layers {paths_of(model, torn)}, of which a layer that holds them makes "
            "copies of its own. `make_growable(model, in_place=True)` copies nothing."
        )
    for old, new, move in pairs:
        move(old, new)
    carry_trainable(model, new_model)
    return new_model


def _shared_inside(model: keras.Model) -> dict[int, list[keras.Layer]]:
    """For each exchangeable layer, by its `id`, others of them that it holds."""
    exchangeable = exchangeable_layers(model)
    ids = {id(each) for each in exchangeable}
    return {
        id(each): [inner for inner in nested_layers(each)[1:] if id(inner) in ids]
        for each in exchangeable
    }


def exchangeable_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model in whose place `clone_with` can put others, in the model's order.

    They are those of the model and of models nested in it, and those inside wrappers that use the
    layer they are given; of what is inside other layers, only what several of these hold.
    """
    found: dict[int, keras.Layer] = {}

    def visit(layer: keras.Layer) -> None:
        if id(layer) in found:
            return
        if is_graph(layer):
            for inner in layer.layers:
                visit(inner)
        elif uses_layer_as_given(layer):
            visit(layer.layer)
        else:
            found[id(layer)] = layer

    visit(model)
    insides = [nested_layers(each)[1:] for each in found.values()]
    counts = collections.Counter(id(inner) for inside in insides for inner in inside)
    for inside in insides:
        for inner in inside:
            # What is inside a shared layer comes along with it.
            is_part = any(
                inner in nested_layers(each)[1:] for each in inside if counts[id(each)] > 1
            )
            if counts[id(inner)] > 1 and inner.weights and not is_part:
                found.setdefault(id(inner), inner)
    return list(found.values())


def check_convertible(model: keras.Model) -> None:
    """Raises `TypeError` or `ValueError` unless `model` is a built Sequential or functional one."""
    check_is_keras_model(model)
    if not model.built:
        raise ValueError(
            "Only a built model has weights to keep. Received: an unbuilt model. Call it on a "
            "batch, or build it."
        )
    if not is_graph(model):
        raise ValueError(
            "Only Sequential and functional models can be converted. Received: "
            f"{type(model).__name__}, a subclassed model, which can't be copied. "
            "`keras_grow.make_growable(model, in_place=True)` makes it growable as it stands; or "
            "use growable layers in its definition."
        )
    in_place = [layer for layer in nested_layers(model) if masked_in_place(layer)]
    if in_place:
        raise ValueError(
            "A copy would lose masks that were put on layers in place. Received: layers "
            f"{paths_of(model, in_place)}. Call `keras_grow.make_plain(model, in_place=True)` "
            "first, or convert the model without `in_place`."
        )


def is_made_of_graph(model: keras.Model) -> bool:
    """Whether the class of a graph can be made of its inputs and outputs, or layers, again."""
    try:
        check_made_of_graph(model)
    except UnknownArguments:
        return False
    return True


def check_made_of_graph(model: keras.Model) -> None:
    """Raises `UnknownArguments` unless `is_made_of_graph`, saying why."""
    _arguments_beside_the_graph(model)


def is_graph(layer: keras.Layer) -> bool:
    """Whether `layer` is a Sequential or functional model, which know their inputs.

    A subclass is one too, unless it has a `call` of its own.
    """
    is_model = isinstance(layer, keras.Model) and getattr(layer, "inputs", None) is not None
    return is_model and type(layer).call.__module__.split(".")[0] == "keras"


def uses_layer_as_given(layer: keras.Layer) -> bool:
    """Whether `layer` is a wrapper of a layer, such as TimeDistributed.

    Bidirectional is none: it makes two layers after the pattern of the one it is given. Nor is
    `GrowableKernels`, which is one growable layer with the layer in it.
    """
    others = (keras.layers.Bidirectional, GrowableKernels)
    return isinstance(layer, keras.layers.Wrapper) and not isinstance(layer, others)


def set_connections(layer: Growable, indices: tf.Tensor, values: tf.Tensor) -> None:
    """Makes exactly the connections at `indices` active."""
    layer.prune_connections(layer.active_connections()[0])
    layer.grow_connections(indices, values)


def _clone_graph(
    model: keras.Model,
    clone: Callable,
    input_shapes: Sequence[tuple] | None,
    arguments: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A copy of a graph; of the class of `model` if `arguments` are given, else of Keras's own."""
    inputs = [
        _input(model, tensor, tensor.shape if input_shapes is None else input_shapes[number])
        for number, tensor in enumerate(model.inputs)
    ]
    if isinstance(model, keras.Sequential):
        kind = keras.Sequential if arguments is None else type(model)
        layers = [*inputs, *map(clone, model.layers)]
        return kind(layers=layers, **{"name": model.name, **(arguments or {})})
    # Keras compiles a clone after the model's configuration, which fails for a loss that is a
    # function of the user's own, and would start the optimizer afresh without a word.
    is_compiled, model.compiled = model.compiled, False
    try:
        structure = keras.tree.pack_sequence_as(model.input, inputs)
        copy = keras.models.clone_model(model, structure, clone_function=clone)
    finally:
        model.compiled = is_compiled
    if arguments is None or type(copy) is type(model):
        return copy
    return type(model)(inputs=copy.input, outputs=copy.output, **{"name": model.name, **arguments})


def _arguments_beside_the_graph(model: keras.Model) -> dict[str, Any]:
    """What the class of `model` is made with beside inputs and outputs, or layers.

    Raises:
        UnknownArguments: if that can't be told. A copy of another class would train otherwise.
    """
    kind = type(model)
    graph = {"layers"} if isinstance(model, keras.Sequential) else {"inputs", "outputs"}
    _, *items = inspect.signature(kind.__init__).parameters.items()  # The first is the model.
    parameters = dict(items)
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    has_own = kind.__init__.__module__.split(".")[0] != "keras"
    named = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    values = {"name": model.name} if takes_more or "name" in named else {}
    if not has_own:
        return values
    rest = set(named) - graph - {"name", "trainable"}
    why = None
    if not graph <= set(named):
        why = f"whose `__init__` does not take {sorted(graph)}"
    elif unknown := sorted(name for name in rest if name not in vars(model)):
        why = f"which does not keep its arguments {unknown} as attributes"
    elif held := sorted(name for name in rest if isinstance(vars(model)[name], keras.Layer)):
        why = f"which takes layers as {held}"
    if why is not None:
        raise UnknownArguments(
            "A copy keeps the class of the model, which must be made of its inputs and outputs and "
            f"of what it has as attributes. Received: a model of class {kind.__name__}, {why}. "
            "Convert `keras.Model(model.inputs, model.outputs)`, and make a model of your class "
            "from what comes out."
        )
    return values | {name: vars(model)[name] for name in rest}


def _input(model: keras.Model, tensor: keras.KerasTensor, shape: tuple) -> keras.KerasTensor:
    """A new input in the place of one of `model`; it keeps both names."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) and layer.output is tensor:
            config = {k: v for k, v in layer.get_config().items() if k not in _TOLD_BY_TENSOR}
            new = keras.KerasTensor(shape, tensor.dtype, tensor.sparse, name=tensor.name)
            return type(layer)(**config, input_tensor=new).output
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)
