"""Short forms of the campaigns of `tests/campaign`."""

import pytest

from tests.campaign import damage, files, kills, leaks


@pytest.mark.slow
def test_damaged_files_are_refused_or_equal(tmp_path):
    counts = files.run(40, seed=1, scratch=tmp_path)
    ours = {name: n for name, n in counts.items() if not name.startswith("stock")}
    assert sum(ours.values()) == 40
    assert not [name for name in ours if "wrong" in name]
    assert ours["refused"] > 10
    # It goes on where it stopped: nothing is tried twice.
    assert files.run(40, seed=1, scratch=tmp_path) == counts


def test_damages_do_damage():
    import numpy as np

    data = bytes(range(256)) * 40
    for harm in damage.OF_ANY_FILE:
        damaged = [harm(data, np.random.default_rng(seed)) for seed in range(5)]
        assert any(each != data for each in damaged)
        assert damaged[0] == harm(data, np.random.default_rng(0))


@pytest.mark.slow
def test_killed_trainings_and_exports_end_as_if_nothing_had_been(tmp_path):
    counts = kills.run(9, seed=1, scratch=tmp_path)
    assert counts.pop("survived") >= 9
    assert all(name.startswith("  of ") for name in counts)


@pytest.mark.slow
def test_models_leave_no_more_behind_than_those_of_plain_keras(tmp_path):
    counts = leaks.run(60, seed=1, scratch=tmp_path)
    assert counts["wrong: memory grows with models"] == 0


def test_a_slope_is_that_of_the_later_half_whatever_jumps():
    curve = [(10 * i, 100 * (i < 4) + 0.5 * i + 300 * (i == 9)) for i in range(1, 13)]
    assert leaks.slope(curve) == pytest.approx(1024 * 0.05)
