"""Files that earlier versions wrote load, and compute what they did."""

import keras
import numpy as np
import pytest

from tests.golden.make_files import FOLDER, MODELS, inputs

_FILES = sorted(FOLDER.glob("*/*.keras"))


def test_there_are_files_of_every_kind():
    assert {path.stem for path in _FILES} == set(MODELS)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_of_an_earlier_version_loads_and_computes_the_same(path):
    expected = np.load(path.with_suffix(".npy"))
    model = keras.saving.load_model(path)
    x = inputs(model)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    # The optimizer goes on where it stood.
    assert int(model.optimizer.iterations) == 2
    fresh = MODELS[path.stem]()
    fresh.load_weights(path.with_suffix(".weights.h5"))
    np.testing.assert_allclose(fresh(x), expected, rtol=1e-5, atol=1e-6)
