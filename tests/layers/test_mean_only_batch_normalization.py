import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import MeanOnlyBatchNormalization, WeightNormDense


@pytest.fixture
def x():
    """64 rows of 5 numbers with different means."""
    random = np.random.default_rng(0)
    return (random.normal(size=(64, 5)) + np.arange(5)).astype("float32")


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_in_training_the_mean_over_the_batch_is_subtracted(axis):
    t = np.random.default_rng(0).normal(3.0, size=(16, 4, 6)).astype("float64")
    layer = MeanOnlyBatchNormalization(axis=axis, beta_initializer="ones", dtype="float64")
    others = tuple(a for a in range(3) if a != axis % 3)
    expected = t - t.mean(axis=others, keepdims=True) + 1
    np.testing.assert_allclose(layer(t, training=True), expected, rtol=0, atol=1e-12)


def test_the_running_mean_is_batch_normalizations(x):
    ours = MeanOnlyBatchNormalization(momentum=0.9)
    keras_own = keras.layers.BatchNormalization(momentum=0.9)
    for part in np.split(x, 4):
        ours(part, training=True)
        keras_own(part, training=True)
    np.testing.assert_allclose(ours.moving_mean, keras_own.moving_mean, rtol=1e-6)
    np.testing.assert_allclose(ours(x), x - ours.moving_mean.numpy(), rtol=1e-6, atol=1e-6)


def test_the_gradient_is_centered(x):
    # Salimans & Kingma: "the gradients are centered" is all that mean-only normalization does.
    layer = MeanOnlyBatchNormalization()
    target = tf.constant(np.random.default_rng(1).normal(size=x.shape).astype("float32"))
    with tf.GradientTape() as tape:
        t = tf.constant(x)
        tape.watch(t)
        y = layer(t, training=True)
        loss = tf.reduce_sum(y * target)
    of_t, of_beta = tape.gradient(loss, [t, layer.beta.value])
    centered = target - tf.reduce_mean(target, axis=0)
    np.testing.assert_allclose(of_t, centered, rtol=0, atol=1e-5)
    np.testing.assert_allclose(of_beta, tf.reduce_sum(target, axis=0), rtol=1e-5)


def test_masked_steps_do_not_count():
    t = np.array([[[1.0], [3.0], [100.0]], [[5.0], [100.0], [100.0]]], "float32")
    mask = np.array([[True, True, False], [True, False, False]])
    layer = MeanOnlyBatchNormalization(momentum=0.0)
    y = layer(t, training=True, mask=mask)
    np.testing.assert_allclose(layer.moving_mean, [3.0])
    np.testing.assert_allclose(y[0, :2, 0], [-2.0, 0.0])


def test_frozen_it_runs_at_inference(x):
    layer = MeanOnlyBatchNormalization(trainable=False)
    np.testing.assert_array_equal(layer(x, training=True), x)
    assert not layer.moving_mean.numpy().any()


def test_half_precision_sums_in_float32():
    t = np.full((4096, 2), 3.0, "float16")
    layer = MeanOnlyBatchNormalization(dtype="mixed_float16", momentum=0.0)
    y = layer(t, training=True)
    assert y.dtype == tf.float16
    np.testing.assert_array_equal(layer.moving_mean, [3.0, 3.0])


def test_it_trains_saves_and_loads_behind_weight_normalization(x, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            WeightNormDense(7, use_bias=False),
            MeanOnlyBatchNormalization(momentum=0.8, beta_regularizer="l2"),
            keras.layers.Activation("relu"),
            WeightNormDense(1),
        ]
    )
    model.compile("adam", "mse", jit_compile=True)
    losses = model.fit(x, x[:, :1], epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.layers[1].moving_mean.numpy().any()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[1].get_config() == model.layers[1].get_config()


# Logical devices must be made before TensorFlow first runs: the program has a process of its own.
_TWO_REPLICAS = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras_grow

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for synchronized in (True, False):
    with strategy.scope():
        layer = keras_grow.MeanOnlyBatchNormalization(synchronized=synchronized)
        layer.build((None, 1))
    # One replica sees a 0, the other a 4.
    inputs = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([[4.0 * context.replica_id_in_sync_group]])
    )
    step = tf.function(lambda t: layer(t, training=True))
    outputs = strategy.run(step, args=(inputs,))
    print([float(y[0, 0]) for y in strategy.experimental_local_results(outputs)])
"""


@pytest.mark.slow
def test_synchronised_replicas_share_one_mean():
    command = [sys.executable, "-c", _TWO_REPLICAS]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-2:] == ["[-2.0, 2.0]", "[0.0, 0.0]"]


@pytest.mark.parametrize(
    ("arguments", "shape", "words"),
    [
        ({"axis": 2}, (None, 5), "axis=2, an input of shape"),
        ({"axis": 1}, (None, None, 5), "whose size is known"),
        ({"momentum": 1.5}, (None, 5), "Received: momentum=1.5"),
        ({"momentum": -0.5}, (None, 5), "Received: momentum=-0.5"),
        ({"axis": [1]}, (None, 5), "Received: axis="),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, shape, words):
    with pytest.raises(ValueError, match=words):
        MeanOnlyBatchNormalization(**arguments).build(shape)


def test_by_default_the_last_axis_is_that_of_units_and_only_beta_is_trained():
    layer = MeanOnlyBatchNormalization()
    layer.build((None, 3, 5))
    assert layer.built
    assert layer.axis == -1
    assert [variable.name for variable in layer.trainable_variables] == ["beta"]
    assert [variable.name for variable in layer.non_trainable_variables] == ["moving_mean"]
    assert layer.moving_mean.shape == (5,)
    assert layer.input_spec.axes == {-1: 5}
    assert (layer.momentum, layer.center, layer.synchronized) == (0.99, True, False)
    without = MeanOnlyBatchNormalization(center=False)
    without.build((None, 5))
    assert without.trainable_variables == []


@pytest.mark.parametrize("rank", [3, 4])
def test_masked_steps_count_for_nothing_and_the_mask_goes_on(rank):
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 4, 3, 2)[:rank]).astype("float32")
    mask = random.random((6, 4)) < 0.5
    layer = MeanOnlyBatchNormalization(momentum=0.0)
    outputs = layer(x, training=True, mask=mask)
    expected = x[mask].reshape(-1, x.shape[-1]).mean(axis=0)
    np.testing.assert_allclose(layer.moving_mean, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs, x - expected, rtol=1e-4, atol=1e-5)
    inputs = keras.Input((4, 3))
    assert layer.compute_mask(inputs, mask) is mask


@pytest.mark.filterwarnings("error:Layer .* does not support masking")
def test_it_takes_a_mask_without_a_warning():
    layers = [keras.layers.Masking(), MeanOnlyBatchNormalization(), keras.layers.LSTM(2)]
    model = keras.Sequential([keras.Input((4, 3)), *layers])
    x = np.ones((2, 4, 3), "float32")
    x[:, 2:] = 0
    # Masked steps, whatever the mean moves them to, are passed over.
    layers[1].moving_mean.assign([1, 2, 3])
    np.testing.assert_allclose(model(x), model(x[:, :2]), rtol=1e-6)
