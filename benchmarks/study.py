"""Studies of accuracy: trainings that are kept as they finish, within a budget, choices first.

A study plans its runs. Each is of one network, in one arm, with one seed. With `CHOICE_SEED`, none
of the result's, settings are tried for a few epochs and chosen on validation images; the others
take the setting chosen, and answer the test once. Records are JSON files in a folder, written in
one step, so that a study goes on where it was interrupted, on another machine too.
"""

import dataclasses
import json
import os
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.reach import interval

CHOICE_SEED = 100


@dataclasses.dataclass(frozen=True)
class Planned:
    """A training to be made.

    Attributes:
        network: what is trained, or on what.
        arm: how.
        seed: of all that is drawn.
        epochs: how long.
        setting: names and numbers that are tried, as pairs; `None` for those to be chosen.
    """

    network: str
    arm: str
    seed: int
    epochs: int
    setting: tuple[tuple[str, float], ...] | None = None

    @property
    def is_choice(self) -> bool:
        """Whether it is there to choose a setting."""
        return self.seed == CHOICE_SEED

    @property
    def file_name(self) -> str:
        """The name of its record."""
        tried = [value for _, value in self.setting or ()] if self.is_choice else []
        parts = [self.network, self.arm, self.seed, *tried]
        return "-".join(map(str, parts)).replace(" ", "_") + ".json"


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs that are planned, and the folder of those that are there.

    Args:
        folder: where records are kept.
        planned: all runs, those that choose before those that depend on them.
        core_hours: the budget; no run is begun beyond it.
        guess: seconds of a core for an epoch, until some are known.
    """

    folder: pathlib.Path
    planned: Sequence[Planned]
    core_hours: float
    guess: float = 20.0

    def go_on(self, train: Callable[[Planned], dict]) -> None:
        """Makes the runs that are not there yet.

        Args:
            train: makes a run with its setting, and returns what is kept of it: `validation`, and
                `processor_seconds` or `seconds`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for run in self.planned:
            path = self.folder / run.file_name
            if path.exists():
                continue
            self._say_what_is_left()
            if run.setting is None:
                chosen = self.chosen(run.network, run.arm)
                run = dataclasses.replace(run, setting=chosen)
            record = {"network": run.network, "arm": run.arm, "seed": run.seed}
            record |= train(run) | dict(run.setting or ()) | {"epochs": run.epochs}
            # In one step, so that nothing interrupted is taken for a finished run.
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(record) + "\n")
            os.replace(unfinished, path)
            print(path.stem, flush=True)
            took = f"in {core_seconds(record):.0f} s of a core"
            print(f"  {record['validation']:.4f} of validation {took}", flush=True)

    def chosen(self, network: str, arm: str) -> tuple[tuple[str, float], ...]:
        """The setting of the highest accuracy on validation images."""
        tried = [run for run in self.planned if (run.network, run.arm) == (network, arm)]
        records = {
            run: json.loads((self.folder / run.file_name).read_text())
            for run in tried
            if run.is_choice
        }
        best = max(records, key=lambda run: records[run]["validation"])
        return best.setting or ()

    def _say_what_is_left(self) -> None:
        done = kept(self.folder)
        spent = sum(map(core_seconds, done)) / 3600
        per_epoch = [core_seconds(record) / record["epochs"] for record in done]
        left = [run for run in self.planned if not (self.folder / run.file_name).exists()]
        epochs = sum(run.epochs for run in left)
        seconds = statistics.mean(per_epoch) if per_epoch else self.guess
        print(
            f"{len(self.planned)} runs, {len(self.planned) - len(left)} are there, {spent:.2f} "
            f"hours of a core"
        )
        print(
            f"  the others, {epochs} epochs, take about {epochs * seconds / 3600:.1f}, at "
            f"{seconds:.0f} s an epoch",
            flush=True,
        )
        if spent > self.core_hours:
            raise SystemExit(f"The budget of {self.core_hours} hours of a core is spent.")


def kept(folder: pathlib.Path) -> list[dict]:
    """The records that are there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def core_seconds(record: dict) -> float:
    """What a run took of a core; the first records know only what passed meanwhile."""
    return record.get("processor_seconds", record["seconds"])


def by_seed(records: Sequence[dict], network: str, arm: str) -> dict[int, dict]:
    """The runs of an arm that count, by seed."""
    of_arm = [r for r in records if (r["network"], r["arm"]) == (network, arm)]
    return {r["seed"]: r for r in of_arm if r["seed"] != CHOICE_SEED}


def differences(
    records: Sequence[dict], networks: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Differences of test accuracy in points, paired by seed, where two seeds or more have both."""
    found = []
    for network in networks:
        for one, other in pairs:
            ones, others = (by_seed(records, network, arm) for arm in (one, other))
            seeds = sorted(ones.keys() & others.keys())
            if len(seeds) > 1:
                points = [100 * (ones[seed]["test"] - others[seed]["test"]) for seed in seeds]
                mean, low, high = interval(points)
                pair = {"network": network, "one": one, "other": other, "seeds": seeds}
                found.append({**pair, "mean": mean, "interval": (low, high)})
    return found


def paired_rows(found: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Rows of a table of differences: which, how many seeds, mean, interval."""
    return [
        [
            f"{row['network']}, {row['one']} - {row['other']}",
            len(row["seeds"]),
            f"{row['mean']:+.2f}",
            "{:+.2f} to {:+.2f}".format(*row["interval"]),
        ]
        for row in found
    ]
