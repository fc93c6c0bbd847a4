"""What accuracy of wide networks costs: a panel each for time and memory, a row each problem."""

import itertools
import pathlib
import statistics
from collections.abc import Sequence

from benchmarks.harness import COLORS
from benchmarks.study import by_seed

_COSTS = {"processor_seconds": "seconds of a core", "peak_bytes": "memory at the peak, MB"}
_SCALES = {"processor_seconds": 1.0, "peak_bytes": 1e-6}


def draw(
    records: Sequence[dict], problems: Sequence[str], arms: Sequence[str], path: pathlib.Path
) -> None:
    """Draws the mean test accuracy of each arm against what it cost, seeds as faint points.

    Args:
        records: finished runs.
        problems: a row of panels each.
        arms: those that there may be, in the order of the legend.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(9.0, 0.8 + 3.4 * len(problems)), layout="constrained")
    panels = figure.subplots(len(problems), len(_COSTS), squeeze=False, sharey="row")
    styles = dict(zip(arms, itertools.product("osD^", COLORS[:4]), strict=False))
    drawn = {}
    for (row, problem), (column, cost) in itertools.product(enumerate(problems), enumerate(_COSTS)):
        axis = panels[row][column]
        for arm in arms:
            runs = [run for run in by_seed(records, problem, arm).values() if cost in run]
            if not runs:
                continue
            marker, color = styles[arm]
            costs = [_SCALES[cost] * run[cost] for run in runs]
            tests = [100 * run["test"] for run in runs]
            axis.plot(costs, tests, marker, color=color, alpha=0.25, markersize=4)
            mean = statistics.mean(costs), statistics.mean(tests)
            (drawn[arm],) = axis.plot(*mean, marker, color=color, markersize=8)
        axis.set(xscale="log", xlabel=_COSTS[cost], title=problem)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(which="both", alpha=0.25)
    for row in panels:
        row[0].set_ylabel("test accuracy, %")
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
