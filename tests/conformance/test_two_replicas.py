"""Under a MirroredStrategy with two devices, layers train and grow on both replicas alike."""

import pathlib
import subprocess
import sys

import pytest

import keras_grow

# Logical devices must be made before TensorFlow first runs: the program has a process of its own.
_PROGRAM = """
import sys

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import keras_grow
from tests.conformance.conftest import LAYERS

(case,) = (case for case in LAYERS if case.name == sys.argv[1])
penalties = {"kernel_constraint": case.constraint or "max_norm", "kernel_regularizer": "l2"}
random = np.random.default_rng(5)
x, y = random.normal(size=(32, 8)).astype("float32"), random.normal(size=(32, 3)).astype("float32")


def grown_and_trained(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = case.network(**penalties)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    before = model.get_weights()
    for change in range(2):
        model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
        if change == 0:
            keras_grow.grow(model, (x, y), count=10)
            keras_grow.prune(model, count=4)
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights()))
    return model


mirrored = grown_and_trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
single = grown_and_trained(tf.distribute.OneDeviceStrategy("CPU:0"))
for variable, other in zip(mirrored.variables, single.variables):
    replicas = [replica.numpy() for replica in variable.value.values]
    assert len(replicas) == 2
    np.testing.assert_array_equal(*replicas)
    if replicas[0].dtype.kind in "bi":
        np.testing.assert_array_equal(replicas[0], other.numpy())
    else:
        np.testing.assert_allclose(replicas[0], other.numpy(), rtol=1e-4, atol=1e-5)
layers = keras_grow.growable_layers(mirrored)
for layer in layers:
    indices, _ = layer.active_connections()
    assert np.count_nonzero(np.delete(layer.effective_kernel().numpy(), indices)) == 0
print("both replicas alike,", sum(layer.num_active for layer in layers), "active")
"""


@pytest.mark.slow
def test_both_replicas_train_and_grow_as_one_device_does(case):
    command = [sys.executable, "-c", _PROGRAM, case.name]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # 28 connections at first, less what makes no whole group; ten more, four fewer.
    num_first = sum(layer.num_active for layer in keras_grow.growable_layers(case.network()))
    assert num_first in (27, 28)
    assert done.stdout.strip().endswith(f"both replicas alike, {num_first + 6} active")
