"""Layers whose connections lie in a pattern, and stay in it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_grow.connections.acted_on import check_policy
from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.sparse_training import Method
from keras_grow.search.in_pattern import InPattern
from keras_grow.search.sampled_search import SampledSearch
from keras_grow.search.tiled_search import TiledSearch

Placed = dict[Growable, InPattern]
"""A pattern on the kernels of some layers; empty without one."""


def place(pattern: Any, model: keras.Model, layers: Sequence[Growable]) -> Placed:
    """Lays a pattern, or `None`, over the kernels of layers.

    Raises:
        TypeError: for something else.
        ValueError: for layers with a `group_size`.
    """
    if pattern is None:
        return {}
    check_policy(pattern, Pattern, "pattern")
    in_groups = [layer for layer in layers if layer.atom_size > 1]
    if in_groups:
        raise ValueError(
            "Connections that come and go in groups have a pattern already. Received: layers "
            f"{paths_of(model, in_groups)} with a `group_size`. Name others by `layers=`."
        )
    return {layer: InPattern(pattern, layer.axes) for layer in layers}


def check_can_grow(placed: Placed, model: keras.Model, search: TiledSearch | None) -> None:
    """Raises `ValueError` for layers that lie in no pattern, and a search that judges no blocks."""
    beyond = [x for x, on_layer in placed.items() if not on_layer.has_room_for(_active(x))]
    if beyond:
        raise ValueError(
            "What grows in a pattern needs connections that lie in it. Received: "
            f"pattern={placed[beyond[0]].pattern!r}, and more active connections of some groups "
            f"than that in {paths_of(model, beyond)}. Prune to it first: "
            "`keras_grow.prune(model, pattern=pattern)`."
        )
    of_several = [x for x in placed.values() if not x.atoms_are_connections]
    if of_several and isinstance(search, SampledSearch):
        raise ValueError(
            "A sample of connections judges no whole block of them. Received: "
            f"pattern={of_several[0].pattern!r}, search={search!r}. Take "
            "`keras_grow.TiledSearch()`."
        )


def check_can_exchange(placed: Placed, model: keras.Model, method: Method) -> None:
    """Raises `ValueError` where in a pattern as many can't come as go."""
    if placed and method.share is not None:
        raise ValueError(
            "In a pattern each layer grows as many connections as it dropped, for others may have "
            f"no room. Received: method={type(method).__name__}, which shares them among layers. "
            "Take another, such as `keras_grow.sparse_training.RigL()`."
        )
    uneven = [
        layer
        for layer, on_layer in placed.items()
        if not on_layer.atoms_are_even or not on_layer.are_whole(_active(layer))
    ]
    if uneven:
        raise ValueError(
            "Where blocks come for others, all must be of the same size, and active as a whole or "
            f"not at all. Received: pattern={placed[uneven[0]].pattern!r} for layers "
            f"{paths_of(model, uneven)}, with kernels of shape "
            f"{[layer.kernel_shape for layer in uneven]}. Take sides that divide the kernel's; "
            "`keras_grow.grow(model, data, pattern=pattern)` completes what is active in part."
        )


def _active(layer: Growable) -> np.ndarray:
    return np.asarray(layer.active_connections()[0])
