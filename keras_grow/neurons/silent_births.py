"""Maps that are born silent: weights out of them are 0, and the steepest candidates are kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.measuring.agreement import given_inputs
from keras_grow.neurons.dormancy import growable_of
from keras_grow.neurons.newborn_weights import Side, sleep, wake
from keras_grow.neurons.units import Units
from keras_grow.optimizer_slots import reset_slots
from keras_grow.search.tiled_array import TiledArray
from keras_grow.structure.kernels import axes_of

# The largest change of an output that is rounding, in parts of the largest one.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}


class SilentBirths:
    """Newborns of a group whose weights out of them are 0.

    Args:
        units: the group.
        newborn: int64 array, which of its units.
        of_maps: for each of them where its weights stand.

    Attributes:
        readers: the growable layers that read them.

    Raises:
        ValueError: where nothing reads them, or what leads out of them leads into them too.
    """

    def __init__(self, units: Units, newborn: np.ndarray, of_maps: Sequence[Sequence[Side]]):
        self._units, self._of_maps = units, of_maps
        reads: dict[Any, list[tuple[Any, np.ndarray]]] = {}
        for end in units.group.read_by:
            numbers = end.indices[newborn].reshape(-1)
            reads.setdefault(growable_of(end.layer), []).append((axes_of(end.layer), numbers))
        self.readers = list(reads)
        self._is_outgoing = [
            [
                np.any(
                    [np.zeros(len(indices), bool)]
                    + [np.isin(axes.inputs_of(indices), at) for axes, at in reads.get(layer, ())],
                    axis=0,
                )
                for layer, indices in sides
            ]
            for sides in of_maps
        ]
        for of_map in self._is_outgoing:
            if not any(each.any() for each in of_map) or all(each.all() for each in of_map):
                raise ValueError(
                    "A unit can be born silent where some weights lead into it and others out of "
                    f"it. Received: layer {units.path!r}, read by "
                    f"{[end.path for end in units.group.read_by]}"
                )

    def be_born(
        self,
        model: keras.Model,
        data: Any,
        candidates: Sequence[Sequence[Sequence[tf.Tensor]]],
        gradients: Callable[[], Mapping[Growable, Any]],
        optimizer: keras.Optimizer | None,
    ) -> tuple[tuple[float, ...], ...]:
        """Wakes of each newborn the candidate whose weights out of it get the largest gradient.

        Args:
            model, data: the model and growth data.
            candidates: for each newborn the weights of its candidates, one for each of its sides.
            gradients: measures dL/dw of the readers.
            optimizer: whose slots of all that wakes start afresh.

        Returns:
            For each newborn the norms of these gradients, by candidate.

        Raises:
            ValueError: if the model does not compute what it did.
        """
        x = given_inputs(data)
        before = keras.tree.flatten(model(x, training=False))
        candidates = [
            [self._silenced(position, weights) for weights in of_map]
            for position, of_map in enumerate(candidates)
        ]
        norms = []
        for trial in zip(*candidates, strict=True):
            for sides, weights in zip(self._of_maps, trial, strict=True):
                wake(sides, weights)
            norms.append(self._norms(gradients()))
            for sides in self._of_maps:
                sleep(sides)
        found = np.transpose(norms)
        for sides, of_map, best in zip(
            self._of_maps, candidates, np.argmax(found, axis=1), strict=True
        ):
            for changes in wake(sides, of_map[best]):
                reset_slots(optimizer, changes)
        for was, now in zip(before, keras.tree.flatten(model(x, training=False)), strict=True):
            self._check(was, now)
        return tuple(map(tuple, found.tolist()))

    def _silenced(self, position: int, weights: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return [
            tf.where(is_outgoing, tf.zeros_like(values), values)
            for is_outgoing, values in zip(self._is_outgoing[position], weights, strict=True)
        ]

    def _norms(self, gradients: Mapping[Growable, Any]) -> list[float]:
        def squares(layer: Any, indices: tf.Tensor) -> float:
            of_layer = gradients[layer]
            if isinstance(of_layer, TiledArray):
                values = of_layer.at(indices)
            else:
                values = tf.gather(tf.reshape(of_layer, [-1]), indices)
            return float(tf.reduce_sum(tf.square(tf.cast(values, tf.float64))))

        return [
            np.sqrt(
                sum(
                    squares(layer, indices[is_outgoing])
                    for (layer, indices), is_outgoing in zip(sides, of_map, strict=True)
                    if is_outgoing.any()
                )
            )
            for sides, of_map in zip(self._of_maps, self._is_outgoing, strict=True)
        ]

    def _check(self, was: tf.Tensor, now: tf.Tensor) -> None:
        tolerance = _TOLERANCES.get(now.dtype.name, 0.0)
        change = float(tf.reduce_max(tf.abs(tf.cast(now - was, tf.float64))))
        largest = float(tf.reduce_max(tf.abs(tf.cast(was, tf.float64))))
        if change > tolerance * largest:
            raise ValueError(
                "Units that act on others before anything reads them, as the dimensions of keys or "
                "those that are normalized together, can't be born silent. Received: layer "
                f"{self._units.path!r}, whose births change outputs by {change:.3g}, the largest "
                f"of them {largest:.3g}. Leave `is_silent` out."
            )
