"""Growth in `fit` on data of worker processes: forked or spawned, it grows as without any."""

import os
import pathlib
import subprocess
import sys

import pytest

_PROGRAM = """
import multiprocessing
import sys

import keras
import numpy as np

import keras_grow


class Data(keras.utils.PyDataset):
    def __init__(self, **options):
        super().__init__(**options)
        random = np.random.default_rng(0)
        self.x = random.normal(size=(60, 12)).astype("float32")
        self.y = random.integers(0, 3, 60)

    def __len__(self):
        return 4

    def __getitem__(self, number):
        part = slice(16 * number, 16 * (number + 1))  # The last batch has 12.
        return self.x[part], self.y[part]


def trained(**options):
    keras.utils.set_random_seed(0)
    growable = keras_grow.GrowableDense(8, "relu", initial_density=0.2, seed=0)
    model = keras.Sequential([keras.Input((12,)), growable, keras_grow.SparseDense(3, capacity=24)])
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    exchange = keras_grow.DropAndGrowCallback(Data(), fraction=0.3)
    growth = keras_grow.GrowthCallback(Data(**options), count=5)
    model.fit(Data(**options), epochs=3, callbacks=[growth, exchange], shuffle=False, verbose=0)
    return model.get_weights()


if __name__ == "__main__":
    alone = trained()
    multiprocessing.set_start_method(sys.argv[1])
    together = trained(workers=2, use_multiprocessing=True)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    print("the same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_workers_change_nothing(start_method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    root = str(pathlib.Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(program), start_method],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": root},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("the same")
