"""How much a callback changes: one of several amounts, each a number or a schedule."""

from collections.abc import Callable, Mapping
from typing import Any

from keras_grow.integers import checked_integer

Schedule = float | int | Callable[[int], float]
"""A number, or any callable of the epoch or step, `LearningRateSchedule`s included."""


def sole_amount(amounts: Mapping[str, Any]) -> tuple[str, Any]:
    """The one amount that is given, with its name.

    Args:
        amounts: by the names of a verb's arguments, `None` where not given.

    Raises:
        ValueError: unless one is, and a `count` that is no schedule is a positive integer.
    """
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    if len(given) != 1:
        names = [f"`{name}`" for name in amounts]
        received = ", ".join(f"{name}={amount}" for name, amount in amounts.items())
        raise ValueError(
            f"Pass exactly one of {', '.join(names[:-1])} and {names[-1]}. Received: {received}"
        )
    ((name, amount),) = given.items()
    if name == "count" and not callable(amount):
        amount = checked_integer(amount, "count")
    return name, amount


def count_at(schedule: Schedule, moment: int) -> int:
    """How many, at an epoch or step. A schedule computes in floats: 9.999999 means 10."""
    return round(float(schedule(moment)) if callable(schedule) else schedule)
