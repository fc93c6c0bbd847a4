"""Under a MirroredStrategy with two and three devices every verb chooses as on one.

The last batch does not divide by the replicas: Keras itself then weighs samples otherwise than on
one device, so that the model on one device gets the weights of the other before each change. None
of its shares is empty, for with such TensorFlow's own gradients of convolutions fail.
"""

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
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)

import keras
import keras_grow
from keras_grow.layers.guarded import assign_unguarded
from tests.conformance.conftest import LAYERS

(case,) = (case for case in LAYERS if case.name == sys.argv[1])
penalties = {"kernel_constraint": case.constraint or "max_norm", "kernel_regularizer": "l2"}
random = np.random.default_rng(5)
# Batches of 18, 18 and 11. Keras refuses a first one that does not divide.
x, y = random.normal(size=(47, 8)).astype("float32"), random.normal(size=(47, 3)).astype("float32")
meter = keras_grow.GradientMeter(batch_size=18)


def compiled(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = case.network(**penalties)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        model.optimizer.build(model.trainable_variables)
    return model


def state(model):
    return [*model.variables, *model.optimizer.variables]


def assert_replicas_alike(model, number):
    for variable in state(model):
        replicas = [replica.numpy() for replica in variable.value.values]
        assert len(replicas) == number
        for replica in replicas[1:]:
            np.testing.assert_array_equal(replicas[0], replica)


def outcome(verb, model):
    '''What was changed, or what was said.'''
    try:
        verb(model)
    except ValueError as error:
        return str(error)
    layers = keras_grow.growable_layers(model)
    return [layer.active_connections()[0].numpy().tolist() for layer in layers]


VERBS = {
    "grow": lambda model: keras_grow.grow(model, (x, y), count=10, meter=meter),
    "prune": lambda model: keras_grow.prune(model, count=4),
    "drop_and_grow": lambda model: keras_grow.drop_and_grow(model, (x, y), meter=meter),
    "prune_neurons": lambda model: keras_grow.prune_neurons(model, count=2, data=(x,), meter=meter),
    # Refused for convolutions. Units that share their inputs neither come nor go.
    "grow_neurons": lambda model: keras_grow.grow_neurons(model, (x, y), "hidden", 1, meter=meter),
}
number = int(sys.argv[2])  # TensorFlow takes one number in a process.
devices = [f"CPU:{i}" for i in range(number)]
mirrored = compiled(tf.distribute.MirroredStrategy(devices))
single = compiled(tf.distribute.OneDeviceStrategy("CPU:0"))
for name, verb in VERBS.items():
    before = mirrored.get_weights()
    mirrored.fit(x, y, batch_size=18, epochs=2, shuffle=False, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, mirrored.get_weights()))
    assert_replicas_alike(mirrored, number)
    for variable, other in zip(state(mirrored), state(single), strict=True):
        assign_unguarded(other, variable.numpy())
    found = outcome(verb, mirrored)
    expected = outcome(verb, single)
    assert found == expected, (name, found, expected)
    assert_replicas_alike(mirrored, number)
    for variable, other in zip(state(mirrored), state(single), strict=True):
        np.testing.assert_array_equal(variable.numpy(), other.numpy(), err_msg=name)
    if name == "prune":
        num_active = sum(layer.num_active for layer in keras_grow.growable_layers(mirrored))
    print(name, "refused" if isinstance(found, str) else "done")
print(f"{number} replicas alike, {num_active} active")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_replicas_train_and_choose_as_one_device_does(case, number):
    command = [sys.executable, "-c", _PROGRAM, case.name, str(number)]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # 28 connections at first, less what makes no whole group; ten more, four fewer.
    num_first = sum(layer.num_active for layer in keras_grow.growable_layers(case.network()))
    assert num_first in (27, 28)
    said = done.stdout.strip().splitlines()
    assert said[-1] == f"{number} replicas alike, {num_first + 6} active"
    has_groups = "groups" in case.name
    assert ("prune_neurons done" in said) != has_groups
    if case.layer_class.__name__.endswith("Dense") and not has_groups:
        assert "grow_neurons done" in said
