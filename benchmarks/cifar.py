"""Channels on CIFAR-10: a dense net, half of its FLOPs by pruning, and the same by growing.

    TFDS_DATA_DIR=DIR python -m benchmarks.cifar

says first how many runs are left and about how long they take, and stays within eight hours of two
cores in all. CIFAR-10 comes from `tensorflow_datasets`, out of DIR if it is there. Runs are kept
under `benchmarks/results/cifar` as they finish (`--scratch` names another folder), so that an
interrupted study goes on where it stopped, on another machine too; `--table` writes the results of
those that are there. `--quick` trains a little on random images, and keeps its runs under
`output/cifar_quick`, where they can't be taken for those of CIFAR-10.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import keras

from benchmarks import cifar_training, harness
from benchmarks.cifar_data import NUM_VALIDATION, Problem, cifar10, random_images
from benchmarks.cifar_networks import NETWORKS
from benchmarks.cifar_training import ARMS, AT_RANDOM, DENSE, GROWN, NARROWER, PRUNED
from benchmarks.reach import interval

COMMAND = "python -m benchmarks.cifar"
NUM_TRAINING = 45_000
LENGTHS = EPOCHS, TUNING_EPOCHS = 15, 5
SEEDS = (0, 1, 2)
# With this seed, none of the result's, each arm's learning rate is chosen on validation images.
CHOICE_SEED = 100
LEARNING_RATES = (0.05, 0.2, 0.5)
CORE_HOURS = 16.0
QUICK = pathlib.Path("output/cifar_quick")
DIFFERENCES = (
    (PRUNED, DENSE),
    (GROWN, DENSE),
    (NARROWER, DENSE),
    (PRUNED, NARROWER),
    (GROWN, NARROWER),
    (GROWN, AT_RANDOM),
    (PRUNED, GROWN),
)


def runs(networks: Sequence[str], is_quick: bool) -> list[tuple[str, str, int, float | None]]:
    """Network, arm, seed and learning rate of all runs, those of choices first; `None`: chosen."""
    rates, seeds = (LEARNING_RATES[:1], SEEDS[:1]) if is_quick else (LEARNING_RATES, SEEDS)
    found: list[tuple[str, str, int, float | None]] = []
    for name in networks:
        found += [(name, arm, CHOICE_SEED, rate) for arm in ARMS for rate in rates]
        found += [(name, arm, seed, None) for seed in seeds for arm in ARMS]
    return found


def study(networks: Sequence[str], scratch: pathlib.Path, is_quick: bool) -> None:
    """Makes the runs that are not there yet."""
    problem: Problem = random_images() if is_quick else cifar10()
    epochs, tuning = (5, 5) if is_quick else (EPOCHS, TUNING_EPOCHS)
    scratch.mkdir(parents=True, exist_ok=True)
    every = runs(networks, is_quick)
    kept(scratch, len(problem.train[0]))
    for name, arm, seed, rate in every:
        is_choice = seed == CHOICE_SEED
        path = scratch / f"{name}-{arm}-{seed}{f'-{rate}' if is_choice else ''}.json".replace(
            " ", "_"
        )
        if path.exists():
            continue
        _say_what_is_left(every, scratch)
        if rate is None:
            rate = chosen_rate(name, arm, scratch)
        length = tuning if is_choice else epochs
        run = cifar_training.Run(name, arm, seed, rate, length, problem)
        record = run.train() | run.record(is_choice)
        record |= {"rate": rate, "epochs": length, "images": len(problem.train[0])}
        # In one step, so that nothing interrupted is taken for a finished run.
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(record) + "\n")
        os.replace(unfinished, path)
        print({key: record[key] for key in ("network", "arm", "seed", "rate")}, flush=True)
        took = f"in {_core_seconds(record):.0f} s of a core"
        print(f"  {record['validation']:.4f} of validation {took}", flush=True)
        keras.backend.clear_session()


def chosen_rate(name: str, arm: str, scratch: pathlib.Path) -> float:
    """The learning rate of the highest accuracy on validation images."""
    found = [
        record
        for record in kept(scratch)
        if (record["network"], record["arm"], record["seed"]) == (name, arm, CHOICE_SEED)
    ]
    return max(found, key=lambda record: record["validation"])["rate"]


def kept(scratch: pathlib.Path, num_images: int | None = None) -> list[dict]:
    """The runs that are there.

    Args:
        scratch: the folder.
        num_images: how many training images each must have seen; the first records do not say it,
            and are of all of CIFAR-10.

    Raises:
        ValueError: where runs on other images are among them.
    """
    found = {path: json.loads(path.read_text()) for path in sorted(scratch.glob("*.json"))}
    for path, record in found.items():
        seen = record.get("images", NUM_TRAINING)
        if num_images not in (None, seen):
            raise ValueError(
                f"All runs in a folder must have trained on the same images, expected "
                f"{num_images:,} of them. Received: {path} with {seen:,}. Name another folder by "
                "`--scratch`."
            )
    return list(found.values())


def _core_seconds(record: dict) -> float:
    """What a run took of a core; the first records know only what passed meanwhile."""
    return record.get("processor_seconds", record["seconds"])


def _say_what_is_left(every: Sequence[tuple], scratch: pathlib.Path) -> None:
    done = kept(scratch)
    spent = sum(map(_core_seconds, done)) / 3600
    per_epoch = [
        _core_seconds(run) / run.get("epochs", LENGTHS[run["seed"] == CHOICE_SEED]) for run in done
    ]
    epochs = sum(LENGTHS[seed == CHOICE_SEED] for *_, seed, _ in every)
    guess = statistics.mean(per_epoch) if per_epoch else 20.0
    hours = max(0.0, epochs * guess / 3600 - spent)
    print(
        f"{len(every)} runs of {epochs} epochs; {len(done)} are there, {spent:.2f} hours of a core"
    )
    print(f"  the others take about {hours:.1f}, at {guess:.0f} s an epoch", flush=True)
    if spent > CORE_HOURS:
        raise SystemExit(f"The budget of {CORE_HOURS} hours of a core is spent.")


def _by_seed(records: Sequence[dict], name: str, arm: str) -> dict[int, dict]:
    """The runs of an arm that count, by seed."""
    of_arm = [r for r in records if (r["network"], r["arm"]) == (name, arm)]
    return {r["seed"]: r for r in of_arm if r["seed"] != CHOICE_SEED}


def summary(records: Sequence[dict]) -> list[list[Any]]:
    """A row for each network and arm that has finished runs: means over its seeds."""
    rows = []
    names = dict.fromkeys(record["network"] for record in records)
    for name, arm in itertools.product(names, ARMS):
        of_arm = list(_by_seed(records, name, arm).values())
        if not of_arm:
            continue
        seconds = [r["processor_seconds"] for r in of_arm if "processor_seconds" in r]
        rows.append(
            [
                f"{name}, {arm}",
                len(of_arm),
                f"{100 * statistics.mean(r['test'] for r in of_arm):.2f}",
                f"{100 * statistics.mean(r['train'] for r in of_arm):.1f}",
                f"{statistics.mean(r['flops'] for r in of_arm):.3f}",
                f"{statistics.mean(r['parameters'] for r in of_arm):,.0f}",
                f"{statistics.mean(seconds):.0f}" if len(seconds) == len(of_arm) else "",
                f"{statistics.mean(r['seconds'] for r in of_arm):.0f}",
                of_arm[0]["rate"],
            ]
        )
    return rows


def differences(records: Sequence[dict]) -> list[dict]:
    """Differences of test accuracy in points, paired by seed, where two seeds or more have both."""
    found = []
    names = dict.fromkeys(record["network"] for record in records)
    for name, (one, other) in itertools.product(names, DIFFERENCES):
        ones, others = (_by_seed(records, name, arm) for arm in (one, other))
        seeds = sorted(ones.keys() & others.keys())
        if len(seeds) > 1:
            points = [100 * (ones[seed]["test"] - others[seed]["test"]) for seed in seeds]
            mean, low, high = interval(points)
            pair = {"network": name, "one": one, "other": other, "seeds": seeds}
            found.append({**pair, "mean": mean, "interval": (low, high)})
    return found


def write(scratch: pathlib.Path, output: pathlib.Path, is_quick: bool) -> None:
    """Writes the results of the runs that are there."""
    records = kept(scratch)
    found = differences(records)
    header = ["network, arm", "seeds", "test %", "train %", "FLOPs", "parameters"]
    header += ["s of a core", "s that passed", "rate"]
    paired = [
        [
            f"{row['network']}, {row['one']} - {row['other']}",
            len(row["seeds"]),
            f"{row['mean']:+.2f}",
            "{:+.2f} to {:+.2f}".format(*row["interval"]),
        ]
        for row in found
    ]
    known = "CIFAR-10 from re-encoded JPEG copies of its images, decoded: all numbers are of these "
    known += f"JPEG copies. {NUM_TRAINING:,} training images, moved and mirrored; {EPOCHS} epochs."
    text = [
        "Random images: this shows that all goes through, and no accuracy." if is_quick else known,
        f"Batches of {cifar_training.BATCH}, SGD with Nesterov momentum 0.9, weight decay "
        f"{cifar_training.WEIGHT_DECAY}, a cosine. The learning rate is chosen of "
        f"{LEARNING_RATES}, for each arm alike, by {TUNING_EPOCHS} epochs with seed {CHOICE_SEED} "
        f"on {NUM_VALIDATION:,} validation images, where changes fall behind the first two. Each "
        "run below answers the test once. FLOPs are a share of the dense network's; all arms end "
        "with those of the widest even network within a half, or a little less. Pruning (Taylor, "
        f"by groups) and growth (from {cifar_training.NARROW:.0%} of the FLOPs, the best of "
        f"{cifar_training.CANDIDATES} births, or the first) end after "
        f"{cifar_training.MOMENTS[-1]:.0%} of the epochs; what is left trains compact. Seconds "
        f"that passed are a busy machine's, where runs stood still. {len(records)} runs are there.",
        harness.table(header, summary(records)),
        "Differences of test accuracy in points, paired by seed, with 95% t-intervals:",
        harness.table(["difference", "seeds", "mean", "95%"], paired),
    ]
    images = "random images" if is_quick else "CIFAR-10 (JPEG copies)"
    title = f"Channels on {images}: pruned, grown, or narrow from the start"
    harness.write("cifar", title, text, {"runs": records, "differences": found}, COMMAND, output)


def main(argv: list[str] | None = None) -> None:
    """Makes the runs that are not there, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--scratch", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args(argv)
    is_quick = arguments.quick
    scratch = arguments.scratch or (QUICK if is_quick else harness.RESULTS / "cifar")
    output = arguments.output or (QUICK.parent if is_quick else harness.RESULTS)
    if not arguments.table:
        networks = arguments.networks[:1] if is_quick else arguments.networks
        study(networks, scratch, is_quick)
    write(scratch, output, is_quick)


if __name__ == "__main__":
    main()
