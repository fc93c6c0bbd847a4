"""The benchmark on MNIST, run on scikit-learn's digits in the shape of MNIST's images."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks import mnist, mnist_data, mnist_training, seed_size

NUM_TRAINING = 1500


def _digits(data_dir=None):
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 8, 8), np.ones((3, 3))) * (255 / 16)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).reshape(len(images), -1).astype("uint8")
    split = slice(NUM_TRAINING), slice(NUM_TRAINING, None)
    return images[split[0]], labels[split[0]], images[split[1]], labels[split[1]]


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.setattr(mnist_data, "load", _digits)
    monkeypatch.setattr(mnist_data, "NUM_VALIDATION", 300)
    return _digits()


def test_distorted_copies_are_the_same_digits_moved_a_little(digits, tmp_path):
    x = digits[0][:50]
    copies = mnist_data.distorted_copies(x, 3, tmp_path / "copies.npy")
    again = mnist_data.distorted_copies(x, 3, tmp_path / "copies.npy")
    np.testing.assert_array_equal(copies, again)
    np.testing.assert_array_equal(copies[:50], x)
    assert copies.shape == (150, 784)
    assert copies.dtype == np.uint8
    flat = copies.reshape(3, 50, 784).astype(float)
    for copy in flat[1:]:
        alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(flat[0], copy, strict=True)]
        assert np.min(alike) > 0.5
        assert np.max(alike) < 1
    assert not np.array_equal(flat[1], flat[2])


def test_without_distortion_an_image_stays_where_it_is(digits, monkeypatch):
    for name in ("_TURN", "_SCALE", "_SHEAR", "_SHIFT", "_BEND"):
        monkeypatch.setattr(mnist_data, name, 0.0)
    x = digits[0][:20]
    moved = mnist_data.distort(x, np.random.default_rng(0)).astype(int)
    assert np.abs(moved - x).max() <= 1


def test_batches_show_copies_with_the_labels_of_their_originals():
    labels = np.arange(6)
    images = np.repeat(np.tile(labels, 4)[:, None], 784, axis=1).astype("uint8")
    batches = mnist_data.training_batches(images, labels, 4, epoch_size=10, seed=0)
    parts = list(batches)
    assert len(parts) == 2
    for x, y in parts:
        np.testing.assert_allclose(x[:, 0] * 255, y, atol=1e-4)


def test_a_run_reaches_its_counts_and_adds_up_its_cost(digits):
    result = mnist_training.train(
        "lenet_300_100",
        "grown",
        False,
        0,
        stages=((15_000, 2, 1), (3_800, 1, 1)),
        growth_epochs=3,
        num_growth_images=500,
        epoch_size=1280,
    )
    stages = result["stages"]
    assert [stage["weights"] for stage in stages] == [79_860, 15_000, 3_800]
    assert [stage["epochs"] for stage in stages] == [3, 6, 8]
    assert {stage["peak"] for stage in stages} == {79_860}
    # Epochs at 10, 20 and 30% on 1,280 of 1,500 images, and two dense gradients on 500 of them.
    assert stages[0]["cost"] == pytest.approx(0.6 * 1280 / 1500 + 2 * 500 / 1500)
    assert stages[0]["flops"] == 2 * 79_860
    assert stages[-1]["scaled_flops"] < stages[-1]["flops"]
    assert stages[-1]["error"] < 30
    assert sum(result["grown_per_pixel"]) > 0
    assert len(result["grown_per_pixel"]) == 784


@pytest.mark.slow
def test_convolutions_end_with_partial_areas(digits):
    result = mnist_training.train(
        "lenet_5",
        "grown",
        True,
        0,
        is_validation=True,
        num_copies=2,
        stages=((6_000, 1, 1),),
        growth_epochs=2,
        num_growth_images=500,
        epoch_size=1024,
        area_rounds=2,
        area_epochs=1,
    )
    grown, pruned, partial = result["stages"]
    assert pruned["weights"] == partial["weights"] == 6_000
    assert partial["flops"] < pruned["flops"] < grown["flops"]
    assert partial["scaled_flops"] < pruned["scaled_flops"]


@pytest.mark.slow
def test_the_study_of_the_seed_grows_until_good_and_keeps_the_last_good_network(
    digits, monkeypatch
):
    monkeypatch.setattr(seed_size, "GROWN_ACCURACY", 0.6)
    monkeypatch.setattr(seed_size, "ACCEPTED_ACCURACY", 0.7)
    found = seed_size.study(0.4)
    assert found["widths"] == (120, 40)
    assert found["connections"] == 784 * 120 + 120 * 40 + 40 * 10
    assert found["growth_epochs"] >= 1
    accepted = [size for size, accuracy, is_accepted in found["stages"] if is_accepted]
    assert all(accuracy >= 0.7 for _, accuracy, is_accepted in found["stages"] if is_accepted)
    assert found["final"] == min([found["grown"], *accepted])
    assert found["final"] < found["grown"]


def test_the_tables_say_what_the_runs_found(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist.harness, "run_alone", None)  # Nothing is left to train.
    folder = tmp_path / "test"
    folder.mkdir()
    for number, (start, is_distorted) in enumerate(mnist.KINDS["lenet_300_100"]):
        for seed in (0, 1):
            error = round(1 + number / 10 + seed / 50, 2)
            stages = [
                {
                    "weights": weights,
                    "biases": 300,
                    "flops": 2 * weights,
                    "scaled_flops": weights,
                    "error": error,
                    "epochs": 9,
                    "peak": 80_000,
                    "cost": 3.0,
                    "seconds": 60,
                }
                for weights in (80_000, 7_800, 3_800)
            ]
            grown = np.zeros((28, 28), int)
            grown[7:21, 7:21] = 44
            grown[0, 0] = 40
            result = {"seed": seed, "stages": stages, "grown_per_pixel": grown.ravel().tolist()}
            data = "distorted" if is_distorted else "plain"
            name = f"lenet_300_100-{start}-{data}-{seed}.json"
            (folder / name).write_text(json.dumps(result))
    options = ["--seeds", "0", "1", "--scratch", str(tmp_path), "--output", str(tmp_path / "out")]
    mnist.main(["lenet_300_100", *options])
    text = (tmp_path / "out" / "lenet_300_100.md").read_text()
    assert "| grown by the gradient | distorted | **1.01** (1.00, 1.02) |" in text
    assert "| the same, dropped and grown in the stages | distorted | **1.11**" in text
    assert "| dense start | plain | **1.41** (1.40, 1.42) |" in text
    # 40 connections on 384 pixels of the border.
    assert "got 44.0 connections by growth, one of the outer four rows and columns 0.10" in text
    assert "422 to 1" in text
    assert "| 7,800 weights | 3,800 weights |" in text
    for figure in ("lenet_300_100_cost.png", "lenet_300_100_grown.png"):
        assert f"({figure})" in text
        assert (tmp_path / "out" / figure).stat().st_size > 1000
