"""Where a sparse layer keeps the weights of its connections, and how it multiplies with them."""

import abc
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

Arrays = Mapping[str, tf.Tensor]
"""The index arrays of a layer, int64, by name."""


class Slots(abc.ABC):
    """A way of storing connections in the slots of one variable, for kernels of one shape.

    Its shapes are static: they follow from the kernel's shape and the capacity. Which connections
    there are is said by index arrays, which follow from the connections.

    What can come and go is an atom: the connections at flat indices a * atom_size and on, of which
    a is the number.

    Attributes:
        shape: of the kernel, inputs and units.
        capacity: how many atoms it can hold.
        atom_size: how many connections can only come and go together.
        num_slots: how many weights there is room for, those of places that must stay free included.
    """

    shape: tuple[int, int]
    capacity: int
    atom_size: int
    num_slots: int

    @abc.abstractmethod
    def arrays(self, atoms: np.ndarray) -> dict[str, np.ndarray]:
        """The index arrays of some atoms.

        Args:
            atoms: int64 of shape `(count,)`, ascending, at most as many as the capacity.
        """

    @abc.abstractmethod
    def num_atoms(self, arrays: Arrays) -> tf.Tensor:
        """How many atoms there are."""

    @abc.abstractmethod
    def atoms(self, arrays: Arrays) -> tf.Tensor:
        """Their numbers: int64 of shape `(count,)`, ascending."""

    @abc.abstractmethod
    def slots_of_atoms(self, arrays: Arrays) -> tf.Tensor:
        """The slots of their connections, int64 of shape `(count, atom_size)`."""

    @abc.abstractmethod
    def weights(self, values: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        """What slots in use store, of shape `(count * atom_size,)`, in the order of the atoms."""

    @abc.abstractmethod
    def is_used(self, arrays: Arrays) -> tf.Tensor:
        """Which slots hold a connection: bool of shape `(num_slots,)`."""

    @abc.abstractmethod
    def why_not(self, arrays: Mapping[str, np.ndarray]) -> str | None:
        """Why arrays are not those of any atoms, `None` if they are."""

    @abc.abstractmethod
    def product(self, inputs: tf.Tensor, values: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        """The kernel applied to inputs.

        Args:
            inputs: floats of shape `(batch, inputs)`.
            values: floats of the same dtype, shape `(num_slots,)`; what free slots store is not
                used.
            arrays: the index arrays.

        Returns:
            Floats of shape `(batch, units)`.
        """
