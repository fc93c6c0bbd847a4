"""The warning where a change leaves outputs without inputs, or layers with next to nothing."""

import warnings
from collections.abc import Sequence

import keras

from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of
from keras_grow.structure.dependence import Dependence


class CutOffWarning:
    """What a change cut off: made before it, and asked to warn behind it.

    Args:
        model: a built model with growable layers.
        layers: those to warn of where they are left with one connection or none.
    """

    def __init__(self, model: keras.Model, layers: Sequence[Growable]):
        self._model = model
        self._layers = layers
        self._dependence = Dependence(model)
        self._num_active = [layer.num_active for layer in layers]
        self._cut_off = self._dependence.cut_off()

    def warn(self, advice: str, stacklevel: int) -> None:
        """Warns of outputs that the change cut off from all inputs, and of layers it emptied.

        Args:
            advice: a sentence on how to mend it.
            stacklevel: as of `warnings.warn`, counted from the caller.
        """
        parts = []
        now_cut_off = self._dependence.cut_off()
        for (name, now), (_, before) in zip(now_cut_off, self._cut_off, strict=True):
            num_new = int((now & ~before).sum())
            if num_new:
                parts.append(
                    f"{num_new} of the {len(now)} units that {name!r} answers with depend on no "
                    "input any more: they are the same whatever the model is given."
                )
        paths = paths_of(self._model, self._layers)
        thin = [
            path
            for path, layer, num_before in zip(paths, self._layers, self._num_active, strict=True)
            if layer.num_active <= layer.atom_size < num_before
        ]
        if thin:
            parts.append(
                f"{len(thin)} of {len(self._layers)} layers are left with one connection or none: "
                f"{thin}."
            )
        if parts:
            warnings.warn(f"{' '.join(parts)} {advice}", stacklevel=stacklevel + 1)
