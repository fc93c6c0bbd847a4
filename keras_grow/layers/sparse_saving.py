"""What a sparse layer writes to files of Keras's: its connections, and nothing of their storage."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_grow.keras_private import declared_shape
from keras_grow.layers.checked_saving import check, check_shapes, checksum
from keras_grow.search.atoms import splits_atoms


def save(layer: Any, store: Any) -> None:
    """Writes the connections of a sparse layer, their weights and its bias to a store."""
    connections, values = layer.active_connections()
    store["connections"], store["values"] = connections.numpy(), values.numpy()
    if layer.bias is not None:
        store["bias"] = layer.bias.numpy()
    # Rounded down, the mean of two files' connections may well look like other connections.
    store["checksum"] = np.int64(checksum(_in_order(store)))


def saved_connections(layer: Any, store: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices (int64, ascending) and weights that were saved, of a layer that can hold them.

    Raises:
        ValueError: if it can't, saying why.
    """
    expected = {"checksum", "connections", "values"}
    expected |= {"bias"} if layer.bias is not None else set()
    if set(store.keys()) != expected:
        raise ValueError(
            f"Layer {layer.name!r} expected saved arrays {sorted(expected)}. "
            f"Received: {sorted(store.keys())}"
        )
    declared = [declared_shape(store, name) for name in ("connections", "values")]
    # Before anything is read: a damaged file may say that it takes more memory than there is.
    if any(shape is not None and math.prod(shape) > layer.capacity for shape in declared):
        raise ValueError(
            f"Layer {layer.name!r} with a capacity of {layer.capacity} connections can't hold what "
            "was saved. Received: connections and values that are said to have shapes "
            f"{declared}. Build it with the capacity of the saved one, or load another copy of "
            "the file."
        )
    if layer.bias is not None:
        check_shapes(layer.name, store, {"bias": layer.bias.shape})
    connections, values = np.asarray(store["connections"]), np.asarray(store["values"])
    is_ascending = bool(np.all(np.diff(connections) > 0))
    inside = len(connections) == 0 or (
        connections[0] >= 0 and connections[-1] < layer.num_connections
    )
    fits = connections.ndim == 1 and len(connections) <= layer.capacity
    if not (fits and is_ascending and inside and connections.shape == values.shape):
        raise ValueError(
            f"Layer {layer.name!r}, a kernel of shape {layer.kernel_shape} with a capacity of "
            f"{layer.capacity}, can't hold what was saved. Received: connections of shape "
            f"{connections.shape}{'' if is_ascending and inside else ', out of range or order'}"
            f", values of shape {values.shape}. Build it with the capacity of the saved one."
        )
    check(layer.name, store["checksum"], _in_order(store))
    connections = connections.astype(np.int64)
    if splits_atoms(connections, layer.atom_size):
        raise ValueError(
            f"Layer {layer.name!r}, whose units share their inputs in groups of "
            f"{layer.atom_size}, can't hold what was saved. Received: connections into a part of a "
            "group. Build it with the `group_size` of the saved one."
        )
    return connections, values


def _in_order(store: Mapping[str, Any]) -> list[np.ndarray]:
    """The arrays that a checksum is of."""
    return [np.asarray(store[name]) for name in sorted(store.keys()) if name != "checksum"]
