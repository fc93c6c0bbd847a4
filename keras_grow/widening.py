"""Wider copies of models: room for more units, with nothing else changed."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.integers import as_integer
from keras_grow.layers.conv_like import ConvLike
from keras_grow.layers.growable import Growable, growable_layers, paired_layers
from keras_grow.layers.paths import find_layer, paths_of
from keras_grow.measuring.agreement import check_copy
from keras_grow.structure.axes import Axes, carry
from keras_grow.structure.cloning import check_convertible, clone_with
from keras_grow.structure.copying import made_anew
from keras_grow.structure.kernels import kernel_shape
from keras_grow.structure.topology import consumers


def widen(
    model: keras.Model, layer: str | Growable, units: int, *, verify: Any = True
) -> keras.Model:
    """A copy of `model` in which `layer` has more units, with weights and connections kept.

    The new units are dormant: no connection leads into or out of them, where a plain Dense reads
    them its weights are 0, and their entries of a BatchNormalization on the way are those of a new
    layer. The copy therefore computes the same function, and trains as `model` does, except that a
    plain Dense may learn from new units whose activation is not 0 at 0, as it does from a bias.
    New units wake by `grow_neurons` or `grow`. The copy is not compiled (`convert_optimizer` makes
    its optimizer), and `model` stays as it was. A sparse layer keeps its number of slots;
    `make_sparse` makes more.

    Args:
        model: a built Sequential or functional model.
        layer: a growable layer of it, or its path or name, whose units (of a convolution, its
            maps) reach other layers through layers that keep units apart (activations, dropout,
            BatchNormalization, pooling, Flatten).
        units: integer, more than the layer has.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, a layer that is not growable or whose units
            can't be followed, and fewer units than the layer has.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    wider = keras_grow.widen(model, "hidden", 400)
    wider.compile(keras_grow.convert_optimizer(model, wider), model.loss)
    ```
    """
    check_convertible(model)
    growable = growable_layers(model)
    old = find_layer(model, layer, growable)
    if old is None:
        raise ValueError(
            "`layer` must be a growable layer of the model, or its path or name. Received: "
            f"{layer!r}, expected one of {paths_of(model, growable)}"
        )
    num_old = old.kernel_shape[-1]
    wanted = as_integer(units)
    if wanted is None or wanted <= num_old:
        raise ValueError(
            f"`units` must be an integer above the {num_old} that layer {old.name!r} has. "
            f"Received: units={units!r}"
        )
    readers = consumers(model, old)
    num_new = wanted - num_old
    shapes = {id(old): (*old.kernel_shape[:-1], wanted)}
    for reader in readers:
        *window, inputs, outputs = kernel_shape(reader.layer)
        inputs += num_new * reader.indices.shape[1]
        shapes[id(reader.layer)] = (*window, inputs, outputs)
    passed = {id(place.layer) for reader in readers for place in reader.passed}

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in shapes and not (id(layer) in passed and layer.weights):
            return None
        changes: dict[str, Any] = {}
        if layer is old:
            changes["filters" if isinstance(layer, ConvLike) else "units"] = wanted
        if isinstance(layer, Growable) and layer.is_sparse:
            changes["initial_density"] = layer.num_active / math.prod(shapes[id(layer)])
        return made_anew(layer, **changes)

    # The axes that grew can only be told once the copy is there.
    widened = clone_with(model, convert, lambda old, new: None)
    carried = carried_axes(model, widened)
    for before, after in paired_layers(model, widened):
        if id(before) in carried:
            carry(before, after, carried[id(before)])
    places = {layer: axes[-1] for layer, axes in carried.items() if -1 in axes}
    check_copy(model, widened, verify, places)
    return widened


def carried_axes(model: keras.Model, widened: keras.Model) -> Mapping[int, Axes]:
    """How the variables of `model` lie in those of a wider copy.

    Args:
        model: a model.
        widened: what `widen`, once or more often, made of it.

    Returns:
        A dict from the `id` of each layer of `model` whose variables grew to its `Axes`.
    """
    axes: dict[int, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for old, new in paired_layers(model, widened):
        # The copy may have been converted to plain layers since.
        if not (isinstance(old, Growable) and isinstance(new, (Growable, keras.layers.Dense))):
            continue
        count, count_now = kernel_shape(old)[-1], kernel_shape(new)[-1]
        if count == count_now:
            continue
        if count > count_now:
            raise ValueError(
                "`converted` must have been made from `model`. Received: layer "
                f"{old.name!r} with {count} units, and {count_now} in the copy"
            )
        units = np.arange(count)
        axes.setdefault(id(old), {})[-1] = (units, units)
        for reader, wider in zip(consumers(model, old), consumers(widened, new), strict=True):
            sides = reader.indices.reshape(-1), wider.indices[:count].reshape(-1)
            axes.setdefault(id(reader.layer), {})[-2] = sides
            for place, wider_place in zip(reader.passed, wider.passed, strict=True):
                sides = place.indices.reshape(-1), wider_place.indices[:count].reshape(-1)
                axes.setdefault(id(place.layer), {})[-1] = sides
    return axes
