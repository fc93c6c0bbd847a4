"""Runs a campaign and prints its counts.

    python -m tests.campaign files --count 10000
    python -m tests.campaign kills --count 500
    python -m tests.campaign mutants --count 400
    python -m tests.campaign leaks --count 1000

The first damages saved models and loads them; the second kills trainings and exports, and has them
go on; the third puts small faults into the package, which its tests must notice, and needs
`pip install -e ".[campaign]"`; the last makes models in one process and watches its memory.
Campaigns go on where they stopped: what was counted stands in `--scratch`. They exit with 1 if
anything went wrong.
"""

import argparse
import pathlib
import sys

from tests.campaign import files, kills, leaks, mutants

CAMPAIGNS = {"files": files.run, "kills": kills.run, "mutants": mutants.run, "leaks": leaks.run}


def main(argv: list[str] | None = None) -> int:
    """Runs what is asked for; returns how many trials went wrong, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("output/campaign"))
    arguments = parser.parse_args(argv)
    scratch = arguments.scratch / f"{arguments.campaign}-{arguments.seed}"
    scratch.mkdir(parents=True, exist_ok=True)
    counts = CAMPAIGNS[arguments.campaign](arguments.count, arguments.seed, scratch)
    for name, number in counts.items():
        print(f"{name:>40}  {number:,}")
    return int(any(number for name, number in counts.items() if "wrong" in name))


if __name__ == "__main__":
    sys.exit(main())
