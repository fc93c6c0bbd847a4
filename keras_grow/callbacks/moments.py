"""Moments: when a callback acts."""

import dataclasses

from keras_grow.integers import checked_integer


@dataclasses.dataclass(frozen=True)
class Epochs:
    """At the beginning of epochs `start, start + every, ...`, before `stop`.

    The default start is the second epoch (1), after something has been learnt.

    Args:
        every: positive integer.
        start: non-negative integer, the first epoch, counted from 0 as `fit` does.
        stop: the epoch from which on nothing happens, or `None` for no end.
    """

    every: int = 1
    start: int = 1
    stop: int | None = None

    def __post_init__(self):
        _check(self)

    def is_due(self, epoch: int) -> bool:
        """Whether to act at the beginning of `epoch`."""
        is_in_range = epoch >= self.start and (self.stop is None or epoch < self.stop)
        return is_in_range and (epoch - self.start) % self.every == 0


@dataclasses.dataclass(frozen=True)
class Steps:
    """Before the optimizer's steps `start, start + every, ...`, before `stop`.

    Steps are the optimizer's, counted over epochs and over calls of `fit`. With
    `steps_per_execution`, between two executions.

    Args:
        every: positive integer.
        start: non-negative integer, the first step; by default `every`.
        stop: the step from which on nothing happens, or `None` for no end.
    """

    every: int
    start: int | None = None
    stop: int | None = None

    def __post_init__(self):
        _check(self)

    def is_due(self, step: int, last_execution: int = 1) -> bool:
        """Whether to act before `step`: a step since the last execution began has fallen due.

        Args:
            step: the step about to be made.
            last_execution: how many steps the execution before it made.
        """
        last = step if self.stop is None else min(step, self.stop - 1)
        start = self.every if self.start is None else self.start
        if last < start:
            return False
        latest_due = last - (last - start) % self.every
        return latest_due > step - last_execution


def _check(moments: Epochs | Steps) -> None:
    limits = {"every": 1, "start": 0, "stop": 0}
    for name, least in limits.items():
        value = getattr(moments, name)
        if value is None and (name == "stop" or (name == "start" and isinstance(moments, Steps))):
            continue
        object.__setattr__(moments, name, checked_integer(value, name, least))
