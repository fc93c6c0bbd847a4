"""Variables that refuse what they can't mean, where it is assigned to them from outside."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def guard(
    variables: Mapping[str, keras.Variable],
    why_not: Callable[[Mapping[str, np.ndarray]], str | None],
    what: Callable[[], str],
) -> None:
    """Lets whole numbers that belong together be assigned together only, and only if they do.

    `Model.set_weights` assigns one variable after the other, and asks no layer. The values are
    therefore judged together when the last of them is assigned; what is refused is taken back. What
    was assigned to other variables meanwhile is not.
    Inside a compiled function nothing is judged.

    Args:
        variables: integer variables, in the order in which a layer lists them.
        why_not: says of values for all of them why they don't belong together, else `None`.
        what: names the layer, in an error.
    """
    last = list(variables)[-1]
    before: dict[str, tf.Tensor] = {}

    def guarded(name: str, variable: keras.Variable) -> Callable:
        def assign(value: Any) -> Any:
            if not tf.executing_eagerly():
                return assign_unguarded(variable, value)
            array = _whole(np.asarray(value.numpy() if hasattr(value, "numpy") else value))
            if array is None:
                _restore(variables, before)
                raise ValueError(_refusal(f"values of {name!r} that are no whole numbers", what()))
            if name not in before:
                before[name] = tf.identity(variable.value)
            made = assign_unguarded(variable, array.astype(variable.dtype))
            if name == last:
                values = {name: each.numpy() for name, each in variables.items()}
                reason = why_not(values)
                if reason is not None:
                    _restore(variables, before)
                    raise ValueError(_refusal(reason, what()))
                before.clear()
            return made

        return assign

    for name, variable in variables.items():
        vars(variable)["assign"] = guarded(name, variable)


def assign_unguarded(variable: keras.Variable, value: Any) -> Any:
    """`variable.assign(value)`, for those who know what they do."""
    return type(variable).assign(variable, value)


def _whole(array: np.ndarray) -> np.ndarray | None:
    """Numbers that are whole, up to what a weighted mean of whole ones rounds; else `None`."""
    if array.dtype.kind in "iub":
        return array
    whole = np.rint(array)
    slack = 64 * np.finfo(array.dtype).eps * np.abs(array)
    return whole if bool(np.all(np.abs(array - whole) <= slack)) else None


def _restore(variables: Mapping[str, keras.Variable], before: dict[str, tf.Tensor]) -> None:
    for name, value in before.items():
        assign_unguarded(variables[name], value)
    before.clear()


def _refusal(reason: str, what: str) -> str:
    return (
        "The connections of a sparse layer can be set as they were read, and not be computed with. "
        f"Received: {reason}, for {what}. To average models whose connections differ, convert them "
        "with `keras_grow.make_growable` first; where they are the same, average the weights. "
        "Weights that were set before these, such as the layer's `values`, stay as they were set."
    )
