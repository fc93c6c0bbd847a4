"""The tutorials run, and leave behind what they promise."""

import pathlib
import re
import runpy
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import tensorflow as tf
from nbclient import NotebookClient
from sklearn.datasets import load_digits

import keras_grow

TUTORIALS = pathlib.Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = [path.name for path in sorted(TUTORIALS.glob("*.ipynb"))]


def run_script(*options, name="lenet_300_100.py"):
    return subprocess.run(
        [sys.executable, str(TUTORIALS / name), *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A run of eight epochs on the digits: its output folder and what it printed."""
    output = tmp_path_factory.mktemp("lenet")
    run = run_script("--epochs", "8", "--batch-size", "128", "--output", str(output))
    assert run.returncode == 0, run.stderr
    return output, run.stdout


def test_lenet_prints_accuracies_errors_and_peaks_that_fit_together(short_run):
    _, printed = short_run
    rows = re.findall(
        r"^(gradient growth|random growth|dense) +([\d.]+)% +([\d.]+)% +([\d,]+) +([\d,]+)",
        printed,
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == ["gradient growth", "random growth", "dense"]
    for _, accuracy, error, _, _ in rows:
        assert float(accuracy) + float(error) == pytest.approx(100, abs=0.011)
        # Ten classes: chance is 10%.
        assert float(accuracy) > 30
    counts = [tuple(int(n.replace(",", "")) for n in row[3:]) for row in rows]
    assert counts == [(5_020, 15_060), (5_020, 15_060), (50_200, 50_200)]


def test_lenet_saves_a_model_and_a_saved_model_of_the_same_network(short_run):
    output, printed = short_run
    model = tf.keras.models.load_model(output / "model.keras")
    assert keras_grow.report(model).num_active == 5_020
    x = (load_digits().data / 16).astype("float32")
    loaded = tf.saved_model.load(output / "saved_model")
    served = loaded.serve(x)["classes"]
    np.testing.assert_allclose(served, model(x, training=False), rtol=0, atol=1e-6)
    sizes = dict(re.findall(r"^(\w+): ([\d,]+) kB", printed, re.MULTILINE))
    assert int(sizes["saved_model"]) < int(sizes["dense_saved_model"])


def test_lenet_draws_the_connections_of_each_pixel(short_run):
    output, _ = short_run
    image = tf.io.decode_png((output / "connections.png").read_bytes())
    assert image.shape[1] > image.shape[0] > 400
    assert len(np.unique(image[..., 0])) > 50


@pytest.fixture
def ends(monkeypatch, capsys):
    """Runs a script that does not get to training: its status, and what it wrote.

    In this process, since another would spend seconds on importing TensorFlow.
    """

    def run(*options, name="lenet_300_100.py"):
        monkeypatch.syspath_prepend(str(TUTORIALS))
        monkeypatch.setattr(sys, "argv", [name, *options])
        with pytest.raises(SystemExit) as ending:
            runpy.run_path(str(TUTORIALS / name), run_name="__main__")
        return ending.value.code, *capsys.readouterr()

    return run


def test_lenet_explains_its_options(ends):
    status, printed, _ = ends("--help")
    assert status == 0
    for option in ("--dataset", "--data-dir", "--epochs", "--density", "--seed", "--output"):
        assert option in printed


def test_lenet_refuses_a_bad_option_with_status_2_and_a_reason(ends):
    status, _, errors = ends("--density", "0.5")
    assert status == 2
    assert "--density must lie between 0 and 0.3" in errors


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_executed_without_errors_or_paths_of_a_machine(name):
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) >= 2
    text = "".join(
        str(o.get("text", "")) + str(o.get("data", {}).get("text/plain")) for o in outputs
    )
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|opt|work|Users)/", text)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_holds_nothing_of_the_run_that_made_it_and_opens_in_colab(name):
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert [cell.id for cell in notebook.cells] == [
        f"cell-{i:02}" for i in range(len(notebook.cells))
    ]
    assert not any(cell.metadata for cell in notebook.cells)
    assert f"/keras-grow/keras_grow/blob/main/tutorials/{name})" in notebook.cells[0].source
    assert (TUTORIALS / name).stat().st_size < 300_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_readme_says_what_the_notebook_teaches(name):
    readme = (TUTORIALS.parent / "README.md").read_text(encoding="utf-8")
    assert f"(tutorials/{name})" in readme
    assert f"keras_grow/blob/main/tutorials/{name})" in readme


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_on_the_digits_and_holds_its_own_claims(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_GROW_DATASET", "digits")
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()


# The other two are the first with other connections.
@pytest.mark.parametrize(
    "networks",
    [
        ["gradient growth", "dense, same time"],
        pytest.param(
            ["gradient growth", "random growth", "static random", "dense, same time"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=len,
)
def test_wide_and_sparse_compares_networks_of_as_many_weights(networks):
    # As small as can be: the dense network trains for as long as the first takes, tracing included.
    options = ["--width", "32", "--epochs", "3", "--batch-size", "128", "--growth-images", "300"]
    options += ["--networks", *networks]
    run = run_script(*options, name="wide_and_sparse.py")
    assert run.returncode == 0, run.stderr
    rows = re.findall(
        r"^(gradient growth|random growth|static random|dense, same time) +([\d.]+)% +([\d.]+)% +"
        r"([\d,]+) +(\d+) +(\d+) +([\d.]+) +([\d.]+)$",
        run.stdout,
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == networks
    for name, accuracy, error, weights, epochs, _, growing, peak in rows:
        assert float(accuracy) + float(error) == pytest.approx(100, abs=0.011)
        # Two layers of 8 connections per unit, and 32 x 10 weights to the classes.
        assert int(weights.replace(",", "")) == pytest.approx(2 * 8 * 32 + 320, rel=0.02)
        # Growing may take less than is shown; that it has grown, the weights say.
        assert float(growing) == 0 or "growth" in name
        assert int(epochs) == 3 or name.startswith("dense")
        assert 0.1 < float(peak) < 4


def test_wide_and_sparse_refuses_options_out_of_range(ends):
    status, _, errors = ends("--epochs", "2", name="wide_and_sparse.py")
    assert status == 2
    assert "--epochs must be at least 3" in errors
