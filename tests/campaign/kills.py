"""Trainings and exports killed at random moments: they end as if nothing had been, or say why not.

A trial is one kill. Each scenario is run through once; then it is begun anew, killed, gone on with,
killed again, until it ends, and compared number by number with the run that was left alone.
"""

import collections
import json
import pathlib
import shutil
import signal
import time

import numpy as np

from tests.campaign.forks import Forks
from tests.campaign.victim import EXPORTS, NEITHER, REFUSED, TRAININGS

_ROOT = pathlib.Path(__file__).parents[2]
# So often a run is killed before it may end: kills grow rarer, so that it gets on.
_KILLS_PER_LIFE = 3
_PATIENCE_SECONDS = 300.0


def run(count: int, seed: int, scratch: pathlib.Path) -> dict[str, int]:
    """Kills processes, and has them go on.

    Args:
        count: how many kills.
        seed: of the moments.
        scratch: a folder for the runs, and for the verdicts that are known.

    Returns:
        How many kills ended how: survived, refused or wrong.
    """
    log = scratch / "verdicts.jsonl"
    made = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    scenarios = [*TRAININGS, *EXPORTS]
    number = len(made)
    with Forks(["tests.campaign.victim"], _ROOT) as forks:
        while sum(each["kills"] for each in made) < count:
            scenario = scenarios[number % len(scenarios)]
            record = _life(scenario, np.random.default_rng([seed, number]), scratch, forks)
            made.append(record)
            number += 1
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record, flush=True)
    counts: collections.Counter[str] = collections.Counter()
    for record in made:
        counts[record["verdict"]] += record["kills"]
        counts[f"  of {record['scenario']}"] += record["kills"]
    return dict(counts)


def _life(scenario: str, random: np.random.Generator, scratch: pathlib.Path, forks: Forks) -> dict:
    whole = scratch / "whole" / scenario.replace(" ", "_")
    seconds = _let_alone(scenario, whole, forks)
    folder = scratch / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kills, verdict = 0, "survived"
    while not (folder / "done.npz").exists():
        may_kill = kills < _KILLS_PER_LIFE
        moment = random.uniform(0, seconds) if may_kill else _PATIENCE_SECONDS
        code = forks.run("tests.campaign.victim:live", scenario, str(folder), seconds=moment)
        if code == -signal.SIGKILL and may_kill:
            kills += 1
        elif code in (NEITHER, REFUSED):
            verdict = "refused" if code == REFUSED else "wrong: neither old nor new"
            break
        elif code != 0:
            verdict = f"wrong: ended with {code}"
            break
    others = _others(whole / "done.npz", folder / "done.npz") if verdict == "survived" else []
    if others:
        verdict = f"wrong: another end, {others}"
    return {"scenario": scenario, "kills": kills, "verdict": verdict}


def _let_alone(scenario: str, folder: pathlib.Path, forks: Forks) -> float:
    """Runs a scenario through, if that was not done; how long it takes."""
    known = folder / "seconds"
    if not known.exists():
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        code = forks.run(
            "tests.campaign.victim:live", scenario, str(folder), seconds=_PATIENCE_SECONDS
        )
        if code != 0:
            raise RuntimeError(f"{scenario!r} does not run through: it ended with {code}")
        known.write_text(str(time.monotonic() - begun))
    return float(known.read_text())


def _others(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """The names of what is not the same."""
    first, second = np.load(one), np.load(other)
    return sorted(
        set(first.files) ^ set(second.files)
        | {
            name
            for name in set(first.files) & set(second.files)
            if not np.array_equal(
                first[name], second[name], equal_nan=first[name].dtype.kind == "f"
            )
        }
    )
