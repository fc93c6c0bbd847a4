"""What counts as an integer in an argument: whatever can index a list, NumPy's included."""

import operator
from typing import Any

import numpy as np


def as_integer(value: Any) -> int | None:
    """`value` as a Python integer; `None` for what is none, as True and False."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def checked_integer(value: Any, name: str, least: int = 1) -> int:
    """`value` as a Python integer; raises `ValueError` unless it is one of at least `least`."""
    integer = as_integer(value)
    if integer is None or integer < least:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return integer
