"""What a change acts on: layers that may change, the optimizer that follows, policies."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.paths import find_layers, paths_of
from keras_grow.optimizer_slots import check_is_elementwise, check_resettable


def changeable_layers(
    model: keras.Model, layers: Sequence[str | Growable] | None
) -> list[Growable]:
    """The layers to change: those asked for, or every trainable growable layer of `model`.

    Raises:
        ValueError: for a layer that the model does not have or that is frozen.
    """
    of_model = growable_layers(model)
    if layers is None:
        chosen = [layer for layer in of_model if layer.trainable]
        if not chosen:
            raise ValueError(
                "The model has no trainable growable layer. Received: growable layers "
                f"{paths_of(model, of_model)}, all with trainable=False"
            )
        return chosen
    need = "`layers` must list growable layers of the model, or their paths or names."
    chosen = find_layers(model, layers, of_model, need)
    frozen = paths_of(model, [layer for layer in chosen if not layer.trainable])
    if frozen:
        raise ValueError(
            "A frozen layer's connections can't change: they would never be trained. Received: "
            f"layers {frozen} with trainable=False. Set `layer.trainable = True` first."
        )
    return chosen


def optimizer_of(model: keras.Model, optimizer: Any, layers: Sequence[Growable]) -> Any:
    """The optimizer whose slots must follow: the one given, or the model's, if it has one.

    Raises:
        ValueError: for an optimizer that cannot go with a change of `layers`.
    """
    if optimizer is None and model.compiled:
        optimizer = model.optimizer
    check_resettable(optimizer)
    for layer, path in zip(layers, paths_of(model, layers), strict=True):
        if layer.is_sparse:
            check_is_elementwise(optimizer, path, layer.kernel_variables[0])
    return optimizer


def check_policy(policy: Any, kind: type, name: str) -> None:
    """Raises `TypeError` unless `policy` is an instance of the base class `kind`."""
    if not isinstance(policy, kind):
        raise TypeError(
            f"`{name}` must be an object of a subclass of {kind.__module__}.{kind.__qualname__}. "
            f"Received: {policy!r}"
        )
