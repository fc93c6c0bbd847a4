"""What was grown is saved and comes back, by every way that Keras and TensorFlow have."""

import copy
import pickle
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow

# What h5py, zipfile and Keras raise for a file that ends too early.
_DAMAGED = (OSError, zipfile.BadZipFile, ValueError)


@pytest.fixture
def grown(case, regression):
    """A trained network whose masks are no longer what `initial_density` and `seed` say."""
    model = case.network(kernel_regularizer=keras.regularizers.L2(0.01))
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    model.fit(*regression, batch_size=16, verbose=0)
    keras_grow.grow(model, regression, count=9)
    keras_grow.prune(model, count=4)
    model.fit(*regression, batch_size=16, verbose=0)
    return model


@pytest.fixture
def assert_continues_alike(regression, state, assert_same_bits):
    """Function of two models that must be equal now, and after the next training step."""

    def check(model, other):
        for layer, twin in zip(
            keras_grow.growable_layers(model), keras_grow.growable_layers(other), strict=True
        ):
            for mine, theirs in zip(layer.active_connections(), twin.active_connections()):
                np.testing.assert_array_equal(theirs, mine)
        assert_same_bits(state(other), state(model))
        x, _ = regression
        assert_same_bits([other(x)], [model(x)])
        assert other.optimizer.iterations == model.optimizer.iterations
        before = state(model)
        for each in (model, other):
            # Older Keras returns the mean over all batches since the last reset.
            each.reset_metrics()
        assert other.train_on_batch(*regression) == model.train_on_batch(*regression)
        assert_same_bits(state(other), state(model))
        assert any(np.any(a != b) for a, b in zip(before, state(model)))

    return check


def _fresh(case, regression, trained=False):
    """A network as the program that loads would build it, its optimizer with slots to fill."""
    model = case.network(kernel_regularizer=keras.regularizers.L2(0.01))
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    if trained:
        model.train_on_batch(*regression)
    return model


def test_a_keras_file_brings_everything_back(grown, assert_continues_alike, tmp_path):
    grown.save(tmp_path / "grown.keras")
    assert_continues_alike(grown, keras.saving.load_model(tmp_path / "grown.keras"))


@pytest.mark.parametrize("trained", [False, True])
def test_a_weights_file_brings_weights_and_masks_back(
    case, grown, trained, regression, assert_continues_alike, tmp_path
):
    grown.save_weights(tmp_path / "grown.weights.h5")
    loaded = _fresh(case, regression, trained)
    loaded.load_weights(tmp_path / "grown.weights.h5")
    # The optimizer's state is no part of what this file is for: both start afresh.
    for model in (grown, loaded):
        model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    assert_continues_alike(grown, loaded)


def test_a_tensorflow_checkpoint_brings_everything_back(
    case, grown, regression, assert_continues_alike, tmp_path
):
    path = tf.train.Checkpoint(model=grown, optimizer=grown.optimizer).save(str(tmp_path / "c"))
    loaded = _fresh(case, regression, trained=True)
    checkpoint = tf.train.Checkpoint(model=loaded, optimizer=loaded.optimizer)
    checkpoint.restore(path).assert_existing_objects_matched()
    assert_continues_alike(grown, loaded)


def test_a_clone_with_set_weights_is_the_same_network(grown, assert_continues_alike):
    clone = keras.models.clone_model(grown)
    clone.set_weights(grown.get_weights())
    for model in (grown, clone):
        model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    assert_continues_alike(grown, clone)


# Keras copies by what it pickles.
@pytest.mark.parametrize(
    "duplicate",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(
            lambda model: pickle.loads(pickle.dumps(model)), id="pickle", marks=pytest.mark.slow
        ),
    ],
)
def test_a_copy_is_the_same_network_and_independent(
    duplicate, grown, state, assert_same_bits, assert_continues_alike
):
    twin = duplicate(grown)
    before = state(grown)
    keras_grow.prune(twin, count=5)
    assert_same_bits(state(grown), before)
    assert_continues_alike(grown, duplicate(grown))


# The more is left, the more there is to take in before the end is missed.
@pytest.mark.parametrize("kept", [pytest.param(0.3, marks=pytest.mark.slow), 0.9])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_truncated_file_is_refused_and_the_model_stays(
    case, grown, suffix, kept, regression, state, assert_same_bits, tmp_path
):
    path = tmp_path / f"grown{suffix}"
    (grown.save if suffix == ".keras" else grown.save_weights)(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    model = _fresh(case, regression, trained=True)
    before = state(model)
    with pytest.raises(_DAMAGED):
        model.load_weights(path)
    assert_same_bits(state(model), before)
    if suffix == ".keras":
        with pytest.raises(_DAMAGED):
            keras.saving.load_model(path)


_ARGUMENTS = {
    "activation": "gelu",
    "use_bias": False,
    "kernel_initializer": keras_grow.ActiveFanIn(keras.initializers.HeNormal(seed=3)),
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L1L2(0.1, 0.2),
    "bias_regularizer": keras.regularizers.L2(0.3),
    "activity_regularizer": keras.regularizers.L1(0.4),
    "kernel_constraint": keras.constraints.MaxNorm(2.0),
    "bias_constraint": keras.constraints.NonNeg(),
    "initial_density": 0.25,
    "seed": 11,
    "name": "seventh",
    "dtype": "mixed_bfloat16",
    "trainable": False,
}


def test_the_configuration_holds_every_argument(case):
    arguments = {**case.others, **_ARGUMENTS, **dict.fromkeys(case.arguments, 30)}
    arguments["kernel_constraint"] = case.constraint or _ARGUMENTS["kernel_constraint"]
    layer = case.layer_class(**arguments)
    config = layer.get_config()
    defaults = case.layer_class(**case.least, **case.arguments).get_config()
    assert sorted(key for key in defaults if config[key] == defaults[key]) == list(case.fixed)
    again = case.layer_class.from_config(config)
    assert again.get_config() == config
    layer.build(case.input_shape)
    again.build(case.input_shape)
    np.testing.assert_array_equal(again.effective_kernel(), layer.effective_kernel())
    assert keras.saving.serialize_keras_object(layer)["registered_name"] == (
        f"keras_grow>{case.layer_class.__name__}"
    )


_LOADER = """
import sys
import numpy as np
import keras_grow
import keras
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[3])).numpy())
"""


@pytest.mark.slow
def test_a_fresh_process_that_imports_keras_grow_loads_the_file(
    grown, regression, assert_same_bits, tmp_path
):
    grown.save(tmp_path / "grown.keras")
    np.save(tmp_path / "x.npy", regression[0])
    paths = [str(tmp_path / name) for name in ("grown.keras", "y.npy", "x.npy")]
    subprocess.run([sys.executable, "-c", _LOADER, *paths], check=True)
    assert_same_bits([np.load(tmp_path / "y.npy")], [grown(regression[0])])
