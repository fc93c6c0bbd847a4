"""Wide networks in which 1% of the connections are active, beside dense ones.

    TFDS_DATA_DIR=DIR python -m benchmarks.wide

trains networks of three wide hidden layers on MNIST and CIFAR-10: dense, dense with as many
weights, dense with as much time, and sparse ones whose connections stay, or are dropped and grown
by the published methods. It says first how long the runs that are left take, and stays within
twelve hours of two cores. Runs are kept under `benchmarks/results/wide` as they finish (`--scratch`
names another folder); a later start makes those that are missing. `--table` writes the results of
those that are there, `--problems mnist` makes those of one. `--quick` trains a little on random
images.
"""

import argparse
import itertools
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import harness, wide_figure, wide_training
from benchmarks.mnist_data import NUM_VALIDATION as MNIST_VALIDATION
from benchmarks.study import (
    CHOICE_SEED,
    Planned,
    Study,
    by_seed,
    differences,
    kept,
    paired_rows,
)
from benchmarks.wide_training import (
    AS_FAST,
    AS_HEAVY,
    CH2,
    CH3,
    CORRELATED,
    DECAYED,
    DENSE,
    GRANET,
    RIGL,
    SET,
    SHARED,
    SNFS,
    STATIC,
)

COMMAND = "python -m benchmarks.wide"
WIDTHS = {"mnist": 1568, "cifar10": 1024, "random": 256}
PROBLEMS = ("mnist", "cifar10")
EPOCHS, TUNING_EPOCHS = 25, 8
SEEDS = (0, 1, 2)
# These have three seeds, the others one.
MAIN_ARMS = (
    *(DENSE, AS_HEAVY, AS_FAST, DECAYED),
    *(STATIC, CORRELATED, SET, RIGL, CH2, SHARED),
)
ARMS = (*MAIN_ARMS, SNFS, GRANET, CH3)
# Each arm chooses one of these, on validation images. Rates span a factor of 30, for dense networks
# diverge where sparse ones learn best; another decay is tried where both learn.
SETTINGS = [
    (("rate", rate), ("decay", decay))
    for rate, decay in (
        *((rate, 1e-4) for rate in (0.01, 0.03, 0.1, 0.3)),
        *((rate, 1e-3) for rate in (0.03, 0.1)),
    )
]
FURTHER_SETTINGS = {
    DECAYED: [
        (("rate", rate), ("decay", decay))
        for rate, decay in ((0.1, 3e-3), (0.1, 1e-2), (0.03, 1e-2))
    ]
}
LEFT_OUT = {"mnist": (DECAYED,)}
CORE_HOURS = 24.0
QUICK = pathlib.Path("output/wide_quick")
DIFFERENCES = (
    *((arm, DENSE) for arm in (AS_HEAVY, AS_FAST, STATIC, SET, RIGL, CH2)),
    *((arm, AS_HEAVY) for arm in (SET, RIGL, CH2)),
    *((arm, AS_FAST) for arm in (SET, RIGL, CH2)),
    *((arm, STATIC) for arm in (SET, RIGL, CH2)),
    (CORRELATED, STATIC),
    (CH2, CORRELATED),
    (CORRELATED, DENSE),
    (DECAYED, DENSE),
    (CH2, DECAYED),
    (CH2, RIGL),
    (SHARED, RIGL),
    (SHARED, DENSE),
    (SHARED, AS_FAST),
)
_LONGEST_RUN = 4 * 3600.0


def runs(problems: Sequence[str], is_quick: bool) -> list[Planned]:
    """All runs, those of choices first, main arms before the others."""
    most, seeds = (1, SEEDS[:1]) if is_quick else (len(SETTINGS), SEEDS)
    epochs, tuning = (4, 4) if is_quick else (EPOCHS, TUNING_EPOCHS)
    found = []
    for problem in problems:
        for arms, of_seeds in ((MAIN_ARMS, seeds), (ARMS[len(MAIN_ARMS) :], seeds[:1])):
            arms = [arm for arm in arms if arm not in LEFT_OUT.get(problem, ())]
            found += [
                Planned(problem, arm, CHOICE_SEED, tuning, setting)
                for arm in arms
                for setting in FURTHER_SETTINGS.get(arm, SETTINGS)[:most]
            ]
            found += [Planned(problem, arm, seed, epochs) for seed in of_seeds for arm in arms]
    return found


def study(problems: Sequence[str], scratch: pathlib.Path, is_quick: bool) -> None:
    """Makes the runs that are not there yet, each in processes of its own, but quick ones."""

    def call(name: str, **arguments: Any) -> Any:
        if is_quick:
            return getattr(wide_training, name)(**arguments)
        function = f"benchmarks.wide_training:{name}"
        return harness.run_alone(function, timeout=_LONGEST_RUN, **arguments).result

    def train(planned: Planned) -> dict:
        arguments = {
            "problem": planned.network,
            "arm": planned.arm,
            "seed": planned.seed,
            "epochs": planned.epochs,
            "setting": dict(planned.setting or ()),
            "width": WIDTHS[planned.network],
            "is_choice": planned.is_choice,
        }
        return call("train", **arguments)

    Study(scratch, runs(problems, is_quick), CORE_HOURS).go_on(train)
    # Apart, for that of a training is mostly of images, and of what was done with them.
    for problem, arm in itertools.product(problems, ARMS):
        path = _memory_path(scratch, problem, arm)
        of_arm = list(by_seed(kept(scratch), problem, arm).values())
        if of_arm and not path.exists():
            finished = of_arm[0]
            of_network = {name: finished[name] for name in ("num_inputs", "width", "arm")}
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(call("memory", **of_network, seed=0)) + "\n")


def _memory_path(scratch: pathlib.Path, problem: str, arm: str) -> pathlib.Path:
    return scratch / "memory" / f"{problem}-{arm}.json".replace(" ", "_")


def summary(records: Sequence[dict]) -> list[list[Any]]:
    """A row for each problem and arm that has finished runs: means over its seeds."""
    rows = []
    for problem in dict.fromkeys(record["network"] for record in records):
        for arm in ARMS:
            of_arm = list(by_seed(records, problem, arm).values())
            if not of_arm:
                continue

            def mean(field: str, of_arm: list[dict] = of_arm) -> float:
                return statistics.mean(record[field] for record in of_arm)

            rows.append(
                [
                    f"{problem}, {arm}",
                    len(of_arm),
                    f"{100 * mean('test'):.2f}",
                    f"{100 * mean('train'):.1f}",
                    f"{mean('width'):,.0f}",
                    f"{mean('weights'):,.0f}",
                    f"{mean('seconds'):.0f}",
                    f"{mean('processor_seconds'):.0f}",
                    f"{100 * mean('exchange_seconds') / mean('seconds'):.1f}",
                    f"{mean('peak_bytes') / 1e6:.0f}" if "peak_bytes" in of_arm[0] else "-",
                    f"{of_arm[0]['rate']:g}, {of_arm[0]['decay']:g}",
                ]
            )
    return rows


def write(scratch: pathlib.Path, output: pathlib.Path, is_quick: bool) -> None:
    """Writes the results of the runs that are there."""
    records = kept(scratch)
    for record in records:
        path = _memory_path(scratch, record["network"], record["arm"])
        if path.exists():
            record["peak_bytes"] = json.loads(path.read_text())
    problems = list(dict.fromkeys(record["network"] for record in records))
    found = differences(records, problems, DIFFERENCES)
    known = (
        "MNIST as it is; CIFAR-10 from re-encoded JPEG copies of its images, decoded, moved and "
    )
    known += "mirrored: all its numbers are of these JPEG copies. "
    known += f"The last {MNIST_VALIDATION:,} and 5,000 training images are there to choose on."
    text = [
        "Random images: this shows that all goes through, and no accuracy." if is_quick else known,
        f"Three hidden layers of {WIDTHS['mnist']} units for MNIST and {WIDTHS['cifar10']} for "
        f"CIFAR-10, {wide_training.DENSITY:.0%} of whose connections are active, and a dense last "
        f"layer. {EPOCHS} epochs, batches of {wide_training.BATCH}, SGD with Nesterov momentum "
        "0.9, a cosine. Each arm chose one of six pairs of learning rate and weight decay by "
        f"{TUNING_EPOCHS} epochs with seed {CHOICE_SEED}; each run below answered the test once. "
        "Where a sparse network is ahead of the dense one, a dense one tried more decay. "
        f"Methods drop and grow {wide_training.FRACTION:.0%} at first, less by a cosine, once an "
        f"epoch for {wide_training.SHARE_OF_EPOCHS:.0%} of the epochs, on "
        f"{wide_training.NUM_GROWTH_IMAGES:,} images drawn anew. GraNet is a masked network that "
        f"falls from {wide_training.START:.0%}. CH2-L3n and CH3-L3p are soft, and start from "
        "correlated inputs, as one does that is left as it is; units in groups of "
        f"{wide_training.GROUP_SIZE} share theirs. Memory is what a network takes once compiled, "
        "at the peak of a step or exchange, beyond one of "
        f"the same kind but {wide_training.GROUP_SIZE} units a layer, in a process of its own; of "
        "sparse layers most of it is XLA's programs, which layers of 64 units need as well. "
        f"{len(records)} runs are there.",
        harness.table(
            [
                "network",
                "seeds",
                "test %",
                "train %",
                "width",
                "weights",
                "s",
                "s of a core",
                "% of it growth",
                "MB",
                "rate, decay",
            ],
            summary(records),
        ),
        "Differences of test accuracy in points, paired by seed, with 95% t-intervals:",
        harness.table(["difference", "seeds", "mean", "95%"], paired_rows(found)),
        "![accuracy against what it cost](wide.png)",
    ]
    wide_figure.draw(records, problems, ARMS, output / "wide.png")
    title = "Wide networks with 1% of their connections, beside dense ones"
    harness.write("wide", title, text, {"runs": records, "differences": found}, COMMAND, output)


def main(argv: list[str] | None = None) -> None:
    """Makes the runs that are not there, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--problems", nargs="+", default=[*PROBLEMS], choices=PROBLEMS)
    parser.add_argument("--scratch", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args(argv)
    is_quick = arguments.quick
    scratch = arguments.scratch or (QUICK if is_quick else harness.RESULTS / "wide")
    output = arguments.output or (QUICK.parent if is_quick else harness.RESULTS)
    if not arguments.table:
        study(["random"] if is_quick else arguments.problems, scratch, is_quick)
    write(scratch, output, is_quick)


if __name__ == "__main__":
    main()
