"""The slots of a sparse layer each of whose units has inputs of its own."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_grow.layers.slots import Arrays, Slots
from keras_grow.layers.sparse_layout import Layout, why_no_layout
from keras_grow.layers.sparse_product import sparse_matmul


class OwnSlots(Slots):
    """Slots in the order of the connections; free ones stand behind.

    Args:
        shape: of the kernel.
        capacity: how many connections there may be, however they are spread.
    """

    atom_size = 1

    def __init__(self, shape: tuple[int, int], capacity: int):
        self.shape = shape
        self.capacity = self.num_slots = capacity

    def arrays(self, atoms: np.ndarray) -> dict[str, np.ndarray]:
        return Layout.of(atoms, self.shape, self.capacity).arrays()

    def num_atoms(self, arrays: Arrays) -> tf.Tensor:
        return tf.math.count_nonzero(self.is_used(arrays))

    def atoms(self, arrays: Arrays) -> tf.Tensor:
        return (arrays["inputs"] * self.shape[1] + arrays["units"])[: self.num_atoms(arrays)]

    def slots_of_atoms(self, arrays: Arrays) -> tf.Tensor:
        return tf.range(self.num_atoms(arrays))[:, None]

    def weights(self, values: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        return values[: self.num_atoms(arrays)]

    def is_used(self, arrays: Arrays) -> tf.Tensor:
        return arrays["inputs"] < self.shape[0]

    def why_not(self, arrays: Mapping[str, np.ndarray]) -> str | None:
        return why_no_layout(arrays, self.shape, self.capacity)

    def product(self, inputs: tf.Tensor, values: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        return sparse_matmul(inputs, values, arrays)
