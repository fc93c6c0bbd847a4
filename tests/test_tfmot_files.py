"""The lines of docs/coming_from/tfmot.md that read what tfmot saved, on other files than there."""

import shutil

import h5py
import numpy as np
import pytest

from tests.pages import DOCS, GOLDEN, blocks_of

*_, LOADING = blocks_of(DOCS / "coming_from" / "tfmot.md")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that runs the page's last block, on the file "wrapped.h5" of an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(code=LOADING):
        names = {}
        exec("import keras\nimport keras_grow\n" + code, names)
        return names["from_wrapped"]

    return run


@pytest.fixture
def assert_as_saved():
    golden = np.load(GOLDEN / "tfmot.npz")

    def check(model):
        outputs = model.predict(golden["x"], verbose=0)
        np.testing.assert_allclose(outputs, golden["outputs"], rtol=1e-4)

    return check


def test_a_file_of_weights_alone_is_read(load, assert_as_saved):
    with h5py.File(GOLDEN / "tfmot.h5") as whole, h5py.File("wrapped.h5", "w") as file:
        for name, group in whole["model_weights"].items():
            whole.copy(group, file, name)
    assert_as_saved(load())


def test_a_file_of_a_model_in_which_no_layer_is_wrapped_is_read(load, assert_as_saved):
    shutil.copy(GOLDEN / "tfmot_stripped.h5", "wrapped.h5")
    assert_as_saved(load())


def test_what_was_masked_but_not_yet_0_is_0(load):
    with h5py.File(GOLDEN / "tfmot.h5") as file:
        kernel = file["model_weights/prune_low_magnitude_conv/conv/kernel:0"][()]
        mask = file["model_weights/prune_low_magnitude_conv/prune_low_magnitude_conv/mask:0"][()]
    assert np.any(kernel[mask == 0] != 0)  # The file is one saved amid an epoch.
    shutil.copy(GOLDEN / "tfmot.h5", "wrapped.h5")
    loaded = load().get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(loaded, kernel * mask)


@pytest.mark.parametrize(
    ("there", "elsewhere"), [("Dense(3", "Dense(5"), ("Conv1D(8, 3", "Conv1D(8, 2")]
)
def test_an_architecture_of_other_shapes_is_refused(load, there, elsewhere):
    shutil.copy(GOLDEN / "tfmot.h5", "wrapped.h5")
    assert there in LOADING
    with pytest.raises(ValueError, match="shape"):
        load(LOADING.replace(there, elsewhere))
