"""The weights with which maps are born: where they stand, drawn at random, woken and taken back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_grow.connections.amounts import CapacityUsedUp
from keras_grow.layers.growable import Growable, StorageChange
from keras_grow.neurons.filters import Filter, mean_weight_of, wake_weights
from keras_grow.structure.kernels import KernelIn

Side = tuple[Growable | KernelIn, tf.Tensor]
"""A layer, and flat indices of connections of it."""


def filter_of(filtering: Filter, unit: int) -> Side:
    """The weights of a unit in what filters units one by one."""
    return filtering.layer, tf.constant(np.sort(filtering.connections[unit]))


def check_room(sides: Sequence[Sequence[Side]]) -> None:
    """Raises `CapacityUsedUp` if a sparse layer has too few free slots for all maps.

    Raises `ValueError` if it has connections that come and go together, and a map brings a part.
    """
    needed: dict[Any, int] = {}
    for of_map in sides:
        for layer, indices in of_map:
            needed[layer] = needed.get(layer, 0) + len(indices)
            if isinstance(layer, Growable):
                layer.check_indices(indices)
    for layer, number in needed.items():
        if number > layer.num_free:
            raise CapacityUsedUp(
                f"The maps bring {number} connections, and layer {layer.name!r} has room for "
                f"{layer.num_free}. Make a copy with more slots: "
                "`keras_grow.make_sparse(model, capacity=...)`."
            )


def draw(sides: Sequence[Side], birth_strength: float, key: Sequence[int]) -> list[tf.Tensor]:
    """Random weights for the connections of each side.

    Args:
        sides: of a map.
        birth_strength: the mean |w| over that of the layer's other weights.
        key: integers that the weights are a function of.
    """
    random = np.random.default_rng(key)
    weights = []
    for layer, indices in sides:
        # The mean magnitude of normal numbers is their deviation times sqrt(2 / pi).
        deviation = birth_strength * mean_weight_of(layer) * math.sqrt(math.pi / 2)
        values = random.normal(0.0, deviation, len(indices))
        variable = layer.kernel_variables[0] if isinstance(layer, Growable) else layer.kernel
        weights.append(tf.constant(values, variable.dtype))
    return weights


def wake(sides: Sequence[Side], weights: Sequence[tf.Tensor]) -> list[list[StorageChange]]:
    """Gives a map its weights; returns what moved in each layer."""
    return [
        wake_weights(layer, indices, values)
        for (layer, indices), values in zip(sides, weights, strict=True)
    ]


def sleep(sides: Sequence[Side]) -> None:
    """Makes the connections of a map dormant again; what a plain filter holds stays until then."""
    for layer, indices in sides:
        if isinstance(layer, Growable):
            layer.prune_connections(indices)
