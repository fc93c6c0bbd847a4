"""The benchmarks run, and write numbers that agree with each other."""

import json
import pathlib
import subprocess
import sys
from typing import ClassVar

import pytest
from scipy import stats

ROOT = pathlib.Path(__file__).parents[1]


def _run_quickly(*names, output):
    """Runs benchmarks by the one command, measuring little."""
    command = [sys.executable, "-m", "benchmarks", *names, "--quick", "--output", str(output)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_digits_benchmark_writes_paired_differences_with_their_t_intervals(tmp_path):
    options = ["--splits", "2", "--epochs", "16", "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.digits", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "digits.md").read_text() == run.stdout
    result = json.loads((tmp_path / "digits.json").read_text())
    assert result["seeds"] == [0, 1]
    active = {name: network["active"] for name, network in result["splits"][0].items()}
    assert active.pop("dense") == 50_200
    assert {active.pop("course by gradient"), active.pop("course at random")} == {5_020}
    assert set(active.values()) == {3_012}
    pairs = {
        "course by gradient - dense": ("course by gradient", "dense"),
        "course by gradient - course at random": ("course by gradient", "course at random"),
        "growth by gradient - growth at random": ("growth by gradient", "growth at random"),
        "the same, output layer at 2%": (
            "growth by gradient, output layer at 2%",
            "growth at random, output layer at 2%",
        ),
    }
    assert set(result["differences"]) == set(pairs)
    for name, (first, second) in pairs.items():
        one = [split[first]["accuracy"] for split in result["splits"]]
        other = [split[second]["accuracy"] for split in result["splits"]]
        paired = stats.ttest_rel(one, other).confidence_interval(0.95)
        assert result["differences"][name][1:] == pytest.approx(paired)
        assert f"| {name} | {result['differences'][name][0]:+.2f} |" in run.stdout


@pytest.mark.slow
def test_the_benchmark_of_sparse_layers_writes_its_tables_and_figures(tmp_path):
    options = ["--quick", "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.sparse", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    record = json.loads((tmp_path / "sparse.json").read_text())
    kinds = [row["kind"] for row in record["data"]["side_by_side"]]
    assert kinds == ["sparse", "masked", "dense", "A/A control"]
    for row in record["data"]["by_connections"]:
        # Three products of two operations, and never faster than the machine.
        assert 0 < row["bound_seconds"] < row["seconds"]
        assert row["peak_bytes"] > 4 * row["connections"]
    text = (tmp_path / "sparse.md").read_text()
    for figure in tmp_path.glob("*.png"):
        assert f"({figure.name})" in text
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.slow
def test_the_benchmark_of_shared_fan_in_writes_its_table(tmp_path):
    _run_quickly("shared_fan_in", output=tmp_path)
    rows = json.loads((tmp_path / "shared_fan_in.json").read_text())["data"]
    text = (tmp_path / "shared_fan_in.md").read_text()
    kinds = [row["kind"] for row in rows]
    assert kinds[0] == "keras.layers.Dense"
    assert {"SparseDense", "group_size=8", "group_size=64", "A/A control"} < set(kinds)
    for row in rows:
        low, high = row["interval"]
        assert low <= row["speedup"] <= high
        assert row["kind"] in text


@pytest.mark.slow
def test_the_benchmark_of_inference_writes_tables_whose_numbers_fit_together(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference", "--quick", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    data = json.loads((tmp_path / "inference.json").read_text())["data"]
    forms = {form["form"]: form for form in data["measured"]["forms"]}
    assert forms["LiteRT"]["disk_bytes"] < 30_000 < forms["dense LiteRT"]["disk_bytes"]
    # The same thing again takes the same time, give or take what a busy machine does.
    controls = [row for row in data["layers"] if row["form"] == "A/A control"]
    assert all(0.5 < row["speedup"] < 2 for row in controls)
    # For each density and batch size the rule chose one of the three storages.
    assert sum(row["is_the_rules"] for row in data["layers"]) == len(controls) == 9
    sizes = {(row["form"], row["network"], row["dtype"]): row["bytes"] for row in data["files"]}
    for form in ("SavedModel", "LiteRT"):
        assert sizes[form, "masked", "float16"] < sizes[form, "masked", "float32"]
        assert sizes[form, "masked", "float32"] < sizes[form, "dense", "float32"] / 10


@pytest.mark.slow
def test_the_benchmarks_of_training_growth_and_ranking_run_by_one_command(tmp_path):
    _run_quickly("training", "growth", "ranking", output=tmp_path)
    training = json.loads((tmp_path / "training.json").read_text())["data"]
    kinds = {"keras.layers.Dense", "GrowableDense", "WeightNormDense", "weight norm by hand"}
    assert kinds < {row["kind"] for row in training["steps"]}
    assert set(training["peak_bytes"]) == set(training["by_width"]) == kinds
    for row in training["steps"]:
        if "failed" not in row:
            low, high = row["interval"]
            assert 0 < low <= row["ratio"] <= high
    assert "(training_by_width.png)" in (tmp_path / "training.md").read_text()
    growth = json.loads((tmp_path / "growth.json").read_text())["data"]
    for times in growth["epochs"].values():
        whole, selection = times["growth, batches of 1,000"], times["of it the selection"]
        assert 0 < selection["median"] < whole["median"]
    memory = growth["peak_bytes"]
    # Read one after the other: in between, the runtime may take a page.
    assert 0 < memory["before"] <= memory["training"] + 2**20
    ranking = json.loads((tmp_path / "ranking.json").read_text())["data"]
    shares = [row["share"] for row in ranking["choices"]]
    assert shares == [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.1, 0.5, 0.9]
    assert "| 1,000,000, 50% of them 0 | 50.0% |" in (tmp_path / "ranking.md").read_text()
    assert all(seconds > 0 for seconds in ranking["seconds"].values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [None, "U-Net", "detector", "vision transformer", "text transformer"],
    ids=["the first", "U-Net", "detector", "vision", "text"],
)
def test_the_benchmark_of_channels_times_files_of_a_dense_and_a_pruned_network(tmp_path, network):
    if network is None:
        network = "MobileNetV2"
        _run_quickly("channels", output=tmp_path)
    else:
        options = ["--quick", "--networks", network, "--output", str(tmp_path)]
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.channels", *options],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / "channels.json").read_text())["data"]
    assert {row["network"] for row in rows} == {network}
    of_file = {(row["format"], row["what"]): row for row in rows}
    for form in ("SavedModel", "LiteRT", "ONNX"):
        dense, pruned = (of_file[form, what] for what in ("dense", "50% of the FLOPs"))
        assert pruned["bytes"] < 0.85 * dense["bytes"]
        # It is compact, and what is left of it is what was asked for, or a unit less.
        assert 0.4 < pruned["flops"] <= 0.5
        assert dense["flops"] == 1
    assert all(0 < row["interval"][0] <= row["ratio"] <= row["interval"][1] for row in rows)
    text = (tmp_path / "channels.md").read_text()
    share = of_file["LiteRT", "50% of the FLOPs"]["flops"]
    assert f"| {network}, LiteRT | 1 | 1 | 50% of the FLOPs | {share:.3f} |" in text


@pytest.mark.slow
def test_files_of_channels_are_timed_at_larger_batches_and_with_more_threads():
    from benchmarks import channels

    rows = channels.measured("U-Net", True, (0.5,), (3,), (2,), 0.1)
    assert [row["format"] for row in rows] == [name for name in channels.FORMATS for _ in range(3)]
    assert {(row["batch"], row["threads"]) for row in rows} == {(3, 2)}
    assert all(row["rounds"] >= 3 for row in rows)


@pytest.mark.slow
def test_the_benchmarks_of_keras_own_layers_run_by_one_command_and_say_what_they_found(tmp_path):
    _run_quickly("kernels", "reach", output=tmp_path)
    text = (tmp_path / "kernels.md").read_text()
    for row in json.loads((tmp_path / "kernels.json").read_text())["data"]:
        timing = row["timings"]["GrowableKernels"]
        low, high = timing["interval"]
        assert 0 < low <= timing["ratio"] <= high
        assert f"**{timing['ratio']:.3f}** | {low:.3f} to {high:.3f}" in text
        # Of the kernel, of its gradient, and after the update.
        assert row["added_operations"]["Select"] >= 3
    text = (tmp_path / "reach.md").read_text()
    reach = json.loads((tmp_path / "reach.json").read_text())["data"]
    shares = {run["kind"]: run["active"] / run["connections"] for run in reach["runs"]}
    assert shares == pytest.approx(
        {
            "dense": 1.0,
            "pruned at once": 0.2,
            "pruned gradually": 0.2,
            "grown by the gradient": 0.3,
            "grown at random": 0.3,
            "20% at random, fixed": 0.2,
        },
        abs=1e-3,
    )
    accuracies = {}
    for run in reach["runs"]:
        # What chose the settings saw no test image.
        assert (run["test"] is None) == (run["seed"] not in reach["seeds"])
        accuracies.setdefault(run["kind"], {})[run["seed"]] = run["test"]
    for row in reach["differences"]:
        one, other = ([accuracies[row[key]][s] for s in reach["seeds"]] for key in ("one", "other"))
        paired = stats.ttest_rel(one, other).confidence_interval(0.95)
        assert row["interval"] == pytest.approx(paired)
        assert f"| {row['one']} - {row['other']} | {row['mean']:+.2f} |" in text


@pytest.mark.parametrize("names", [["training", "unheard_of"], ["--quick", "sharding"]])
def test_an_unknown_benchmark_is_refused_with_those_there_are(names, capsys):
    from benchmarks import __main__ as all_benchmarks

    with pytest.raises(SystemExit):
        all_benchmarks.main(names)
    assert "expected some of ('training'," in capsys.readouterr().err


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
def test_the_benchmark_of_quantized_networks_counts_every_zero_in_every_form(tmp_path):
    command = [sys.executable, "-m", "benchmarks.quantized", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "quantized.json").read_text())["data"]
    from benchmarks import quantized

    assert tuple(data) == quantized.NAMES
    for rows in data.values():
        sizes = {row["form"]: row["bytes"] for row in rows}
        assert len(sizes) >= 6
        assert sizes["LiteRT, int8"] <= sizes["LiteRT, float16"] < sizes["LiteRT, float32"]
        # No form lost one: all stand where connections are dormant, and rounding makes more.
        (in_float32,) = (row["zeros"] for row in rows if row["form"] == "Keras, float32")
        assert in_float32 > 1000
        assert all(row["zeros"] >= in_float32 for row in rows)


@pytest.mark.slow
def test_the_benchmark_of_runtimes_compares_each_with_its_dense_file(tmp_path):
    pytest.importorskip("openvino", reason="only this benchmark takes it")
    command = [sys.executable, "-m", "benchmarks.runtimes", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "runtimes.json").read_text())["data"]
    from benchmarks import runtimes

    assert {row["runtime"] for row in rows} == set(runtimes.RUNTIMES)
    sizes = {(row["runtime"], row["density"]): row["bytes"] for row in rows}
    for runtime in ("LiteRT", "TensorFlow, SavedModel"):
        assert sizes[runtime, "1%"] < sizes[runtime, "100%"]


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
