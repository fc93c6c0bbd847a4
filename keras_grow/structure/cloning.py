"""Copies of Sequential and functional models in which layers are exchanged."""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_grow.compatibility import check_is_keras_model
from keras_grow.layers.growable import Growable, nested_layers

# Arguments of an InputLayer that its tensor says.
_TOLD_BY_TENSOR = ("batch_shape", "dtype")


def clone_with(
    model: keras.Model,
    convert: Callable[[keras.Layer], keras.Layer | None],
    transfer: Callable[..., None],
    input_shapes: Mapping[int, Sequence[tuple[int | None, ...]]] | None = None,
) -> keras.Model:
    """A copy of `model` with other layers in the place of some.

    Args:
        model: a built Sequential or functional model.
        convert: gives the new layer in the place of a layer, or `None` for those that are copied
            as they are, with their weights.
        transfer: called as `transfer(old, new)` for each pair of the others, once the copy is
            built; it brings the weights over.
        input_shapes: the shapes of the inputs, in their order, with the batch, of those of `model`
            and of the models nested in it that take others than before, by their `id`.

    Returns:
        A new model of the same kind, not compiled.
    """
    input_shapes = input_shapes or {}
    pairs: list[tuple[keras.Layer, keras.Layer, Callable]] = []
    clones: dict[int, keras.Layer] = {}

    def clone(layer: keras.Layer) -> keras.Layer:
        # A shared layer is cloned once.
        if id(layer) not in clones:
            clones[id(layer)] = clone_anew(layer)
        return clones[id(layer)]

    def clone_anew(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, keras.Layer):  # An operation, such as `a + b` of two tensors.
            return type(layer).from_config(layer.get_config())
        converted = convert(layer)
        if converted is not None:
            pairs.append((layer, converted, transfer))
            return converted
        inside = nested_layers(layer)
        if not any(id(inner) in input_shapes or convert(inner) is not None for inner in inside):
            copy = type(layer).from_config(layer.get_config())
            pairs.append((layer, copy, lambda old, new: new.set_weights(old.get_weights())))
            return copy
        if is_graph(layer):
            return _clone_uncompiled(layer, clone, input_shapes.get(id(layer)))
        if isinstance(layer, keras.layers.Wrapper):
            arguments = {k: v for k, v in layer.get_config().items() if k != "layer"}
            return type(layer)(clone(layer.layer), **arguments)
        raise ValueError(
            "Layers inside a layer of your own can't be exchanged. Received: layer "
            f"{layer.name!r} of class {type(layer).__name__}. Write its definition with the "
            "layers you want, or leave what is inside it out with `layers=`."
        )

    new_model = _clone_uncompiled(model, clone, input_shapes.get(id(model)))
    for old, new, move in pairs:
        move(old, new)
    return new_model


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
            f"{type(model).__name__}, a subclassed model. Use growable layers in its definition."
        )


def is_graph(layer: keras.Layer) -> bool:
    """Whether `layer` is a Sequential or functional model, which know their inputs."""
    return isinstance(layer, keras.Model) and getattr(layer, "inputs", None) is not None


def set_connections(layer: Growable, indices: tf.Tensor, values: tf.Tensor) -> None:
    """Makes exactly the connections at `indices` active."""
    layer.prune_connections(layer.active_connections()[0])
    layer.grow_connections(indices, values)


def _clone_uncompiled(
    model: keras.Model, clone: Callable, input_shapes: Sequence[tuple] | None
) -> keras.Model:
    inputs = [
        _input(model, tensor, tensor.shape if input_shapes is None else input_shapes[number])
        for number, tensor in enumerate(model.inputs)
    ]
    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.pack_sequence_as(model.input, inputs)
    # Keras compiles a clone after the model's configuration, which fails for a loss that is a
    # function of the user's own, and would start the optimizer afresh without a word.
    is_compiled, model.compiled = model.compiled, False
    try:
        return keras.models.clone_model(model, inputs, clone_function=clone)
    finally:
        model.compiled = is_compiled


def _input(model: keras.Model, tensor: keras.KerasTensor, shape: tuple) -> keras.KerasTensor:
    """A new input in the place of one of `model`; it keeps both names."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) and layer.output is tensor:
            config = {k: v for k, v in layer.get_config().items() if k not in _TOLD_BY_TENSOR}
            new = keras.KerasTensor(shape, tensor.dtype, tensor.sparse, name=tensor.name)
            return type(layer)(**config, input_tensor=new).output
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)
