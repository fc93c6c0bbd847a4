"""Short forms of the campaigns of `tests/campaign`."""

import pytest
from scipy import stats

from tests.campaign import damage, files, kills, leaks, mutants, victim


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


def test_a_file_that_keras_was_writing_when_killed_is_refused(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(SystemExit) as ended:
        victim.export("keras, masked", tmp_path)
    assert ended.value.code == victim.REFUSED


@pytest.mark.slow
def test_faults_in_a_module_are_noticed_by_its_tests(tmp_path, monkeypatch):
    for module in ("cosmic_ray", "pytest_cov"):
        pytest.importorskip(module, reason="the campaign's own extra")
    monkeypatch.setattr(mutants, "ROOMS", {"search": ["search"]})
    monkeypatch.setattr(mutants, "MEASURED", ["tests/search"])
    counts = mutants.run(3, seed=0, scratch=tmp_path)
    assert counts["killed"] >= 1
    assert counts["killed"] + counts.get("survived", 0) + counts.get("equivalent", 0) == 3
    # It goes on where it stopped, and nothing is left in the tree.
    assert mutants.run(3, seed=0, scratch=tmp_path) == counts
    # Tests that have changed judge survivors anew, and those that were killed not.
    monkeypatch.setattr(mutants, "_changed_tests", lambda kept: ["tests/search/test_progress.py"])
    again = mutants.run(3, seed=0, scratch=tmp_path)
    assert again["killed"] >= counts["killed"]
    for kept in (tmp_path / "kept" / "keras_grow").rglob("*.py"):
        there = tmp_path / "tree0" / kept.relative_to(tmp_path / "kept")
        assert there.read_bytes() == kept.read_bytes()


def test_annotations_and_what_computes_the_same_are_no_faults():
    source = 'def half(x: int | None = 1) -> "int":\n    return x // 2\n'
    assert mutants._computes(source) == mutants._computes(source.replace("int | None", "int & 1"))
    assert mutants._computes(source) != mutants._computes(source.replace("// 2", "// 3"))
    assert mutants._computes("def half(:") is None
    low, rate, high = mutants._rate(85, 15)
    interval = stats.binomtest(85, 100).proportion_ci(method="wilson")
    assert (low, rate, high) == pytest.approx((interval.low, 0.85, interval.high), rel=1e-3)


@pytest.mark.slow
def test_models_leave_no_more_behind_than_those_of_plain_keras(tmp_path):
    counts = leaks.run(60, seed=1, scratch=tmp_path, arms=leaks.ARMS[:2])
    assert counts["wrong: memory grows with models"] == 0


def test_a_slope_is_that_of_the_later_half_whatever_jumps():
    curve = [(10 * i, 100 * (i < 4) + 0.5 * i + 300 * (i == 9)) for i in range(1, 13)]
    assert leaks.slope(curve) == pytest.approx(1024 * 0.05)
