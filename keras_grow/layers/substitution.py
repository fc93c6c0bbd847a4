"""Layers called with other values in the place of some of their variables."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_grow.keras_private import current_stateless_scope


class _Substitution(keras.StatelessScope):
    """Gives some variables other values, and leaves all else as it is outside.

    A stateless scope is how Keras reads values that no variable has. By itself it would also keep
    what layers update, such as the state of random seeds, and what they add to the losses.
    """

    def __init__(self, pairs: Sequence[tuple[keras.Variable, Any]]):
        super().__init__(collect_losses=True)
        # Keras would cast them to the type that variables are read in, or without one to float32:
        # once for all reads, so that gradients of the reads would be summed in half precision.
        self.state_mapping = {id(variable): value for variable, value in pairs}
        self._outside = current_stateless_scope()
        self.updates: dict[int, tuple[keras.Variable, Any]] = {}

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and self._outside is not None:
            return self._outside.get_current_value(variable)
        return value

    def add_update(self, update):
        super().add_update(update)
        self.updates[id(update[0])] = update


@contextlib.contextmanager
def substituted(
    pairs: Sequence[tuple[keras.Variable, Any]], add_loss: Callable[[Any], None]
) -> Iterator[None]:
    """Inside the block, layers read other values in the place of some variables.

    What they assign to variables is assigned behind the block.

    Args:
        pairs: variables, and the tensors that they are read as.
        add_loss: is called with each loss that layers added.
    """
    scope = _Substitution(pairs)
    with scope:
        yield
    for variable, value in scope.updates.values():
        variable.assign(value)
    for loss in scope.losses:
        add_loss(loss)
