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
def test_merged_candidates_are_those_of_one_worker_that_has_them_all(slack):
    random = np.random.default_rng(1)
    for _ in range(100):
        workers, count = random.integers(1, 6), int(random.integers(1, 30))
        scores = random.integers(8, size=random.integers(0, 80)).astype(float)
        owners = random.integers(workers, size=len(scores))
        shards = [
            sharding.Candidates.ranked(scores[owners == i], np.flatnonzero(owners == i))
            for i in range(workers)
        ]
        best, sent = sharding.merge_candidates(shards, count, slack)
        # Ties go to the lower index, whoever owns it.
        expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]
        assert best.indices.tolist() == expected
        assert best.scores.tolist() == scores[expected].tolist()
        assert min(count, len(scores)) <= sent <= len(scores)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_no_unit_has_more_connections_than_there_are_inputs(power):
    random = np.random.default_rng(0)
    counts = sharding.zipf_connections(50, 40, 1500, power, random)
    assert counts.sum() == 1500
    assert counts.max() <= 50


def test_a_fair_split_has_no_imbalance_and_greed_mends_an_unfair_one():
    equal = np.full(12, 5)
    for assignment in ("contiguous", "random", "greedy"):
        assert sharding.imbalance(equal, 3, assignment) == 1
    unfair = np.array([6, 6, 6, 1, 1, 1, 1, 1, 1])
    assert sharding.imbalance(unfair, 3, "contiguous") == 18 / 8
    assert sharding.imbalance(unfair, 3, "greedy") == 1
