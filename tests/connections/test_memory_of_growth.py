"""How much memory the growth of a kernel of 4096 x 4096 takes, in a process of its own."""

import subprocess
import sys

import pytest

_PROGRAM = """
import pathlib
import resource
import sys

import keras
import numpy as np

import keras_grow

ROOM = {"capacity": 0.3} if sys.argv[1] == "SparseDense" else {}
layer = getattr(keras_grow, sys.argv[1])(4096, initial_density=0.1, seed=0, **ROOM)
model = keras.Sequential([keras.Input((4096,)), layer])
model.compile("sgd", "mse")
random = np.random.default_rng(0)
x, y = (random.normal(size=(64, 4096)).astype("float32") for _ in range(2))
model.train_on_batch(x, y)
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
before = pages * resource.getpagesize()
pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew from here.
record = keras_grow.grow(model, (x, y), density=0.2)
status = pathlib.Path("/proc/self/status").read_text()
(peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
assert record.num_active == round(0.2 * 4096**2), record
print((peak * 1024 - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
@pytest.mark.parametrize("layer", ["GrowableDense", "WeightNormDense", "SparseDense"])
def test_of_16_million_connections_growth_takes_less_than_a_gigabyte_and_a_half(layer):
    command = [sys.executable, "-c", _PROGRAM, layer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) < 1536
