"""At density 1, growable convolutions are Keras's to the last bit (without XLA)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableConv1D, GrowableConv2D
from tests.quick import among

_PAIRS = {1: (keras.layers.Conv1D, GrowableConv1D), 2: (keras.layers.Conv2D, GrowableConv2D)}
_WINDOWS = {
    "valid": (2, {"kernel_size": 3}),
    "same": (2, {"kernel_size": (3, 2), "padding": "SAME"}),
    "strides": (2, {"kernel_size": 3, "strides": (2, 1), "padding": "same"}),
    "dilation": (2, {"kernel_size": (2, 3), "dilation_rate": (2, 1)}),
    "1d_strides": (1, {"kernel_size": 3, "strides": 2}),
    "1d_causal": (1, {"kernel_size": 3, "dilation_rate": 2, "padding": "causal"}),
}
_ARGUMENTS = {
    "no_bias": {"use_bias": False},
    "l1_l2": {"kernel_regularizer": keras.regularizers.L1L2(0.1, 0.05), "bias_regularizer": "l1"},
    "activity": {"activity_regularizer": keras.regularizers.L2(0.1)},
    "unit_norm": {"kernel_constraint": keras.constraints.UnitNorm(axis=[0, 1, 2])},
    "max_norm": {"kernel_constraint": keras.constraints.MaxNorm(0.4)},
}
_OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
}


def _pair(rank, **arguments):
    """The same network of Keras's convolutions and of growable ones."""
    models = []
    for layer_class in _PAIRS[rank]:
        keras.utils.set_random_seed(7)
        layers = [
            layer_class(4, activation="relu", kernel_initializer="he_normal", **arguments),
            layer_class(2, **arguments | {"kernel_size": 2}),
        ]
        dtype = arguments.get("dtype", "float32").removeprefix("mixed_")
        inputs = keras.Input((9, 8, 3)[-rank - 1 :], dtype=dtype)
        models.append(keras.Sequential([inputs, *layers]))
    return models


def _data(model):
    random = np.random.default_rng(1)
    shapes = model.input_shape[1:], model.output_shape[1:]
    return tuple(random.normal(size=(12, *shape)) for shape in shapes)


def _bits(arrays):
    return [np.asarray(array).tobytes() for array in arrays]


# Every window without casts and with them.
@pytest.mark.parametrize(
    "dtype",
    among(
        ["float32", "float64", "mixed_float16", "mixed_bfloat16"],
        quick=("float32", "mixed_float16"),
    ),
)
@pytest.mark.parametrize(("rank", "window"), _WINDOWS.values(), ids=_WINDOWS)
def test_outputs_and_gradients_are_those_of_keras(rank, window, dtype):
    results = []
    for model in _pair(rank, dtype=dtype, **window):
        x, y = _data(model)
        model.compile("sgd", "mse")
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(y=y, y_pred=outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        results.append(_bits([outputs, loss, *gradients]))
        assert model.compute_output_shape(x.shape) == outputs.shape
    assert results[0] == results[1]


def _check_training_is_that_of_keras(optimizer, run_eagerly=True, rank=2, **arguments):
    plain, growable = _pair(rank, **{"kernel_size": 3, **arguments})
    start = _bits(plain.trainable_variables)
    assert _bits(growable.trainable_variables) == start
    histories = []
    for model in (plain, growable):
        model.compile(_OPTIMIZERS[optimizer](), "mse", run_eagerly=run_eagerly)
        keras.utils.set_random_seed(2)
        history = model.fit(*_data(model), batch_size=5, epochs=2, verbose=0).history
        histories.append(history)
    assert histories[0] == histories[1]
    trained = _bits(plain.trainable_variables)
    assert _bits(growable.trainable_variables) == trained
    assert all(a != b for a, b in zip(start, trained, strict=True))


# Penalties of activities and other constraints take the way that `test_same_as_dense.py` goes.
@pytest.mark.parametrize("arguments", among(_ARGUMENTS, quick=("no_bias", "l1_l2", "unit_norm")))
def test_penalties_and_constraints_act_as_in_keras(arguments):
    _check_training_is_that_of_keras("sgd", **arguments)


# All three go weight by weight; more of them train in `test_same_as_dense.py`.
@pytest.mark.parametrize("optimizer", among(_OPTIMIZERS.keys(), quick=("adam",)))
def test_compiled_training_is_that_of_keras(optimizer):
    _check_training_is_that_of_keras(optimizer, run_eagerly=False)


def test_training_along_one_axis_and_in_half_precision_is_that_of_keras():
    _check_training_is_that_of_keras("adam", rank=1)
    _check_training_is_that_of_keras("sgd", dtype="mixed_float16")


@pytest.mark.parametrize("rank", [1, 2])
def test_the_configurations_differ_in_density_and_seed_only(rank):
    arguments = (4, 3, 1, "same", "channels_last", 2, 1, "relu", False, "he_normal", "ones")
    arguments += ("l1", "l2", "L1L2", "non_neg", "max_norm")
    plain, growable = (layer(*arguments).get_config() for layer in _PAIRS[rank])
    assert set(growable) - set(plain) == {"initial_density", "seed"}
    assert set(plain) - set(growable) <= {"lora_rank", "lora_alpha", "quantization_config"}
    shared = (set(plain) & set(growable)) - {"name"}
    assert [name for name in shared if plain[name] != growable[name]] == []
