"""Networks of Keras's own layers made growable and trained: an LSTM, a ViT, separable convolutions.

    TFDS_DATA_DIR=DIR TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 python -m benchmarks.reach

takes about an hour on one core, and 3 GiB. MNIST comes from `tensorflow_datasets`, out of DIR if
it is there. Runs are kept under `output/reach` as they finish, so that an interrupted benchmark
goes on where it stopped; `--scratch` names another folder. `--quick` trains a little on digits
alone.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_grow
from benchmarks import harness, mnist_data

COMMAND = "TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 python -m benchmarks.reach"
SPARSE, GROWN = 0.2, 0.3
LEARNING_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
# With this seed, none of the result's, settings are chosen by their accuracy on validation images.
CHOICE_SEED = 100
SEEDS = (0, 1, 2)
NUM_GROWTH_IMAGES = 2000
# Changes of connections fall between these shares of all steps, this often.
FIRST, LAST, TIMES = 0.1, 0.6, 8

Split = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network and the images it learns.

    Attributes:
        about: the network in words.
        build: makes it.
        load: its images and classes, for training, validation and test.
        batch_size, epochs: of training.
    """

    about: str
    build: Callable[[], keras.Model]
    load: Callable[[], tuple[Split, Split, Split]]
    batch_size: int
    epochs: int


def _mnist() -> tuple[Split, Split, Split]:
    x, y, x_test, y_test = mnist_data.load()
    x, x_test = (
        images.reshape(-1, mnist_data.SIDE, mnist_data.SIDE).astype("float32") / 255
        for images in (x, x_test)
    )
    split = len(x) - mnist_data.NUM_VALIDATION
    return (x[:split], y[:split]), (x[split:], y[split:]), (x_test, y_test)


def _digits() -> tuple[Split, Split, Split]:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    return (x, y), (x_val, y_val), (x_test, y_test)


def _lstm() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((mnist_data.SIDE, mnist_data.SIDE)),
            keras.layers.LSTM(64),
            keras.layers.Dense(10),
        ]
    )


def _vit(width: int = 32, patch: int = 7, num_blocks: int = 2) -> keras.Model:
    per_side = mnist_data.SIDE // patch
    inputs = keras.Input((mnist_data.SIDE, mnist_data.SIDE))
    x = keras.layers.Reshape((per_side, patch, per_side, patch))(inputs)
    x = keras.layers.Permute((1, 3, 2, 4))(x)
    x = keras.layers.Reshape((per_side**2, patch**2))(x)
    places = keras.ops.cumsum(keras.ops.ones_like(x[..., 0], "int32"), axis=1) - 1
    x = keras.layers.Dense(width)(x) + keras.layers.Embedding(per_side**2, width)(places)
    for _ in range(num_blocks):
        normed = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(4, width // 4)(normed, normed)
        hidden = keras.layers.LayerNormalization()(x)
        hidden = keras.layers.Dense(2 * width, "gelu")(hidden)
        x = x + keras.layers.Dense(width)(hidden)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def _separable() -> keras.Model:
    layers = [keras.Input((8, 8, 1))]
    for maps in (32, 64, 64):
        layers += [
            keras.layers.SeparableConv2D(maps, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    return keras.Sequential(
        [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    )


PROBLEMS = {
    "LSTM": Problem("MNIST's rows as 28 steps through an LSTM(64)", _lstm, _mnist, 64, 1),
    "ViT": Problem(
        "MNIST in patches of 7 x 7 through two blocks of attention (4 heads) and MLP, width 32",
        _vit,
        _mnist,
        64,
        1,
    ),
    "separable": Problem(
        "scikit-learn's digits through three SeparableConv2D (32, 64, 64 maps, batch-normalized)",
        _separable,
        _digits,
        32,
        24,
    ),
}

DENSE = "dense"
BY_GRADIENT, AT_RANDOM = "grown by the gradient", "grown at random"
# How each starts, and what its connections go through.
KINDS = {
    DENSE: 1.0,
    "pruned at once": 1.0,
    "pruned gradually": 1.0,
    BY_GRADIENT: SPARSE,
    AT_RANDOM: SPARSE,
    "20% at random, fixed": SPARSE,
}
CHANGING = ("pruned at once", "pruned gradually", BY_GRADIENT, AT_RANDOM)
DIFFERENCES = (
    ("pruned at once", DENSE),
    ("pruned gradually", DENSE),
    (BY_GRADIENT, DENSE),
    (BY_GRADIENT, AT_RANDOM),
    (BY_GRADIENT, "20% at random, fixed"),
)


def _callbacks(
    kind: str, growth_data: Split, num_steps: int, seed: int, per_layer: bool
) -> list[keras.callbacks.Callback]:
    first, last = round(FIRST * num_steps), round(LAST * num_steps)
    often = keras_grow.Steps(max(1, (last - first) // TIMES), start=first, stop=last + 1)
    duration = (last - first) // often.every * often.every

    def schedule(start: float, end: float, power: float) -> Callable[[int], float]:
        decay = keras.optimizers.schedules.PolynomialDecay(start, duration, end, power)
        return lambda step: decay(step - first)

    if kind == "pruned at once":
        half = num_steps // 2
        when = keras_grow.Steps(half, start=half, stop=half + 1)
        return [keras_grow.PruningCallback(density=SPARSE, when=when, per_layer=per_layer)]
    if kind == "pruned gradually":
        density = schedule(1.0, SPARSE, 3.0)
        return [keras_grow.PruningCallback(density=density, when=often, per_layer=per_layer)]
    if kind in (BY_GRADIENT, AT_RANDOM):
        score = keras_grow.scores.Random(seed) if kind == AT_RANDOM else None
        density = schedule(SPARSE, GROWN, 1.0)
        # Random growth measures nothing.
        data = None if kind == AT_RANDOM else growth_data
        growth = keras_grow.GrowthCallback(
            data, density=density, when=often, score=score, per_layer=per_layer
        )
        return [growth]
    return []


def train(
    problem: Problem,
    kind: str,
    seed: int,
    learning_rate: float,
    per_layer: bool,
    share: float = 1.0,
) -> dict:
    """Trains one network.

    Args:
        problem: what learns what.
        kind: one of `KINDS`.
        seed: of everything random.
        learning_rate: of Adam at first; it falls to 0 along a cosine.
        per_layer: whether connections compete within each layer only.
        share: of the training images that are used.

    Returns:
        Accuracies in percent on validation images, and on the test images unless the seed is the
        one by which settings are chosen; active and all connections; seconds of training.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    (x, y), validation, test = problem.load()
    count = round(share * len(x))
    x, y = x[:count], y[:count]
    num_steps = problem.epochs * -(-count // problem.batch_size)
    model = problem.build()
    if kind != DENSE:
        model = keras_grow.make_growable(model, initial_density=KINDS[kind], seed=seed)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    chosen = np.random.default_rng(seed).permutation(count)[:NUM_GROWTH_IMAGES]
    callbacks = _callbacks(kind, (x[chosen], y[chosen]), num_steps, seed, per_layer)
    started = time.perf_counter()
    model.fit(
        x, y, batch_size=problem.batch_size, epochs=problem.epochs, callbacks=callbacks, verbose=0
    )
    seconds = time.perf_counter() - started

    def accuracy(split: Split) -> float:
        return 100 * model.evaluate(*split, batch_size=1000, verbose=0)[1]

    growable = model if kind != DENSE else keras_grow.make_growable(model, verify=False)
    counted = keras_grow.report(growable)
    return {
        "validation": accuracy(validation),
        "test": None if seed == CHOICE_SEED else accuracy(test),
        "active": counted.num_active,
        "connections": counted.num_connections,
        "weights": model.count_params(),
        "steps": num_steps,
        "seconds": seconds,
    }


def collect(
    names: Sequence[str],
    seeds: Sequence[int],
    rates: Sequence[float],
    share: float,
    kept: pathlib.Path,
) -> list[dict]:
    """Every run: by problem and kind, those that choose the settings, and each seed's."""
    runs = json.loads(kept.read_text()) if kept.exists() else []

    def run(name: str, kind: str, seed: int, rate: float, per_layer: bool) -> dict:
        setting = {
            "problem": name,
            "kind": kind,
            "seed": seed,
            "learning_rate": rate,
            "per_layer": per_layer,
        }
        for earlier in runs:
            if setting.items() <= earlier.items():
                return earlier
        runs.append({**setting, **train(PROBLEMS[name], kind, seed, rate, per_layer, share)})
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(runs, indent=1) + "\n")
        print({key: runs[-1][key] for key in (*setting, "validation", "seconds")}, flush=True)
        return runs[-1]

    found = []
    for name, kind in itertools.product(names, KINDS):
        settings = itertools.product(rates, (False, True) if kind in CHANGING else (False,))
        tried = [run(name, kind, CHOICE_SEED, *setting) for setting in settings]
        best = max(tried, key=lambda run: run["validation"])
        setting = best["learning_rate"], best["per_layer"]
        found += tried + [run(name, kind, seed, *setting) for seed in seeds]
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its 95% t-interval."""
    mean = statistics.mean(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def _tables(name: str, runs: list[dict], seeds: Sequence[int]) -> tuple[list[str], list[dict]]:
    """The part of the result about one problem: its text, and the differences in it."""
    of_kind = {
        kind: [run for run in runs if (run["problem"], run["kind"]) == (name, kind)]
        for kind in KINDS
    }
    final = {
        kind: sorted((run for run in each if run["seed"] in seeds), key=lambda run: run["seed"])
        for kind, each in of_kind.items()
    }
    rows = []
    for kind, each in final.items():
        mean, low, high = interval([run["test"] for run in each])
        first = each[0]
        rows.append(
            [
                kind,
                f"{first['learning_rate']:g}",
                ("per layer" if first["per_layer"] else "together") if kind in CHANGING else "",
                f"{first['active']:,} ({first['active'] / first['connections']:.0%})",
                f"{statistics.mean(run['validation'] for run in each):.2f}",
                f"**{mean:.2f}**",
                f"{low:.2f} to {high:.2f}",
                ", ".join(f"{run['test']:.2f}" for run in each),
                f"{statistics.mean(run['seconds'] for run in each):.0f}",
            ]
        )
    differences = []
    for one, other in DIFFERENCES:
        pairs = zip(final[one], final[other], strict=True)
        mean, low, high = interval([a["test"] - b["test"] for a, b in pairs])
        differences.append(
            {"problem": name, "one": one, "other": other, "mean": mean, "interval": (low, high)}
        )
    first, problem = final[DENSE][0], PROBLEMS[name]
    epochs = "one epoch" if problem.epochs == 1 else f"{problem.epochs} epochs"
    header = ["network", "learning rate", "ranked", "active connections", "validation, %"]
    header += ["test, %", "95%", "each seed", "seconds"]
    text = [
        f"## {name}",
        f"{problem.about[0].upper()}{problem.about[1:]}: {first['weights']:,} weights, "
        f"{first['connections']:,} of them connections that can be dormant; {epochs}, "
        f"{first['steps']} steps of {problem.batch_size} images.",
        harness.table(header, rows),
        harness.table(
            ["difference of test accuracy", "mean, points", "95%"],
            [
                [
                    f"{row['one']} - {row['other']}",
                    f"{row['mean']:+.2f}",
                    f"{row['interval'][0]:+.2f} to {row['interval'][1]:+.2f}",
                ]
                for row in differences
            ],
        ),
    ]
    return text, differences


def _verdict(differences: list[dict]) -> str:
    """Which differences the seeds can tell from 0, in words."""
    clear = [
        f"{row['problem']}, {row['one']} - {row['other']} {row['mean']:+.2f}"
        for row in differences
        if not row["interval"][0] <= 0 <= row["interval"][1]
    ]
    growth = [
        f"{row['mean']:+.2f} ({row['problem']})"
        for row in differences
        if (row["one"], row["other"]) == (BY_GRADIENT, AT_RANDOM)
    ]
    return (
        f"Growth by the gradient less growth at random: {', '.join(growth)} points. Of "
        f"{len(differences)} differences these have intervals without 0, of which one in twenty "
        f"would by chance: {'; '.join(clear) or 'none'}."
    )


def main(argv: list[str] | None = None) -> None:
    """Trains all networks, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a little, of digits only")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="at least 2")
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("output/reach"))
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    seeds, names, rates, share = arguments.seeds, list(PROBLEMS), LEARNING_RATES, 1.0
    kept = arguments.scratch / "runs.json"
    if arguments.quick:
        seeds, names, rates, share = SEEDS[:2], ["separable"], LEARNING_RATES[1:2], 0.1
        kept = arguments.output / "reach_runs.json"
    runs = collect(names, seeds, rates, share, kept)

    text = [
        "Plain Keras models, made growable by `keras_grow.make_growable` and trained as they are. "
        f'"Pruned" loses its smallest weights until {SPARSE:.0%} of the connections are active: at '
        f"once after half of the steps, or along a cubic schedule between {FIRST:.0%} and "
        f'{LAST:.0%} of the steps. "Grown" starts with {SPARSE:.0%} at random and grows to '
        f"{GROWN:.0%} linearly in {TIMES + 1} moments of the same time, by the gradient on "
        f"{NUM_GROWTH_IMAGES:,} training images (all, where there are fewer), or at random; new "
        "weights start at 0. Connections are ranked together, or per layer.",
        "Adam, its learning rate falling to 0 along a cosine from one of "
        f"{', '.join(f'{rate:g}' for rate in rates)}. For each network this and the ranking are "
        f"those of the best validation accuracy with seed {CHOICE_SEED}, which is none of the "
        "seeds below. Validation images are MNIST's last 10,000 training images and 20% of the "
        "digits' training images; no network trains on them. Each network of the seeds "
        f"{', '.join(map(str, seeds))} saw its test images once. Intervals are t-intervals over "
        "these few seeds, paired by seed for differences: they are wide. Seconds are of `fit` "
        "with its tracing, one network after the other on a machine with other work: no "
        "comparison of speed.",
    ]
    final = [
        [run for run in runs if (run["problem"], run["kind"]) == key and run["seed"] in seeds]
        for key in itertools.product(names, KINDS)
    ]
    tables, differences = [], []
    for name in names:
        part, found = _tables(name, runs, seeds)
        tables += part
        differences += found
    data = {
        "seeds": list(seeds),
        "epochs": {name: PROBLEMS[name].epochs for name in names},
        "differences": differences,
        "runs": runs,
    }
    title = "Keras's own layers, pruned and grown"
    edge = sum(len({run["learning_rate"] for run in each} & {max(rates)}) for each in final)
    text += [
        f"{edge} of the {len(final)} networks took the largest learning rate on offer, and might "
        "do better with a larger one. (0.1 was put on offer after a first result, in which 9 of 18 "
        "took 0.03, the largest then: some networks have another learning rate than in that, whose "
        "test accuracies were known.)",
        _verdict(differences),
        *tables,
    ]
    harness.write("reach", title, text, data, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
