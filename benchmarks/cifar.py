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
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import keras

from benchmarks import cifar_training, harness
from benchmarks.cifar_data import NUM_VALIDATION, Problem, cifar10, random_images
from benchmarks.cifar_networks import NETWORKS
from benchmarks.cifar_training import ARMS, AT_RANDOM, DENSE, GROWN, NARROWER, PRUNED
from benchmarks.study import CHOICE_SEED, Planned, Study, by_seed, differences, kept, paired_rows

COMMAND = "python -m benchmarks.cifar"
NUM_TRAINING = 45_000
EPOCHS, TUNING_EPOCHS = 15, 5
SEEDS = (0, 1, 2)
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


def runs(networks: Sequence[str], is_quick: bool) -> list[Planned]:
    """All runs, those of choices first."""
    rates, seeds = (LEARNING_RATES[:1], SEEDS[:1]) if is_quick else (LEARNING_RATES, SEEDS)
    epochs, tuning = (5, 5) if is_quick else (EPOCHS, TUNING_EPOCHS)
    found = []
    for name in networks:
        found += [
            Planned(name, arm, CHOICE_SEED, tuning, (("rate", rate),))
            for arm in ARMS
            for rate in rates
        ]
        found += [Planned(name, arm, seed, epochs) for seed in seeds for arm in ARMS]
    return found


def study(networks: Sequence[str], scratch: pathlib.Path, is_quick: bool) -> None:
    """Makes the runs that are not there yet."""
    problem: Problem = random_images() if is_quick else cifar10()
    num_images = len(problem.train[0])
    _check_images(scratch, num_images)

    def train(planned: Planned) -> dict:
        rate = dict(planned.setting or ())["rate"]
        run = cifar_training.Run(
            planned.network, planned.arm, planned.seed, rate, planned.epochs, problem
        )
        record = run.train() | run.record(planned.is_choice) | {"images": num_images}
        keras.backend.clear_session()
        return record

    Study(scratch, runs(networks, is_quick), CORE_HOURS).go_on(train)


def _check_images(scratch: pathlib.Path, num_images: int) -> None:
    """Raises `ValueError` where runs on other images are in a folder."""
    for path in sorted(scratch.glob("*.json")):
        seen = json.loads(path.read_text())["images"]
        if seen != num_images:
            raise ValueError(
                f"All runs in a folder must have trained on the same images, expected "
                f"{num_images:,} of them. Received: {path} with {seen:,}. Name another folder by "
                "`--scratch`."
            )


def summary(records: Sequence[dict]) -> list[list[Any]]:
    """A row for each network and arm that has finished runs: means over its seeds."""
    rows = []
    names = dict.fromkeys(record["network"] for record in records)
    for name, arm in itertools.product(names, ARMS):
        of_arm = list(by_seed(records, name, arm).values())
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


def write(scratch: pathlib.Path, output: pathlib.Path, is_quick: bool) -> None:
    """Writes the results of the runs that are there."""
    records = kept(scratch)
    networks = dict.fromkeys(record["network"] for record in records)
    found = differences(records, list(networks), DIFFERENCES)
    header = ["network, arm", "seeds", "test %", "train %", "FLOPs", "parameters"]
    header += ["s of a core", "s that passed", "rate"]
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
        harness.table(["difference", "seeds", "mean", "95%"], paired_rows(found)),
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
