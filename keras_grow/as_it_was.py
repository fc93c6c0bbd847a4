"""Variables put back as they were."""

import contextlib
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf


class Snapshot:
    """The values of some variables at the moment it is made.

    Args:
        variables: of a model, a layer, an optimizer.
        on_host: whether the values are copied to the host, where they may wait for long; else
            TensorFlow copies them on their device, and only where it must.
    """

    def __init__(self, variables: Iterable[keras.Variable], *, on_host: bool = False):
        read = keras.ops.convert_to_numpy if on_host else tf.convert_to_tensor
        self._values = [(variable, read(variable.value)) for variable in variables]

    def restore(self) -> None:
        """Puts the values back."""
        for variable, value in self._values:
            variable.assign(value)


@contextlib.contextmanager
def as_it_was_on_error(variables: Iterable[keras.Variable]) -> Iterator[None]:
    """Puts the values of variables back if the block raises, and lets the error go on."""
    snapshot = Snapshot(variables)
    try:
        yield
    except BaseException:  # An interrupt too must leave nothing half done.
        snapshot.restore()
        raise
