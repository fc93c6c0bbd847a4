"""What layers write to files of Keras's has a checksum, which is compared before it is taken."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.keras_private import declared_shape

_NAME = "checksum"


class CheckedSaving(keras.layers.Layer):
    """Saves a checksum of a layer's own arrays beside them, and refuses arrays that are others.

    HDF5 has none, and a file with a bit that flipped loads without a word. Files without one, which
    earlier versions wrote, are taken as they are.
    """

    def save_own_variables(self, store: Any) -> None:
        """Writes the layer's arrays, and their checksum.

        Args:
            store: a mapping of Keras's that becomes a part of the file.
        """
        super().save_own_variables(store)
        own = [*self._trainable_variables, *self._non_trainable_variables]
        store[_NAME] = np.int64(checksum(keras.ops.convert_to_numpy(v.value) for v in own))

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Reads the layer's arrays, once their checksum is found to be right.

        Args:
            store: a mapping of Keras's to a part of the file.

        Raises:
            ValueError: for arrays that are not those which were saved.
        """
        # Keras takes whatever is there for a variable.
        names = list(store.keys())
        # "10" comes behind "2": they are numbers, in the order of the variables.
        in_order = sorted(names, key=lambda name: (len(name), name))
        own = [*self._trainable_variables, *self._non_trainable_variables]
        check_shapes(self.name, store, {str(i): v.shape for i, v in enumerate(own)})
        arrays = {name: store[name] for name in in_order if name != _NAME}
        if _NAME in names:
            check(self.name, store[_NAME], map(np.asarray, arrays.values()))
        super().load_own_variables(arrays)


def check_shapes(
    layer_name: str, store: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises `ValueError` for arrays of other shapes than expected, before they are read.

    A damaged file may say of an array that it takes more memory than there is.
    """
    for name, shape in expected.items():
        declared = declared_shape(store, name)
        if declared is not None and declared != tuple(shape):
            raise ValueError(
                f"Layer {layer_name!r} expects array {name!r} of shape {tuple(shape)}. Received: "
                f"one that is said to have shape {declared}. Build the layer as the saved one, or "
                "load another copy of the file."
            )


def check(layer_name: str, saved: Any, arrays: Iterable[np.ndarray]) -> None:
    """Raises `ValueError` unless arrays have the checksum that was saved."""
    if int(np.asarray(saved)) != checksum(arrays):
        raise ValueError(
            f"What is stored of layer {layer_name!r} is not what was saved. Received: arrays that "
            "do not match their checksum: the file is damaged, or was changed by hand. Load "
            "another copy of it; set weights of your own by `layer.set_weights`."
        )


def checksum(arrays: Iterable[np.ndarray]) -> int:
    """32 bits of some arrays, with their shapes and kinds of numbers."""
    value = 0
    for array in arrays:
        array = np.asarray(array)
        if array.dtype.kind not in "fiub":  # Such as bfloat16, which float32 holds exactly.
            array = array.astype(np.float32)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        value = zlib.crc32(f"{array.dtype.str}{array.shape}".encode(), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8).data, value)
    return value
