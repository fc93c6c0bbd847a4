"""The benchmarks' harness measures what it says."""

import itertools
import json
import re
import time

import numpy as np
import pytest

from benchmarks import harness

# Held since the import: no part of what a function takes.
_AT_IMPORT = np.ones(10_000_000)


def take_megabytes(megabytes):
    return len(np.ones(megabytes * 125_000))


def fail(message):
    raise ValueError(message)


def sleep(seconds):
    time.sleep(seconds)


def test_a_variant_that_takes_twice_as_long_has_a_ratio_of_two(clock):
    # A machine that gets slower and slower: what is compared must be what ran side by side.
    pace = itertools.count(100)
    variants = {
        name: lambda seconds=seconds: clock.spend(seconds * next(pace))
        for name, seconds in (("one", 0.01), ("two", 0.02))
    }
    times = harness.compare(variants, "one", rounds=9)
    low, high = times["two"].interval
    assert low <= times["two"].ratio <= high
    assert times["two"].ratio == pytest.approx(2, rel=0.03)
    assert times["one"].ratio == 1
    assert times[harness.CONTROL].ratio == pytest.approx(1, rel=0.03)
    assert times["one"].rounds == 9


def test_rounds_end_with_the_time_but_three_are_made(clock):
    for max_seconds, rounds in ((0, 3), (0.21, 11)):
        only = {"only": lambda: clock.spend(0.01)}  # Twice in each round, as its own control.
        times = harness.compare(only, "only", rounds=50, max_seconds=max_seconds)
        assert times["only"].rounds == rounds


def test_memory_is_that_of_the_call_in_a_process_of_its_own():
    run = harness.run_alone("tests.test_benchmark_harness:take_megabytes", megabytes=200)
    assert run.result == 25_000_000
    assert run.peak_bytes == pytest.approx(200e6, rel=0.1)
    assert run.seconds > 0


def test_a_process_that_fails_or_takes_too_long_says_so():
    with pytest.raises(RuntimeError, match="no such luck"):
        harness.run_alone("tests.test_benchmark_harness:fail", message="no such luck")
    with pytest.raises(RuntimeError, match="took more than 1 seconds"):
        harness.run_alone("tests.test_benchmark_harness:sleep", timeout=1, seconds=60)


def test_results_are_written_with_the_machine_and_the_command(tmp_path):
    table = harness.table(["layer", "ms"], [["small", 1.5]])
    harness.write("trial", "A trial", ["Text.", table], {"ms": 1.5}, "python -m trial", tmp_path)
    text = (tmp_path / "trial.md").read_text()
    assert text.startswith("# A trial\n\nText.\n\n| layer | ms |\n| --- | ---: |\n| small | 1.5 |")
    assert "Made by `python -m trial` on " in text
    assert re.search(r"\d+ cores, \d+ GiB.*TensorFlow \d.*keras_grow \d", text)
    record = json.loads((tmp_path / "trial.json").read_text())
    assert record["data"] == {"ms": 1.5}
    assert record["command"] == "python -m trial"
    assert "/home" not in text
    assert str(tmp_path) not in text


def test_the_exponent_of_a_square_is_two(tmp_path):
    x = np.array([1.0, 3.0, 10.0])
    curves = {"square": (x, 5 * x**2), "line": (x, x)}
    exponents = harness.log_log_figure(curves, tmp_path / "new" / "figure.png", "x", "y", "title")
    assert exponents == pytest.approx({"square": 2, "line": 1})
    assert (tmp_path / "new" / "figure.png").stat().st_size > 10_000
