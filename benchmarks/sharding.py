"""A plan simulated: which bytes move when a sparse layer's units are sharded over workers.

    python -m benchmarks.sharding

Nothing of this is implemented in the package; `docs/beyond_one_machine.md` says what it is for.
"""

import argparse
import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks import harness

COMMAND = "python -m benchmarks.sharding"
NUMBER, INDEX = 4, 8  # Bytes of a float32, and of an int64 index.
# Inputs, units, connections, batch, samples of growth data, connections to grow.
LAYERS = [
    (65_536, 65_536, 10_000_000, 128, 1000, 100_000),
    (1_000_000, 1_000_000, 10_000_000, 32, 1000, 100_000),
]
WORKERS = [2, 8, 32, 128]


def inputs_read(num_inputs: int, connections: float) -> float:
    """How many different inputs are read by that many connections from random inputs."""
    return num_inputs * -np.expm1(connections * np.log1p(-1 / num_inputs))


def step_bytes(num_inputs: int, connections: int, batch: int, workers: int) -> float:
    """Bytes of a training step over all workers, units sharded.

    Each worker fetches the activities of the inputs that it reads and does not own, and sends
    back as many partial sums of their gradients. Weights and their gradients stay.
    """
    elsewhere = (workers - 1) / workers
    return 2 * workers * inputs_read(num_inputs, connections / workers) * elsewhere * batch * NUMBER


def all_reduce_bytes(numbers: int, workers: int) -> int:
    """Bytes of a ring all-reduce over all workers, as data parallelism needs for gradients."""
    return 2 * (workers - 1) * numbers * NUMBER


def activity_bytes(num_inputs: int, samples: int, workers: int) -> int:
    """Bytes that bring all activities of the growth data to all workers, for growth.

    Any input may be the best for a unit; the output gradients of its units a worker has already.
    """
    return samples * num_inputs * (workers - 1) * NUMBER


class Candidates(NamedTuple):
    """A worker's candidates, the best first; of equal scores the lower flat index first."""

    scores: np.ndarray
    indices: np.ndarray

    @classmethod
    def ranked(cls, scores: np.ndarray, indices: np.ndarray) -> "Candidates":
        """In their order, as `keras_grow.search.selection` orders them."""
        order = np.lexsort((indices, -scores))
        return cls(scores[order], indices[order])


def merge_candidates(shards: list[Candidates], count: int, slack: float) -> tuple[Candidates, int]:
    """The `count` best candidates of all shards, by asking each for as few as can be.

    Each worker sends its best `count / workers * (1 + slack)`. While the last that a worker sent
    is among the best of all, it may have more, and is asked for as many again.

    Args:
        shards: the candidates of each worker.
        count: how many to choose.
        slack: the share sent beyond an equal part.

    Returns:
        The best, as one worker with all candidates would order them, and how many were sent.
    """
    portion = max(1, int(np.ceil(count / len(shards) * (1 + slack))))
    sent = [min(portion, len(shard.scores)) for shard in shards]
    while True:
        received = Candidates.ranked(
            *(
                np.concatenate([column[:n] for column, n in zip(columns, sent)])
                for columns in zip(*shards)
            )
        )
        best = Candidates(*(column[:count] for column in received))
        # Indices are of the whole matrix, so that no two workers share one.
        short = [
            i
            for i, shard in enumerate(shards)
            if 0 < sent[i] < len(shard.indices) and shard.indices[sent[i] - 1] in best.indices
        ]
        if not short:
            return best, sum(sent)
        for i in short:
            sent[i] = min(sent[i] + portion, len(shards[i].indices))


def zipf_connections(
    num_inputs: int, num_units: int, connections: int, power: float, random: np.random.Generator
) -> np.ndarray:
    """Connections of each unit, its share falling as a power of its rank; at most all inputs."""
    weights = (random.permutation(num_units) + 1.0) ** -power
    counts = np.zeros(num_units, np.int64)
    while (left := connections - counts.sum()) > 0:
        has_room = counts < num_inputs
        shares = np.where(has_room, weights, 0)
        counts += random.multinomial(left, shares / shares.sum())
        counts = np.minimum(counts, num_inputs)
    return counts


def imbalance(connections_of_units: np.ndarray, workers: int, assignment: str, seed=0) -> float:
    """The largest number of connections of a worker by the mean, units assigned in some way."""
    units = len(connections_of_units)
    if assignment == "greedy":
        # The heaviest unit first, each to the worker that has least.
        loads = np.zeros(workers)
        for weight in -np.sort(-connections_of_units):
            loads[loads.argmin()] += weight
    else:
        order = np.arange(units)
        if assignment == "random":
            order = np.random.default_rng(seed).permutation(units)
        parts = np.array_split(connections_of_units[order], workers)
        loads = np.array([part.sum() for part in parts])
    return float(loads.max() / loads.mean())


def simulate_inputs_read(num_inputs, num_units, connections, workers, seed=0) -> float:
    """`inputs_read` of the first worker, counted on random connections."""
    random = np.random.default_rng(seed)
    inputs = random.integers(num_inputs, size=connections)
    units = random.integers(num_units, size=connections)
    return float(len(np.unique(inputs[units < num_units // workers])))


def simulate_candidates(kind: str, count: int, workers: int, seed: int = 0) -> float:
    """Candidates sent, by those wanted, for scores that are spread evenly or not."""
    random = np.random.default_rng(seed)
    scales = np.ones(workers) if kind == "even" else random.gamma(0.5, size=workers)
    shards = [
        Candidates.ranked(scale * random.exponential(size=count), workers * np.arange(count) + i)
        for i, scale in enumerate(scales)
    ]
    best, sent = merge_candidates(shards, count, slack=0.1)
    everyone = Candidates.ranked(*map(np.concatenate, zip(*shards)))
    if not np.array_equal(best.indices, everyone.indices[:count]):
        raise RuntimeError("The merged candidates are not the best")
    return sent / count


def main(argv: list[str] | None = None) -> None:
    """Simulates, and writes the tables to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)

    rows, data = [], []
    for num_inputs, num_units, connections, batch, samples, count in LAYERS:
        for workers in WORKERS:
            counted = simulate_inputs_read(num_inputs, num_units, connections, workers)
            expected = inputs_read(num_inputs, connections / workers)
            even, skewed = (
                simulate_candidates(kind, count, workers) for kind in ("even", "skewed")
            )
            found = {
                "inputs": num_inputs,
                "workers": workers,
                "share_read": expected / num_inputs,
                "share_read_counted": counted / num_inputs,
                "sharded_step": step_bytes(num_inputs, connections, batch, workers),
                "sparse_all_reduce": all_reduce_bytes(connections, workers),
                "dense_all_reduce": all_reduce_bytes(num_inputs * num_units, workers),
                "growth_activities": activity_bytes(num_inputs, samples, workers),
                "candidates_all": workers * count * (NUMBER + INDEX),
                "candidates_even": even * count * (NUMBER + INDEX),
                "candidates_skewed": skewed * count * (NUMBER + INDEX),
            }
            data.append(found)
            numbers = [f"{value / 1e6:,.1f}" for value in list(found.values())[4:]]
            shares = f"{found['share_read']:.1%} ({found['share_read_counted']:.1%})"
            rows.append([f"{num_inputs:,}", workers, shares, *numbers])

    random = np.random.default_rng(0)
    num_inputs, num_units, connections, *_ = LAYERS[0]
    uniform, zipf_half, zipf = (
        zipf_connections(num_inputs, num_units, connections, power, random)
        for power in (0.0, 0.5, 1.0)
    )
    # What growth prefers comes in runs where neighboring units see neighboring pixels.
    in_runs = np.sort(zipf_half)
    loads = {"uniform": uniform, "Zipf 0.5": zipf_half, "Zipf 0.5, in runs": in_runs}
    loads["Zipf 1"] = zipf
    balance = {
        name: {kind: imbalance(load, 32, kind) for kind in ("contiguous", "random", "greedy")}
        for name, load in loads.items()
    }
    text = [
        "Bytes over all workers, in MB. Connections join random inputs with random units; inputs "
        "are sharded as units are; numbers have 4 bytes and indices 8.",
        harness.table(
            [
                "width",
                "workers",
                "inputs read by a worker (counted)",
                "step, units sharded",
                "step, sparse gradients all-reduced",
                "step, dense gradients all-reduced",
                "growth: activities",
                "growth: k candidates of each",
                "growth: by threshold, even scores",
                "growth: by threshold, skewed scores",
            ],
            rows,
        ),
        "## Load of the busiest of 32 workers, by the mean",
        harness.table(
            ["connections per unit", "contiguous units", "random units", "greedy"],
            [[name, *(f"{v:.2f}" for v in of.values())] for name, of in balance.items()],
        ),
    ]
    title = "Units of a sparse layer sharded over workers: a simulation"
    harness.write(
        "sharding", title, text, {"bytes": data, "balance": balance}, COMMAND, arguments.output
    )


if __name__ == "__main__":
    main()
