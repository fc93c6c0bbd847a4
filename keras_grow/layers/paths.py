"""What the layers of a model are called: by their paths, which no two of them share."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import keras

from keras_grow.keras_private import layers_in

LayerT = TypeVar("LayerT", bound=keras.Layer)
Value = TypeVar("Value")


def layer_paths(model: keras.Layer) -> dict[keras.Layer, str]:
    """`model` and all layers inside it, each once, in the order they were added, and their paths.

    A path is the names of the layers from the model down to one, joined by "/": "encoder/dense"
    is the layer "dense" in the layer "encoder". The model's own name is no part of it, so that a
    layer of the model itself is called by its name. A layer that stands in several places has the
    path of the first. Keras's own `layer.path` says where a layer was first built, which in the
    functional models that make up an ensemble is the same for every member.
    """
    paths: dict[keras.Layer, str] = {}

    def visit(layer: keras.Layer, path: str) -> None:
        paths[layer] = path
        children = layers_in(layer)
        for child, name in zip(children, distinct([child.name for child in children])):
            if child not in paths:
                visit(child, f"{path}/{name}" if path else name)

    visit(model, "")
    return paths


def nested_layers(layer: keras.Layer) -> list[keras.Layer]:
    """`layer` and all layers inside it, each once, in the order in which they were added."""
    return list(layer_paths(layer))


def paths_of(model: keras.Layer, layers: Sequence[keras.Layer]) -> list[str]:
    """The paths of some layers of `model`."""
    paths = layer_paths(model)
    return [paths[layer] for layer in layers]


def find_layer(model: keras.Layer, asked: Any, among: Sequence[LayerT]) -> LayerT | None:
    """The one of some layers that is asked for.

    Args:
        model: a model.
        asked: a layer; its path; or its name or Keras's own `layer.path`, where no other of them
            has the same.
        among: layers of the model.

    Returns:
        The layer, `None` where none of them is meant.

    Raises:
        ValueError: where several layers have that name, and none of them that path.
    """
    if not isinstance(asked, str):
        return next((layer for layer in among if layer is asked), None)
    paths = layer_paths(model)
    found = [layer for layer in among if paths[layer] == asked]
    found = found or [layer for layer in among if asked in (layer.name, layer.path)]
    if len(found) > 1:
        raise ValueError(
            "A layer must be named so that no other is meant. Received: "
            f"{asked!r}, the name of several layers. Use one of their paths: "
            f"{[paths[layer] for layer in found]}"
        )
    return found[0] if found else None


def find_layers(
    model: keras.Layer, asked: Sequence[Any], among: Sequence[LayerT], need: str
) -> list[LayerT]:
    """Those of some layers that are asked for, in the order of `among`, as `find_layer` does.

    Raises:
        ValueError: opening with `need`, unless `asked` lists some of them.
    """
    # A name alone is a sequence of letters.
    found = [] if isinstance(asked, str) else [find_layer(model, each, among) for each in asked]
    if not found or None in found:
        expected = paths_of(model, among)
        raise ValueError(f"{need} Received: layers={asked!r}, expected some of {expected}")
    return [layer for layer in among if layer in found]


def by_layer(
    model: keras.Layer, named: Mapping[Any, Value], among: Sequence[LayerT], need: str
) -> dict[LayerT, Value]:
    """The values of a mapping from layers' paths or names to values, by layer.

    Raises:
        ValueError: opening with `need`, for what names none of the layers of `among`, or one
            that another key names.
    """
    keys = [(key, find_layer(model, key, among)) for key in named]
    found: dict[LayerT, Value] = {}
    for key, layer in keys:
        if layer is not None and layer not in found:
            found[layer] = named[key]
    if len(found) < len(keys):
        unknown = [key for key, layer in keys if layer is None]
        paths = paths_of(model, among)
        received = f"{unknown or list(named)}, expected some of {paths}, each once"
        raise ValueError(f"{need} Received: {received}")
    return found


def distinct(names: Sequence[str]) -> list[str]:
    """The names; where one is there twice, as it may be in a layer of your own, with numbers."""
    distinct: list[str] = []
    for name in names:
        chosen, number = name, 1
        while chosen in distinct or (number > 1 and chosen in names):
            number += 1
            chosen = f"{name}_{number}"
        distinct.append(chosen)
    return distinct
