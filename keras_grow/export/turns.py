"""Times of functions that do the same, measured side by side."""

import time
from collections.abc import Callable, Sequence
from typing import Any

_TURN = 0.002


def interleaved_seconds(
    functions: Sequence[Callable[[], Any]], seconds: float
) -> list[list[float]]:
    """The times of a call of each function, in turns, so that all see the same machine.

    A turn has as many calls as fit into two milliseconds, and counts as their mean: in use, too, a
    fast function finds its data where its last call left them.

    Args:
        functions: without arguments, each returning when its work is done. Each is called twice
            before it is timed.
        seconds: no new round begins after this time, but five are always made.
    """
    counts = []
    for function in functions:
        function()
        started = time.perf_counter()
        function()
        counts.append(max(1, int(_TURN / (time.perf_counter() - started))))
    times: list[list[float]] = [[] for _ in functions]
    begun = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - begun < seconds:
        # Every second round runs backwards: none always follows the same one.
        order = list(range(len(functions)))
        for i in order if len(times[0]) % 2 else order[::-1]:
            started = time.perf_counter()
            for _ in range(counts[i]):
                functions[i]()
            times[i].append((time.perf_counter() - started) / counts[i])
    return times
