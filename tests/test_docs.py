"""The pages under docs/ run as they stand, and the API reference can be made."""

import pathlib
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import keras_grow

ROOT = pathlib.Path(__file__).parent.parent


def test_the_code_for_those_who_come_from_elsewhere_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    random = np.random.default_rng(0)
    x, y = random.random((3200, 30), "float32"), np.arange(3200) % 4
    hidden = [keras.layers.Dense(60, "relu"), keras.layers.Dense(40, "relu")]
    model = keras.Sequential([keras.Input((30,)), *hidden, keras.layers.Dense(4, "softmax")])
    names = {"model": model, "x": x, "y": y}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    size = sum(layer.num_connections for layer in keras_grow.growable_layers(names["growable"]))
    plain = keras.models.load_model("pruned.keras")
    kept = sum(np.count_nonzero(layer.kernel) for layer in plain.layers)
    assert kept == pytest.approx(0.1 * size, abs=2)
    assert keras_grow.report(names["growable"]).num_active == round(0.05 * size) - 10
    # Dropped and grown, at a constant count.
    assert keras_grow.report(names["sparse"]).density == pytest.approx(0.1, abs=0.001)


@pytest.mark.slow
def test_the_pictures_of_growth_are_made(tmp_path):
    options = ["--dataset", "digits", "--output", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_pictures.py"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "growth.gif").read_bytes().startswith(b"GIF89a")
    assert (tmp_path / "grown.png").read_bytes().startswith(b"\x89PNG")


def test_every_name_on_the_page_exists():
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    ours = "\n".join(line.split("|")[2] for line in page.splitlines() if line.count("|") == 3)
    for name in re.findall(r"`(\w+)\(", ours):
        assert hasattr(keras_grow, name) or name == "export_litert", name
    for module, name in re.findall(
        r"`(scores|densities|start_values|seeds|sparse_training)\.(\w+)", ours
    ):
        assert hasattr(getattr(keras_grow, module), name), name


@pytest.mark.slow
def test_the_api_reference_holds_every_public_name(tmp_path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_api.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "keras_grow.html").read_text(encoding="utf-8")
    for name in keras_grow.__all__:
        public = getattr(keras_grow, name)
        if isinstance(public, types.ModuleType):  # On a page of its own.
            assert (tmp_path / f"{public.__name__.replace('.', '/')}.html").exists(), name
        elif not name.startswith("_"):
            assert f'id="{name}"' in page, name
