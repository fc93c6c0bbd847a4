"""Which storage is whose: one for all layers, or one by name."""

from collections.abc import Mapping

from keras_grow.export.storages import Storage
from keras_grow.layers.growable import Growable


def resolve(
    storage: Storage | Mapping[str, Storage] | None, layers: list[Growable], default: Storage
) -> list[Storage]:
    """A storage for each layer.

    Args:
        storage: one for all layers, one by layer name, or `None`.
        layers: the growable layers of a model.
        default: for layers that `storage` does not name.

    Raises:
        TypeError: for what is no storage.
        ValueError: for names of no layer.
    """
    named = storage if isinstance(storage, Mapping) else {}
    chosen = default if storage is None or isinstance(storage, Mapping) else storage
    for value in (chosen, *named.values()):
        if not isinstance(value, Storage):
            raise TypeError(
                "`storage` must be an object such as keras_grow.storages.Packed(), or a mapping "
                f"from layer names to such objects. Received: {value!r}"
            )
    names = [layer.name for layer in layers]
    unknown = sorted(set(named) - set(names))
    if unknown:
        raise ValueError(
            "`storage` must name growable layers of the model. "
            f"Received: {unknown}, where the growable layers are {names}"
        )
    return [named.get(name, chosen) for name in names]
