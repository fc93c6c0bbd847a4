"""The benchmarks run, and write numbers that agree with each other."""

import json
import pathlib
import subprocess
import sys

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
