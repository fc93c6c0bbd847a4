"""Many models in one process: its memory must not grow with them, beyond what plain Keras's does.

A process builds, trains, grows and compacts one model after the other; the control builds, trains
and clones as many of plain Keras. Resident memory is sampled as they go.

It grows in both: TensorFlow keeps the graph of a train step when its model is gone, 4 MB of a small
one, and of what XLA has compiled the program, as much again. Sparse layers have several programs:
they are measured beside a control that XLA compiles, and not judged.
"""

import csv
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]
ARMS = ("keras_grow", "plain Keras", "keras_grow, sparse", "plain Keras, XLA")
# What the first arm may leave by what the second does: its graphs have more operations, and there
# is the one of growth.
LARGEST_RATIO = 1.25


def run(count: int, seed: int, scratch: pathlib.Path, arms: Sequence[str] = ARMS) -> dict[str, int]:
    """Builds models in a process for each arm.

    Args:
        count: how many models, in each arm.
        seed: of their weights.
        scratch: a folder for the curves of memory, `<arm>.csv`: models made, resident MiB.
        arms: those of `ARMS` to run, the first two at least.

    Returns:
        KiB by which memory grew per model, of each arm, and 1 if the first is more than
        `LARGEST_RATIO` of the second.
    """
    slopes = {}
    for arm in arms:
        curve = scratch / f"{arm.replace(' ', '_')}-{count}.csv"
        if not curve.exists():
            command = ["-m", "tests.campaign.model_maker", arm, str(count), str(seed), str(curve)]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
            subprocess.run([sys.executable, *command], cwd=_ROOT, env=environment, check=True)
        with curve.open() as file:
            rows = [(int(row["models"]), float(row["MiB"])) for row in csv.DictReader(file)]
        for models, size in rows[:: max(1, len(rows) // 10)]:
            print(f"{arm:>12}  {models:>6,} models  {size:,.0f} MiB", flush=True)
        slopes[arm] = slope(rows)
    return {
        **{f"KiB per model, {arm}": round(value) for arm, value in slopes.items()},
        "wrong: memory grows with models": int(slopes[ARMS[0]] > LARGEST_RATIO * slopes[ARMS[1]]),
    }


def slope(curve: list[tuple[int, float]]) -> float:
    """KiB per model over the later half of a curve, once all that is made once is there.

    It is the median of the slopes between all pairs of samples (Theil and Sen), which a few jumps
    of the allocator's leave alone.

    Args:
        curve: models made and resident MiB, at least three samples.
    """
    later = curve[len(curve) // 2 - 1 :]
    slopes = [
        1024 * (size - before) / (models - earlier)
        for i, (models, size) in enumerate(later)
        for earlier, before in later[:i]
    ]
    return float(np.median(slopes))
