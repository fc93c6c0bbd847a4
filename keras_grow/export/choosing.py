"""Which storage is whose: one for all layers, or one by name."""

from collections.abc import Mapping

import keras

from keras_grow.export.storages import Storage
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import by_layer


def resolve(
    model: keras.Model,
    storage: Storage | Mapping[str, Storage] | None,
    layers: list[Growable],
    default: Storage,
) -> list[Storage]:
    """A storage for each layer.

    Args:
        model: a model.
        storage: one for all layers, one by the layer's path or name, or `None`.
        layers: its growable layers.
        default: for layers that `storage` does not name.

    Raises:
        TypeError: for what is no storage.
        ValueError: for names of no layer, or of several.
    """
    named = storage if isinstance(storage, Mapping) else {}
    chosen = default if storage is None or isinstance(storage, Mapping) else storage
    for value in (chosen, *named.values()):
        if not isinstance(value, Storage):
            raise TypeError(
                "`storage` must be an object such as keras_grow.storages.Packed(), or a mapping "
                f"from layer paths or names to such objects. Received: {value!r}"
            )
    of_layers = by_layer(model, named, layers, "`storage` must name growable layers of the model.")
    return [of_layers.get(layer, chosen) for layer in layers]
