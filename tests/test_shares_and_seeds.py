"""The suite's own options: shares of the slow tests, and other seeds for all of them."""

import dataclasses
import types

import keras
import numpy as np
import pytest

from tests import conftest
from tests.seeds import move_seeds
from tests.shares import Share


@dataclasses.dataclass
class _Item:
    nodeid: str
    is_slow: bool

    def get_closest_marker(self, name):
        return name if self.is_slow and name == "slow" else None


def _run(items, share):
    """What is left of the tests, and what is reported as left out."""
    items, left_out = list(items), []
    hook = types.SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    config = types.SimpleNamespace(getoption={"share": share}.get, hook=hook)
    conftest.pytest_collection_modifyitems(config, items)
    return items, left_out


def test_every_slow_test_is_in_one_share_and_every_quick_one_in_all():
    items = [
        _Item(f"tests/connections/test_growing.py::test_it[{i}]", i % 3 == 0) for i in range(1800)
    ]
    slow, runs = [i for i in items if i.is_slow], []
    for number in range(1, 7):
        kept, left_out = _run(items, f"{number}/6")
        assert sorted(i.nodeid for i in kept + left_out) == sorted(i.nodeid for i in items)
        assert [i for i in kept if not i.is_slow] == [i for i in items if not i.is_slow]
        runs.append({i.nodeid for i in kept if i.is_slow})
    assert sum(len(run) for run in runs) == len(set.union(*runs)) == len(slow)
    assert min(len(run) for run in runs) > len(slow) / 6 * 0.6
    assert _run(items, None) == (items, [])


def test_a_share_is_the_same_in_every_process():
    # The CRC-32 of this name is 4,208,492,297: 5 more than a multiple of 6.
    name = "tests/a.py::test_b"
    assert [n for n in range(1, 7) if Share(f"{n}/6").holds(name)] == [6]


@pytest.mark.parametrize("text", ["0/6", "7/6", "2", "2/0", "a/b", "-1/6"])
def test_what_is_no_share_is_refused_in_words(text):
    with pytest.raises(pytest.UsageError, match=f"--share: a share is i/n .* Received: '{text}'"):
        _run([], text)


def _of_a_library():
    code = compile("number = np.random.default_rng(0).random()", "a_library.py", "exec")
    names = {"np": np}
    exec(code, names)
    return names["number"]


def test_another_seed_moves_what_tests_draw_and_nothing_else(monkeypatch):
    def drawn():
        keras.utils.set_random_seed(5)
        weights = keras.initializers.GlorotUniform()((2, 3))
        return [
            *(np.random.default_rng(seed).random(3) for seed in (0, 1)),
            weights,
            np.random.rand(),
        ]

    def run(by):
        move_seeds(by)
        return drawn(), [np.random.default_rng([3, 4]).random(), _of_a_library()]

    for owner, name in ((np.random, "default_rng"), (keras.utils, "set_random_seed")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # To be put back at the end.
    before, of_others = run(by=0)
    for by in (1, 2):
        now, now_of_others = run(by)
        assert all(np.all(a != b) for a, b in zip(before, now, strict=True))
        # Seeds that a test counts up do not meet those of another run.
        assert np.all(now[0] != before[1])
        assert now_of_others == of_others
