"""How much memory an export takes, in a process of its own."""

import subprocess
import sys

import pytest

_PROGRAM = """
import pathlib
import sys

import keras
import numpy as np

import keras_grow

def pages(name):
    status = pathlib.Path("/proc/self/status").read_text()
    (found,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith(name))
    return found * 1024

def network(width):
    layers = [keras_grow.GrowableDense(width, initial_density=0.9, seed=i) for i in range(8)]
    return keras.Sequential([keras.Input((width,)), *layers])

export, folder = getattr(keras_grow, sys.argv[1]), pathlib.Path(sys.argv[2])
export(network(8), folder / "small", tolerance=1e-3)  # What is imported is no copy of weights.
model = network(1536)
x = np.random.default_rng(0).normal(size=(4, 1536)).astype("float32")
model(x)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew from here.
before = pages("VmRSS")
export(model, folder / "large", data=x, tolerance=1e-3)
print((pages("VmHWM") - before) / (4 * model.count_params()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
@pytest.mark.parametrize(
    ("export", "most"), [("export_saved_model", 3), ("export_litert", 10), ("export_onnx", 22)]
)
def test_an_export_holds_few_copies_of_the_weights_at_a_time(export, most, tmp_path):
    # Were weights constants from the start, it would be 20 with LiteRT and 32 with ONNX.
    command = [sys.executable, "-c", _PROGRAM, export, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) < most
