"""Names under which callbacks record layers."""

from collections.abc import Sequence

from keras_grow.layers.growable import Growable


def distinct_names(layers: Sequence[Growable]) -> list[str]:
    """The layers' names; where nested models use one twice, the later ones with a number."""
    names: list[str] = []
    for layer in layers:
        name, number = layer.name, 1
        while name in names:
            number += 1
            name = f"{layer.name}_{number}"
        names.append(name)
    return names
