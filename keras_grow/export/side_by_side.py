"""Times of functions that do the same, measured side by side."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def median_seconds(functions: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """The median time of each function, called in turns, so that all see the same machine.

    Args:
        functions: without arguments, each returning when its work is done. Each is called once
            before it is timed.
        seconds: no new round begins after this time, but five are always made.
    """
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    begun = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - begun < seconds:
        # Every second round runs backwards: none always follows the same one.
        order = list(range(len(functions)))
        for i in order if len(times[0]) % 2 else order[::-1]:
            started = time.perf_counter()
            functions[i]()
            times[i].append(time.perf_counter() - started)
    return [statistics.median(t) for t in times]
