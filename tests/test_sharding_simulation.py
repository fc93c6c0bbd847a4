"""The simulation of sharded layers counts right."""

import numpy as np
import pytest

from benchmarks import sharding


def test_bytes_are_those_of_a_count_on_a_small_layer():
    random = np.random.default_rng(0)
    num_inputs, num_units, connections, batch, workers = 40, 60, 300, 8, 4
    counted = []
    for _ in range(300):
        inputs = random.integers(num_inputs, size=connections)
        units = random.integers(num_units, size=connections)
        fetched = 0
        for worker in range(workers):
            mine = np.unique(inputs[units * workers // num_units == worker])
            fetched += np.count_nonzero(mine * workers // num_inputs != worker)
        # Activities forward, partial sums of gradients back.
        counted.append(2 * fetched * batch * 4)
    expected = sharding.step_bytes(num_inputs, connections, batch, workers)
    assert np.mean(counted) == pytest.approx(expected, rel=0.01)


def test_an_all_reduce_on_a_ring_sends_every_number_twice_but_once_less():
    assert sharding.all_reduce_bytes(100, 1) == 0
    # Two workers: each sends half, then half of the sums.
    assert sharding.all_reduce_bytes(100, 2) == 2 * (50 + 50) * 4


@pytest.mark.parametrize("slack", [0.0, 0.1, 3.0])
def test_merged_candidates_are_the_best_ties_to_the_earlier_worker(slack):
    random = np.random.default_rng(1)
    for _ in range(100):
        workers, count = random.integers(1, 6), int(random.integers(1, 30))
        shards = [
            -np.sort(-random.integers(8, size=random.integers(0, 20))) for _ in range(workers)
        ]
        chosen, sent = sharding.merge_candidates(shards, count, slack)
        everyone = sorted((-s, i) for i, shard in enumerate(shards) for s in shard)[:count]
        expected = [sum(i == owner for _, owner in everyone) for i in range(workers)]
        assert chosen == expected
        assert sum(chosen) <= sent <= sum(map(len, shards))


def test_a_fair_split_has_no_imbalance_and_greed_mends_an_unfair_one():
    equal = np.full(12, 5)
    for assignment in ("contiguous", "random", "greedy"):
        assert sharding.imbalance(equal, 3, assignment) == 1
    unfair = np.array([6, 6, 6, 1, 1, 1, 1, 1, 1])
    assert sharding.imbalance(unfair, 3, "contiguous") == 18 / 8
    assert sharding.imbalance(unfair, 3, "greedy") == 1
