"""Many models in one process: its memory must not grow with them, beyond what plain Keras's does.

A process builds, trains, grows and compacts one model after the other; the control builds, trains
and clones as many of plain Keras. Resident memory is sampled as they go.
"""

import csv
import os
import pathlib
import subprocess
import sys

import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]
ARMS = ("keras_grow", "plain Keras")
# What a model may leave beyond the control's: generous, as allocators keep some of what is freed.
LARGEST_EXCESS_KIB = 256.0


def run(count: int, seed: int, scratch: pathlib.Path) -> dict[str, int]:
    """Builds models in a process for each arm.

    Args:
        count: how many models, in each arm.
        seed: of their weights.
        scratch: a folder for the curves of memory, `<arm>.csv`: models made, resident MiB.

    Returns:
        KiB by which memory grew per model, of each arm, and 1 if the first exceeds the second's by
        more than `LARGEST_EXCESS_KIB`.
    """
    slopes = {}
    for arm in ARMS:
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
    excess = slopes[ARMS[0]] - slopes[ARMS[1]]
    return {
        **{f"KiB per model, {arm}": round(value) for arm, value in slopes.items()},
        "wrong: memory grows with models": int(excess > LARGEST_EXCESS_KIB),
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
