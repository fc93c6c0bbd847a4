"""How measurements look into layers without the layers knowing what is measured.

A growable layer asks the observer of the moment for its effective kernel, and shows it its
inputs and pre-activations. In training there is none, and the graph of the training step is the
plain one. A measurement runs the model inside `observing(...)` and gets to see, and may replace,
what it needs: growth gradients put a watched kernel in place of the layer's, an export a packed
one.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any


class Observer:
    """Sees what growable layers compute, and changes nothing: the base of every measurement."""

    def kernel(self, layer: Any) -> Any:
        """An effective kernel to use instead of the layer's own, or `None`.

        Asked wherever a layer or its regularizer uses the effective kernel.
        """
        return None

    def product(self, layer: Any, inputs: Any) -> Any:
        """The kernel applied to inputs, to use instead of the layer's own product, or `None`."""
        return None

    def inputs(self, layer: Any, inputs: Any) -> None:
        """Called with the inputs of each call of a layer, inputs or channels on the last axis."""

    def pre_activation(self, layer: Any, inputs: Any, outputs: Any) -> Any:
        """Called with the outputs of each call before the activation, shape `(..., units)`."""
        return outputs


_NOBODY = Observer()
_observer: contextvars.ContextVar[Observer] = contextvars.ContextVar(
    "keras_grow_observer", default=_NOBODY
)


def current_observer() -> Observer:
    """The observer of the innermost `observing` block of this thread."""
    return _observer.get()


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Shows `observer` what growable layers compute inside the block.

    With a distribution strategy, enter it inside the replica function: each replica runs in a
    thread of its own.
    """
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
