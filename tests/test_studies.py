"""The studies of accuracy go on where they stopped, and answer the test once."""

import json
import pathlib
import subprocess
import sys
from typing import ClassVar

import pytest
from scipy import stats

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_the_study_of_channels_goes_on_where_it_stopped(tmp_path):
    command = [sys.executable, "-m", "benchmarks.cifar", "--quick", "--networks", "mobile"]
    command += ["--scratch", str(tmp_path / "runs"), "--output", str(tmp_path)]

    def run():
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    first = run()
    assert first.returncode == 0, first.stderr
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    arms = {json.loads(path.read_text())["arm"] for path in kept}
    assert len(arms) == 5
    (gone, *_) = [path for path in kept if "-dense-0" in path.name]
    gone.unlink()
    second = run()
    assert second.returncode == 0, second.stderr
    assert "10 runs" in second.stdout
    assert "9 are there" in second.stdout
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    assert now.keys() == kept.keys()
    assert {path for path in kept if now[path] != kept[path]} == {gone}
    rows = json.loads((tmp_path / "cifar.json").read_text())["data"]["runs"]
    narrow = [row["flops"] for row in rows if row["arm"] == "pruned to half"]
    assert all(0.3 < share <= 0.5 for share in narrow)
    assert all("test" not in row for row in rows if row["seed"] == 100)
    # What saw random images does not pass for CIFAR-10.
    assert "JPEG copies" not in (tmp_path / "cifar.md").read_text()
    assert {row["images"] for row in rows} == {256}


class _Untrained:
    """Takes the place of a training of the study: says which images it was asked about."""

    asked: ClassVar[list] = []

    def __init__(self, name, arm, seed, learning_rate, epochs, problem):
        self._setting = {"network": name, "arm": arm, "seed": seed}
        self._rate = learning_rate

    def train(self):
        return {"seconds": 1e9, "processor_seconds": 1.0}

    def record(self, is_choice):
        self.asked.append((*self._setting.values(), self._rate, is_choice))
        shares = {"train": 0.5, "validation": self._rate, "flops": 0.5, "parameters": 10}
        test = {} if is_choice else {"test": len(self.asked) ** 2 % 37 / 100}
        return {**self._setting, **shares, **test}


@pytest.fixture
def cifar(monkeypatch):
    from benchmarks import cifar

    monkeypatch.setattr(_Untrained, "asked", [])
    monkeypatch.setattr(cifar.cifar_training, "Run", _Untrained)
    monkeypatch.setattr(cifar, "cifar10", lambda: cifar.random_images(64))
    # Nothing is made that would have to go; looking for it takes seconds after other tests.
    monkeypatch.setattr(cifar.keras.backend, "clear_session", lambda: None)
    return cifar


def test_the_study_of_channels_answers_the_test_once_a_run_and_never_where_it_chooses(
    cifar, tmp_path
):
    # A machine that stood still for years does not use up the hours of its cores.
    cifar.study(["residual"], tmp_path, False)
    cifar.study(["residual"], tmp_path, False)
    final = [asked for asked in _Untrained.asked if not asked[-1]]
    assert sorted((arm, seed) for _, arm, seed, *_ in final) == sorted(
        (arm, seed) for arm in cifar.ARMS for seed in cifar.SEEDS
    )
    # The higher rate answers more validation images here.
    assert {rate for *_, rate, _ in final} == {max(cifar.LEARNING_RATES)}
    choices = [asked for asked in _Untrained.asked if asked[-1]]
    assert len(choices) == len(cifar.ARMS) * len(cifar.LEARNING_RATES)
    assert {seed for _, _, seed, *_ in choices} == {cifar.CHOICE_SEED}
    assert cifar.CHOICE_SEED not in cifar.SEEDS


def test_the_study_of_channels_pairs_by_seed_with_t_intervals(cifar, tmp_path):
    cifar.study(["residual"], tmp_path / "runs", False)
    (gone,) = (tmp_path / "runs").glob("*grown_to_half-1.json")
    gone.unlink()
    cifar.write(tmp_path / "runs", tmp_path, False)
    data = json.loads((tmp_path / "cifar.json").read_text())["data"]
    test = {(run["arm"], run["seed"]): run.get("test") for run in data["runs"]}
    rows = {(row["one"], row["other"]): row for row in data["differences"]}
    assert rows.keys() == set(cifar.DIFFERENCES)
    for (one, other), row in rows.items():
        assert row["seeds"] == ([0, 2] if cifar.GROWN in (one, other) else [0, 1, 2])
        ones, others = ([100 * test[arm, seed] for seed in row["seeds"]] for arm in (one, other))
        paired = stats.ttest_rel(ones, others).confidence_interval(0.95)
        assert row["interval"] == pytest.approx(paired)
    assert "JPEG copies" in (tmp_path / "cifar.md").read_text()


def test_the_study_of_channels_refuses_runs_on_other_images_and_passes_over_unfinished_ones(
    cifar, tmp_path
):
    (tmp_path / "residual-dense-0.unfinished").write_text('{"network": "resi')
    cifar.study(["residual"], tmp_path, False)
    assert len(cifar.kept(tmp_path)) == len(cifar.runs(["residual"], False))
    with pytest.raises(ValueError, match="same images, expected 256 of them"):
        cifar.study(["residual"], tmp_path, True)


@pytest.mark.parametrize("network", ["residual", "mobile"])
def test_networks_on_cifar_are_narrower_alike_and_within_their_share(network):
    from benchmarks import cifar_networks

    make, widths, inner = cifar_networks.NETWORKS[network]
    whole = make(widths, inner)
    half, fifth = (cifar_networks.narrower(network, share) for share in (0.5, 0.2))
    flops = [cifar_networks.flops(model) for model in (whole, half, fifth)]
    assert 0.4 * flops[0] < flops[1] <= 0.5 * flops[0]
    assert 0.1 * flops[0] < flops[2] <= 0.2 * flops[0]
    # By hand: 2 for each of the 3 x 3 x 3 x 8 weights of the first convolution, at 32 x 32 places.
    first = cifar_networks.flops(type(whole)(whole.input, whole.get_layer("stem").output))
    assert first == 2 * 27 * 8 * 1024


@pytest.mark.slow
def test_the_study_of_wide_networks_trains_all_arms_and_answers_the_test_once(tmp_path):
    command = [sys.executable, "-m", "benchmarks.wide", "--quick"]
    command += ["--scratch", str(tmp_path / "runs"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "wide.json").read_text())["data"]["runs"]
    from benchmarks import wide

    assert {row["arm"] for row in rows} == set(wide.ARMS)
    assert all(("test" in row) == (row["seed"] != 100) for row in rows)
    weights = {row["arm"]: row["weights"] for row in rows}
    sparse = {weights[arm] for arm in (wide.STATIC, wide.SET, wide.RIGL, wide.CH2, wide.SNFS)}
    assert len(sparse) == 1
    # In whole groups there are a few less.
    assert 0 <= min(sparse) - weights[wide.SHARED] <= 3 * 32
    assert abs(weights[wide.GRANET] - min(sparse)) <= 3
    assert weights[wide.AS_HEAVY] <= min(sparse) < weights[wide.DENSE]
    assert "JPEG copies" not in (tmp_path / "wide.md").read_text()
    assert (tmp_path / "wide.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_chooses_settings_by_validation_and_stays_within_its_budget(tmp_path):
    from benchmarks.study import CHOICE_SEED, Planned, Study, kept

    settings = [(("rate", rate),) for rate in (0.1, 0.2, 0.3)]
    planned = [Planned("net", "arm", CHOICE_SEED, 2, setting) for setting in settings]
    planned += [Planned("net", "arm", seed, 5) for seed in (0, 1)]
    trained = []

    def train(run):
        trained.append(run)
        rate = dict(run.setting)["rate"]
        return {"validation": -abs(rate - 0.2), "seconds": 3600.0, "processor_seconds": 1800.0}

    Study(tmp_path, planned, core_hours=9.0).go_on(train)
    assert [dict(run.setting)["rate"] for run in trained] == [0.1, 0.2, 0.3, 0.2, 0.2]
    assert [record["epochs"] for record in kept(tmp_path)].count(5) == 2
    # Nothing is left; nothing is trained twice.
    Study(tmp_path, planned, core_hours=9.0).go_on(train)
    assert len(trained) == 5
    more = [*planned, Planned("net", "arm", 2, 5)]
    with pytest.raises(SystemExit, match="budget of 2.0 hours"):
        Study(tmp_path, more, core_hours=2.0).go_on(train)
    assert len(trained) == 5


def test_wide_networks_of_equal_weights_are_the_widest_that_are_no_heavier():
    from benchmarks import wide_training as wide

    narrow = wide.width_as_heavy(784, 1568)
    most = wide.num_weights(784, 1568, 0.01)
    assert wide.num_weights(784, narrow, 1.0) <= most < wide.num_weights(784, narrow + 1, 1.0)
    model = wide.network(784, 1568, wide.STATIC, seed=0)
    assert wide._weights(model) == pytest.approx(most, abs=2)
