"""What the code of the pages under docs/ starts with, and what must be so when it has run.

A page that is not here starts with nothing, and need only run.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import keras_grow

DOCS = pathlib.Path(__file__).parent.parent / "docs"
GOLDEN = pathlib.Path(__file__).parent / "golden"
Names = dict[str, Any]


def blocks_of(page: pathlib.Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def _nothing() -> Names:
    return {}


def _classifier() -> Names:
    """Vectors of four classes that lie far apart, and a network of dense layers."""
    random = np.random.default_rng(0)
    y = np.arange(3200) % 4
    x = (random.normal(size=(4, 30))[y] + 0.3 * random.normal(size=(3200, 30))).astype("float32")
    hidden = [keras.layers.Dense(60, "relu"), keras.layers.Dense(40, "relu")]
    model = keras.Sequential([keras.Input((30,)), *hidden, keras.layers.Dense(4, "softmax")])
    return {"model": model, "x": x, "y": y}


def _images() -> Names:
    """Images of four classes, and a convolutional network in which two layers are added."""
    x, y = np.random.default_rng(0).random((96, 12, 12, 3), "float32"), np.arange(96) % 4
    inputs = keras.Input((12, 12, 3))
    stem = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    inner = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="inner")(stem)
    inner = keras.layers.BatchNormalization(name="norm")(inner)
    outer = keras.layers.Conv2D(8, 3, padding="same", name="outer")(inner)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([stem, outer]))
    classes = keras.layers.Dense(4, "softmax", name="classes")(pooled)
    return {"model": keras.Model(inputs, classes), "x": x, "y": y}


def _classifier_and_files() -> Names:
    """A network of dense layers, and files that tfmot wrote."""
    shutil.copy(GOLDEN / "tfmot.h5", "wrapped.h5")
    shutil.copy(GOLDEN / "tfmot_stripped.h5", "stripped.h5")
    return _classifier()


def _trained_classifier() -> Names:
    """A trained network of dense layers, and data to judge it by."""
    names = _classifier()
    model, x, y = names["model"], names["x"], names["y"]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:800], y[:800], epochs=2, verbose=0)
    parts = {"x_train": x[:800], "y_train": y[:800], "x_val": x[800:1000], "y_val": y[800:1000]}
    return {"model": model, **parts}


def _tfmot(names: Names) -> None:
    plain = keras.models.load_model("pruned.keras")
    for layer in plain.layers:
        assert np.count_nonzero(layer.kernel) == round(0.1 * layer.kernel.numpy().size)
    golden = np.load(GOLDEN / "tfmot.npz")
    for model in (names["growable"], names["from_wrapped"]):
        np.testing.assert_allclose(model.predict(golden["x"], verbose=0), golden["outputs"], 1e-4)
        assert keras_grow.report(model).density == 0.25


def _torch_prune(names: Names) -> None:
    report = keras_grow.report(names["growable"])
    assert report.num_active == round(0.05 * report.num_connections) - 10 - 3


def _half_of_the_flops(names: Names) -> None:
    assert _flops(names["small"]) <= 0.5 * _flops(names["model"])
    assert keras.models.load_model("small.keras").count_params() == names["small"].count_params()


def _two_fifths_of_the_flops(names: Names) -> None:
    assert _flops(names["small"]) <= 0.4 * _flops(names["model"])


def _flops(model: keras.Model) -> int:
    """2 for each weight of `_images` at each position."""
    positions = {"stem": 144, "inner": 144, "outer": 144, "classes": 1}
    kernels = {name: model.get_layer(name).kernel for name in positions}
    return sum(2 * positions[name] * int(np.prod(kernels[name].shape)) for name in positions)


def _two_of_four(names: Names) -> None:
    for layer in names["plain"].layers:
        kernel = layer.kernel.numpy()
        for start in range(0, len(kernel), 4):
            assert np.count_nonzero(kernel[start : start + 4], axis=0).max() <= 2
        assert np.count_nonzero(kernel) > 0.4 * kernel.size


def _tenth_of_all(names: Names) -> None:
    report = keras_grow.report(names["growable"])
    assert report.num_active == pytest.approx(0.1 * report.num_connections, abs=3)


def _tenth_throughout(names: Names) -> None:
    report = keras_grow.report(names["sparse"])
    assert report.num_active == pytest.approx(0.1 * report.num_connections, abs=3)


def _three_channels_fewer(names: Names) -> None:
    layers = {layer.name: layer for layer in names["compaction"].layers}
    assert [*layers["inner"].units] == [0, 3, 4, 6, 7, 8, 9, 10, 11]
    assert len(layers["stem"].units) == len(layers["outer"].units) == 8


def _densities_as_chosen(names: Names) -> None:
    best = names["best"].get("density")
    assert 0.05 <= best <= 0.5
    assert keras_grow.report(names["best_model"]).density == pytest.approx(best, abs=1e-3)
    sizes = [trial.values[1] for trial in names["study"].trials]
    size = keras_grow.report(names["best_model"]).num_connections
    densities = [trial.params["density"] for trial in names["study"].trials]
    assert sizes == pytest.approx([size * density for density in densities], abs=2)
    assert min(sizes) in [trial.values[1] for trial in names["study"].best_trials]
    chosen = names["search"].best_params_["model_kwargs"]["density"]
    found = keras_grow.report(names["search"].best_estimator_.model_).density
    assert found == pytest.approx(chosen, abs=1e-3)


def _nothing_more(names: Names) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Page:
    """How the code of a page is run.

    Attributes:
        start: makes the names that its first block finds. It runs in the folder that the code runs
            in, and may leave files there.
        check: is given all names after the last block, and asserts.
    """

    start: Callable[[], Names] = _nothing
    check: Callable[[Names], None] = _nothing_more


PAGES: dict[str, Page] = {
    "coming_from/tfmot.md": Page(_classifier_and_files, _tfmot),
    "coming_from/torch_prune.md": Page(_classifier, _torch_prune),
    "coming_from/torch_pruning.md": Page(_images, _half_of_the_flops),
    "coming_from/torchao.md": Page(_classifier, _two_of_four),
    "coming_from/nncf.md": Page(_images, _two_fifths_of_the_flops),
    "coming_from/jaxpruner.md": Page(_classifier, _tenth_of_all),
    "coming_from/rigl.md": Page(_classifier, _tenth_throughout),
    "coming_from/keras_surgeon.md": Page(_images, _three_channels_fewer),
    "tuning.md": Page(_trained_classifier, _densities_as_chosen),
    "what_it_declines.md": Page(_images),
}
"""By the path of the page below docs/."""
