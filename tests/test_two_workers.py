"""Two processes of a MultiWorkerMirroredStrategy choose as one; if one dies, so does the other."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# What takes longer hangs: nothing here takes a hundredth of it on an idle machine.
_PATIENCE_SECONDS = 900
# Sums of two workers' gradients are rounded otherwise than one's: in float64, far below what tells
# connections apart.
_BEFORE = """
import sys

import keras
import numpy as np

keras.config.set_floatx("float64")
random = np.random.default_rng(0)
x = random.normal(size=(96, 20))
y = x[:, :1] * x[:, 1:2]
batch_size, num_epochs = 24, int(sys.argv[1])
"""
_AFTER = """
layers = keras_grow.growable_layers(model)
print("masks", [layer.active_connections()[0].numpy().tolist() for layer in layers])
"""


def _program():
    page = (ROOT / "docs" / "beyond_one_machine.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return _BEFORE + block + _AFTER


def _start(num_epochs, worker=None, ports=()):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    if worker is not None:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"type": "worker", "index": worker}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    return subprocess.Popen(
        [sys.executable, "-c", _program(), str(num_epochs)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _two(num_epochs):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return [_start(num_epochs, worker, ports) for worker in range(2)]


@pytest.mark.slow
def test_two_workers_end_with_the_masks_of_one():
    said = []
    for process in [*_two(3), _start(3)]:
        output, errors = process.communicate(timeout=_PATIENCE_SECONDS)
        assert process.returncode == 0, errors[-3000:]
        # Where the machine is busy, progress bars stand between.
        said.append(re.findall(r"^(?:epoch|masks) .*$", output, re.MULTILINE))
    assert said[0] == said[1] == said[2]
    # 128 and 32 at first.
    assert said[0][:3] == [f"epoch {i} active {160 + 20 * (i + 1)}" for i in range(3)]
    assert said[0][3].startswith("masks [[")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_whose_fellow_dies_ends_in_an_error(victim):
    processes = _two(100_000)
    try:
        for process in processes:
            begun = any(line.startswith("epoch 0") for line in process.stdout)
            assert begun, process.communicate()[1]
        processes[victim].send_signal(signal.SIGKILL)
        left = processes[1 - victim]
        _, errors = left.communicate(timeout=_PATIENCE_SECONDS)
        assert left.returncode != 0
        assert re.search("UnavailableError|Collective ops|coordination service", errors), errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
