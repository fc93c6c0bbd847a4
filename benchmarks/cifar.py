"""Channels on CIFAR-10: a dense net, half of its FLOPs by pruning, and the same by growing.

    TFDS_DATA_DIR=DIR python -m benchmarks.cifar

says first how many runs are left and about how long they take, and stays within eight hours of two
cores in all. CIFAR-10 comes from `tensorflow_datasets`, out of DIR if it is there. Runs are kept
under `benchmarks/results/cifar` as they finish (`--scratch` names another folder), so that an
interrupted study goes on where it stopped, on another machine too; `--table` writes the results of
those that are there. `--quick` trains a little on random images.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

import keras_grow
from benchmarks import harness

COMMAND = "python -m benchmarks.cifar"
SIDE, CLASSES, BATCH = 32, 10, 128
NUM_VALIDATION = 5000
EPOCHS, TUNING_EPOCHS = 15, 3
SEEDS = (0, 1, 2)
# With this seed, none of the result's, each arm's learning rate is chosen on validation images.
CHOICE_SEED = 100
LEARNING_RATES = (0.05, 0.2)
WEIGHT_DECAY = 1e-3
SHARE = 0.5  # Of the dense network's FLOPs.
NARROW = 0.2  # Of them, where growth starts.
# Changes fall behind these shares of the epochs.
MOMENTS = (0.1, 0.2, 0.3, 0.4)
NUM_GROWTH_IMAGES = 1000
CANDIDATES = 4
HOURS = 8.0

Split = tuple[np.ndarray, np.ndarray]
DENSE, PRUNED, GROWN, AT_RANDOM, NARROWER = (
    "dense",
    "pruned to half",
    "grown to half",
    "grown at random",
    "half as wide from the start",
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Images and classes, for training, validation and test."""

    train: Split
    validation: Split
    test: Split


def cifar10() -> Problem:
    """CIFAR-10, as `tensorflow_datasets` prepares or finds it; uint8 images."""
    import tensorflow_datasets as tfds

    folder = os.environ.get("TFDS_DATA_DIR")
    found = [
        tfds.as_numpy(
            tfds.load("cifar10", split=split, data_dir=folder, batch_size=-1, as_supervised=True)
        )
        for split in ("train", "test")
    ]
    (x, y), test = found
    return Problem(
        (x[:-NUM_VALIDATION], y[:-NUM_VALIDATION]), (x[-NUM_VALIDATION:], y[-NUM_VALIDATION:]), test
    )


def random_images(count: int = 256) -> Problem:
    """What a quick run takes: it shows that all goes through, and no accuracy."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (count, SIDE, SIDE, 3), "uint8")
    split = x, random.integers(0, CLASSES, count)
    return Problem(split, split, split)


def residual(widths: Sequence[int], inner: Sequence[int]) -> keras.Model:
    """ResNet-8: three stages of one block, of these widths and widths inside the blocks."""
    x = inputs = keras.Input((SIDE, SIDE, 3))
    x = _convolution(x, widths[0], 3, name="stem")
    for number, (width, narrow) in enumerate(zip(widths, inner, strict=True)):
        stride = 1 if number == 0 else 2
        y = _convolution(x, narrow, 3, stride, name=f"block{number}_first")
        y = _convolution(y, width, 3, activation=None, name=f"block{number}_second")
        if number:
            x = _convolution(x, width, 1, stride, activation=None, name=f"block{number}_short")
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def mobile(widths: Sequence[int], inner: Sequence[int]) -> keras.Model:
    """Three inverted residual blocks as MobileNetV2's, the last two of stride 2."""
    x = inputs = keras.Input((SIDE, SIDE, 3))
    x = _convolution(x, widths[0], 3, name="stem")
    for number, (width, wide) in enumerate(zip(widths, inner, strict=True)):
        stride = 1 if number == 0 else 2
        y = _convolution(x, wide, 1, name=f"block{number}_wide")
        y = keras.layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(y)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(y))
        y = _convolution(y, width, 1, activation=None, name=f"block{number}_narrow")
        x = keras.layers.Add()([x, y]) if number == 0 else y
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def _convolution(
    x: Any,
    filters: int,
    window: int,
    stride: int = 1,
    activation: str | None = "relu",
    name: str = "",
) -> Any:
    x = keras.layers.Conv2D(
        filters, window, stride, "same", use_bias=False, name=name, kernel_initializer="he_normal"
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return x if activation is None else keras.layers.Activation(activation)(x)


NETWORKS: dict[str, tuple[Callable[..., keras.Model], tuple[int, ...], tuple[int, ...]]] = {
    "residual": (residual, (8, 16, 32), (8, 16, 32)),
    "mobile": (mobile, (8, 16, 32), (32, 48, 96)),
}


def flops(model: keras.Model) -> int:
    """2 for each weight at each position, of one image."""
    total = 0
    for layer in model.layers:
        kernel = getattr(getattr(layer, "layer", layer), "kernel", None)
        if kernel is not None:
            positions = math.prod(layer.output.shape[1:-1]) if len(kernel.shape) > 2 else 1
            total += 2 * math.prod(kernel.shape) * positions
    return total


def narrower(name: str, share: float) -> keras.Model:
    """The network, all of it alike narrower: as wide as a share of the FLOPs allows."""
    make, widths, inner = NETWORKS[name]
    whole = flops(make(widths, inner))
    for scale in np.arange(1.0, 0.0, -0.01):
        scaled = [[max(2, int(scale * n)) for n in each] for each in (widths, inner)]
        model = make(*scaled)
        if flops(model) <= share * whole:
            return model
    raise ValueError(f"No width is within a share of the FLOPs. Received: {share}")


class Run:
    """One training of a network, epoch by epoch.

    Args:
        name: of the network.
        arm: how it gets its channels.
        seed: of weights, data and choices.
        learning_rate: at the start; it falls to 0 by a cosine.
        epochs: of training.
        problem: the images; those of validation are for choices.
    """

    def __init__(
        self, name: str, arm: str, seed: int, learning_rate: float, epochs: int, problem: Problem
    ):
        keras.utils.set_random_seed(seed)
        self._random = np.random.default_rng(seed)
        self._name, self._arm, self._seed = name, arm, seed
        self._epochs, self._problem = epochs, problem
        make, widths, inner = NETWORKS[name]
        dense = make(widths, inner)
        self._whole = flops(dense)
        steps = epochs * math.ceil(len(problem.train[0]) / BATCH)
        self._optimizer = keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps),
            momentum=0.9,
            nesterov=True,
            weight_decay=WEIGHT_DECAY,
        )
        self._moments = [max(1, round(share * epochs)) for share in MOMENTS]
        if arm == NARROWER:
            self.model = narrower(name, SHARE)
        elif arm in (GROWN, AT_RANDOM):
            self.model = keras_grow.make_growable(narrower(name, NARROW), verify=False)
        else:
            self.model = dense
            if arm == PRUNED:
                self.model = keras_grow.make_growable(dense, verify=False)
        self._compile(self.model, self._optimizer)

    def train(self) -> float:
        """Trains it; returns the seconds that it took, changes and all."""
        started = time.perf_counter()
        for epoch in range(self._epochs):
            for number, moment in enumerate(self._moments):
                if moment == epoch:
                    self._change(number)
            x, y = self._problem.train
            order = self._random.permutation(len(x))
            data = tf.data.Dataset.from_tensor_slices((augmented(x, self._random)[order], y[order]))
            data = data.batch(BATCH).map(lambda a, b: (scaled(a), b)).prefetch(2)
            self.model.fit(data, epochs=epoch + 1, initial_epoch=epoch, verbose=0, shuffle=False)
        return time.perf_counter() - started

    def accuracy(self, split: Split) -> float:
        """The share of images that it knows."""
        logits = self.model.predict(scaled(split[0]), batch_size=500, verbose=0)
        return float(np.mean(np.argmax(logits, -1) == split[1]))

    def _compile(self, model: keras.Model, optimizer: keras.Optimizer) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        self.model = model

    def _growth_data(self) -> Split:
        at = self._random.choice(len(self._problem.train[0]), NUM_GROWTH_IMAGES)
        return scaled(self._problem.train[0][at]), self._problem.train[1][at]

    def _change(self, number: int) -> None:
        share = (number + 1) / len(MOMENTS)
        is_last = number == len(MOMENTS) - 1
        if self._arm == PRUNED:
            with contextlib.suppress(keras_grow.errors.NothingToChange):  # Went too far before.
                keras_grow.prune_neurons(
                    self.model,
                    budget=keras_grow.budgets.FLOPs(1 - share * (1 - SHARE)),
                    score=keras_grow.neuron_scores.Relative(keras_grow.neuron_scores.Taylor()),
                    data=self._growth_data(),
                )
        elif self._arm in (GROWN, AT_RANDOM):
            self._grow(NARROW + share * (SHARE - NARROW))
        if is_last and self._arm in (PRUNED, GROWN, AT_RANDOM):
            compaction = keras_grow.compact(self.model, verify=False)
            optimizer = keras_grow.convert_optimizer(self.model, compaction)
            self._compile(compaction.model, optimizer)
            plain = keras_grow.make_plain(self.model, verify=False)
            self._compile(plain, keras_grow.convert_optimizer(self.model, plain))

    def _grow(self, share: float) -> None:
        """Widens all groups alike to a share of the dense network's FLOPs; maps are born there."""
        wanted, born = narrower(self._name, share), {}
        for group in keras_grow.groups(self.model):
            layer = group.made_by[0].layer.name
            if group.why_fixed is None and wanted.get_layer(layer).filters > group.count:
                born[layer] = wanted.get_layer(layer).filters - group.count
        model = self.model
        for layer, count in born.items():
            units = model.get_layer(layer).filters + count
            model = keras_grow.widen(model, layer, units, verify=False)
        self._compile(model, keras_grow.convert_optimizer(self.model, model))
        data, meter = self._growth_data(), keras_grow.GradientMeter()
        for layer, count in born.items():
            keras_grow.grow_feature_maps(
                self.model,
                data,
                layer,
                count,
                candidates=CANDIDATES if self._arm == GROWN else 1,
                seed=self._seed,
                meter=meter,
            )

    def record(self, seconds: float) -> dict:
        """What is kept of it."""
        return {
            "network": self._name,
            "arm": self._arm,
            "seed": self._seed,
            "test": self.accuracy(self._problem.test),
            "train": self.accuracy(tuple(a[:5000] for a in self._problem.train)),
            "flops": flops(self.model) / self._whole,
            "parameters": self.model.count_params(),
            "seconds": seconds,
        }


def scaled(images: Any) -> Any:
    """Numbers from -1 to 1."""
    if isinstance(images, np.ndarray):
        return images.astype("float32") / 127.5 - 1
    return tf.cast(images, tf.float32) / 127.5 - 1


def augmented(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each image moved by up to 4 pixels each way, every other one mirrored."""
    count, pad = len(images), 4
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    at = random.integers(0, 2 * pad + 1, (2, count, 1)) + np.arange(SIDE)
    across = at[1]
    mirrored = random.random(count) < 0.5
    across[mirrored] = across[mirrored, ::-1]
    return padded[np.arange(count)[:, None, None], at[0][:, :, None], across[:, None, :]]


ARMS = (DENSE, PRUNED, GROWN, NARROWER, AT_RANDOM)


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
    problem = random_images() if is_quick else cifar10()
    epochs, tuning = (5, 5) if is_quick else (EPOCHS, TUNING_EPOCHS)
    scratch.mkdir(parents=True, exist_ok=True)
    for name, arm, seed, rate in runs(networks, is_quick):
        is_choice = seed == CHOICE_SEED
        path = scratch / f"{name}-{arm}-{seed}{f'-{rate}' if is_choice else ''}.json".replace(
            " ", "_"
        )
        if path.exists():
            continue
        _say_what_is_left(runs(networks, is_quick), scratch)
        if rate is None:
            rate = chosen_rate(name, arm, scratch)
        run = Run(name, arm, seed, rate, tuning if is_choice else epochs, problem)
        seconds = run.train()
        record = run.record(seconds)
        record |= {"rate": rate, "validation": run.accuracy(problem.validation)}
        if is_choice:
            del record["test"]  # It takes no part in choices.
        path.write_text(json.dumps(record))
        print({key: record[key] for key in ("network", "arm", "seed", "rate")}, flush=True)
        print(f"  {record['validation']:.4f} of validation in {seconds:.0f} s", flush=True)
        keras.backend.clear_session()


def chosen_rate(name: str, arm: str, scratch: pathlib.Path) -> float:
    """The learning rate of the highest accuracy on validation images."""
    found = [
        record
        for record in kept(scratch)
        if (record["network"], record["arm"], record["seed"]) == (name, arm, CHOICE_SEED)
    ]
    return max(found, key=lambda record: record["validation"])["rate"]


def kept(scratch: pathlib.Path) -> list[dict]:
    """The runs that are there."""
    return [json.loads(path.read_text()) for path in sorted(scratch.glob("*.json"))]


def _say_what_is_left(every: Sequence[tuple], scratch: pathlib.Path) -> None:
    done = kept(scratch)
    spent = sum(record["seconds"] for record in done) / 3600
    per_epoch = [
        record["seconds"] / (TUNING_EPOCHS if record["seed"] == CHOICE_SEED else EPOCHS)
        for record in done
    ]
    epochs = [TUNING_EPOCHS if seed == CHOICE_SEED else EPOCHS for *_, seed, _ in every]
    guess = statistics.mean(per_epoch) if per_epoch else 20.0
    hours = max(0.0, sum(epochs) * guess / 3600 - spent)
    print(
        f"{len(every)} runs of {sum(epochs)} epochs; {len(done)} are there, {spent:.2f} hours; "
        f"the others take about {hours:.1f}, at {guess:.0f} s an epoch",
        flush=True,
    )
    if spent > HOURS:
        raise SystemExit(f"The budget of {HOURS} hours is spent.")


def summary(records: Sequence[dict]) -> list[list[Any]]:
    """A row for each network and arm: accuracies with their differences to the dense network's."""
    rows = []
    final = [record for record in records if record["seed"] != CHOICE_SEED]
    names = dict.fromkeys(record["network"] for record in final)
    for name, arm in itertools.product(names, ARMS):
        of_arm = {r["seed"]: r for r in final if (r["network"], r["arm"]) == (name, arm)}
        if not of_arm:
            continue
        row: list[Any] = [f"{name}, {arm}", len(of_arm)]
        row.append(f"{100 * statistics.mean(r['test'] for r in of_arm.values()):.2f}")
        for other in (DENSE, NARROWER):
            others = {r["seed"]: r for r in final if (r["network"], r["arm"]) == (name, other)}
            common = sorted(of_arm.keys() & others.keys())
            paired = [100 * (of_arm[s]["test"] - others[s]["test"]) for s in common]
            row.append("" if other == arm else _interval(paired))
        row.append(f"{100 * statistics.mean(r['train'] for r in of_arm.values()):.1f}")
        row.append(f"{statistics.mean(r['flops'] for r in of_arm.values()):.3f}")
        row.append(f"{statistics.mean(r['parameters'] for r in of_arm.values()):,.0f}")
        row.append(f"{statistics.mean(r['seconds'] for r in of_arm.values()):.0f}")
        row.append(next(iter(of_arm.values()))["rate"])
        rows.append(row)
    return rows


def _interval(differences: Sequence[float]) -> str:
    """The mean and its 95% interval."""
    if len(differences) < 2:
        return f"{differences[0]:+.2f}" if differences else ""
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return f"{statistics.mean(differences):+.2f} ± {half:.2f}"


def write(scratch: pathlib.Path, output: pathlib.Path) -> None:
    """Writes the results of the runs that are there."""
    records = kept(scratch)
    header = [
        "network, arm",
        "seeds",
        "test %",
        "to dense",
        "to half as wide",
        "train %",
        "FLOPs",
        "parameters",
        "s",
        "rate",
    ]
    spent = sum(record["seconds"] for record in records) / 3600
    text = [
        "CIFAR-10 from re-encoded JPEG copies of its images, decoded: all numbers are of these "
        f"JPEG copies. 45,000 training images, moved and mirrored; {EPOCHS} epochs of batches of "
        f"{BATCH}, SGD with Nesterov momentum 0.9, weight decay {WEIGHT_DECAY}, a cosine. The "
        f"learning rate is chosen of {LEARNING_RATES} for each arm alike, by {TUNING_EPOCHS} "
        f"epochs with seed {CHOICE_SEED} on 5,000 validation images; each run answers the test "
        "once. FLOPs are a share of the dense network's. Pruning (first-order Taylor, by groups) "
        f"and growth (from {NARROW:.0%} of the FLOPs, the best of {CANDIDATES} births, or the "
        f"first) end after {MOMENTS[-1]:.0%} of the epochs; what is left trains compact. "
        f"Differences are paired by seed, with 95% intervals. {len(records)} runs took "
        f"{spent:.1f} hours.",
        harness.table(header, summary(records)),
    ]
    title = "Channels on CIFAR-10 (JPEG copies): pruned, grown, or narrow from the start"
    harness.write("cifar", title, text, records, COMMAND, output)


def main(argv: list[str] | None = None) -> None:
    """Makes the runs that are not there, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--scratch", type=pathlib.Path, default=harness.RESULTS / "cifar")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    if not arguments.table:
        networks = arguments.networks[:1] if arguments.quick else arguments.networks
        study(networks, arguments.scratch, arguments.quick)
    write(arguments.scratch, arguments.output)


if __name__ == "__main__":
    main()
