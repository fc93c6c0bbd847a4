"""At density 1, GrowableDense is keras.layers.Dense to the last bit (without XLA)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableDense
from keras_grow.layers import dense_like
from tests.quick import among

_ARGUMENTS = {
    "plain": {},
    "no_bias": {"use_bias": False},
    "l1": {"kernel_regularizer": "l1", "bias_regularizer": "l1"},
    "l2": {"kernel_regularizer": keras.regularizers.L2(0.1)},
    "l1_l2": {"kernel_regularizer": keras.regularizers.L1L2(0.1, 0.05)},
    "activity": {"activity_regularizer": keras.regularizers.L2(0.1)},
    "unit_norm": {"kernel_constraint": "unit_norm"},
    "max_norm": {"kernel_constraint": keras.constraints.MaxNorm(0.4)},
    # From 0, a bias that the loss pulls down would not move at all.
    "non_negative": {
        "kernel_constraint": "non_neg",
        "bias_constraint": "non_neg",
        "bias_initializer": keras.initializers.Constant(0.02),
    },
}
_OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.05),
    "lion": lambda: keras.optimizers.Lion(0.05),
    "lamb": lambda: keras.optimizers.Lamb(0.05),
    "adafactor": lambda: keras.optimizers.Adafactor(0.05),
}


def _network(layer_class, shape=(8,), **arguments):
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input(shape, dtype=arguments.get("dtype", "float32").removeprefix("mixed_")),
            layer_class(16, "relu", kernel_initializer="he_normal", **arguments),
            layer_class(3, **arguments),
        ]
    )


def _pair(**arguments):
    return [
        _network(layer_class, **arguments) for layer_class in (keras.layers.Dense, GrowableDense)
    ]


def _data(shape=(8,)):
    random = np.random.default_rng(1)
    return random.normal(size=(20, *shape)), random.normal(size=(20, *shape[:-1], 3))


def _bits(arrays):
    return [np.asarray(array).tobytes() for array in arrays]


def _weights(model):
    return [variable.value for variable in model.trainable_variables]


def _outputs_loss_and_gradients(model, x, y):
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = model.compute_loss(y=y, y_pred=outputs)
    return [outputs, loss, *tape.gradient(loss, model.trainable_variables)]


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]
)
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 8)], ids=len)
def test_outputs_and_gradients_are_those_of_dense(dtype, shape):
    x, y = _data(shape)
    results = []
    for model in _pair(dtype=dtype, shape=shape):
        model.compile("sgd", "mse")
        results.append(_bits(_outputs_loss_and_gradients(model, x, y)))
    assert results[0] == results[1]


def _check_training_is_that_of_dense(optimizer, shape=(8,), run_eagerly=True, **arguments):
    x, y = _data(shape)
    dense, growable = _pair(shape=shape, **arguments)
    assert _bits(_weights(growable)) == _bits(_weights(dense))
    start = _bits(_weights(dense))
    histories = []
    for model in (dense, growable):
        model.compile(_OPTIMIZERS[optimizer](), "mse", run_eagerly=run_eagerly)
        keras.utils.set_random_seed(2)
        histories.append(model.fit(x, y, batch_size=8, epochs=3, verbose=0).history)
    assert histories[0] == histories[1]
    assert _bits(_weights(growable)) == _bits(_weights(dense))
    assert all(a != b for a, b in zip(start, _bits(_weights(dense)), strict=True))


# One of each kind, those that penalize or constrain the bias too.
@pytest.mark.parametrize(
    "arguments",
    among(_ARGUMENTS, quick=("no_bias", "l1", "activity", "max_norm", "non_negative")),
)
def test_penalties_and_constraints_act_as_in_dense(arguments):
    _check_training_is_that_of_dense("sgd", **arguments)


# Adam looks at every weight by itself, Lamb at the whole kernel; the others at one or the other.
@pytest.mark.parametrize("optimizer", among(_OPTIMIZERS.keys(), quick=("adam", "lamb")))
def test_compiled_training_is_that_of_dense(optimizer):
    _check_training_is_that_of_dense(optimizer, run_eagerly=False)


# Without casts and with them; the third is without, too.
@pytest.mark.parametrize(
    "dtype",
    among(["float64", "mixed_float16", "bfloat16"], quick=("float64", "mixed_float16")),
)
def test_training_in_other_precisions_is_that_of_dense(dtype):
    _check_training_is_that_of_dense("sgd", dtype=dtype)


def test_training_on_sequences_is_that_of_dense():
    _check_training_is_that_of_dense("adam", shape=(5, 8))


@pytest.fixture
def large(monkeypatch):
    """Lets every kernel count as a large one, whose product has a gradient of its own."""
    monkeypatch.setattr(dense_like, "_LARGE_SIZE", 0)


# The sums are the same, the order in which they are taken need not be.
_ROUNDING = {"float64": 1e-14, "float32": 1e-6, "mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}


@pytest.mark.parametrize("dtype", _ROUNDING)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_large_layers_are_dense_to_rounding(large, dtype, jit_compile):
    x, y = _data()
    results = []
    for model in _pair(dtype=dtype):
        model.compile("sgd", "mse")
        run = tf.function(_outputs_loss_and_gradients, jit_compile=jit_compile)
        results.append(run(model, tf.constant(x, model.inputs[0].dtype), y))
    for expected, found in zip(*results, strict=True):
        scale = np.abs(np.asarray(expected, "float64")).max()
        difference = np.asarray(found, "float64") - np.asarray(expected, "float64")
        assert np.abs(difference).max() <= _ROUNDING[dtype] * scale


def test_a_layer_of_a_million_connections_is_dense_to_rounding():
    x = np.random.default_rng(1).normal(size=(4, 1024)).astype("float32")
    results = []
    for layer_class in (keras.layers.Dense, GrowableDense):
        keras.utils.set_random_seed(7)
        layer, inputs = layer_class(1024), tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            loss = tf.reduce_sum(outputs**2)
        results.append([outputs, *tape.gradient(loss, [inputs, layer.kernel, layer.bias])])
    (expected, *gradients), (found, *own_gradients) = results
    assert _bits([found]) == _bits([expected])
    for gradient, own in zip(gradients, own_gradients, strict=True):
        np.testing.assert_allclose(own, gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())


def test_large_layers_have_second_derivatives(large):
    x, _ = _data()
    found = []
    for model in _pair(dtype="float64"):
        inputs = tf.constant(x)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                cubes = tf.reduce_sum(model(inputs) ** 3)
            penalty = tf.reduce_sum(inner.gradient(cubes, inputs) ** 2)
        found.append(outer.gradient(penalty, model.trainable_variables))
    for expected, gradient in zip(*found, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["sequences", "integers", "sparse"])
def test_large_layers_take_what_dense_takes(large, kind):
    x = np.random.default_rng(0).integers(3, size=(4, 5, 8))
    inputs = {
        "sequences": tf.constant(x, "float32"),
        "integers": tf.constant(x[0]),
        "sparse": tf.sparse.from_dense(tf.constant(x[0], "float32")),
    }[kind]
    outputs = []
    for layer_class in (keras.layers.Dense, GrowableDense):
        keras.utils.set_random_seed(7)
        outputs.append(layer_class(3)(inputs))
    np.testing.assert_array_equal(*outputs)


def test_the_configurations_differ_in_density_and_seed_only():
    configurations = [layer(4).get_config() for layer in (keras.layers.Dense, GrowableDense)]
    dense, growable = (set(configuration) for configuration in configurations)
    # Dense writes its activity regularizer where there is one, and what GrowableDense leaves out.
    assert growable - dense == {"initial_density", "seed", "activity_regularizer"}
    assert dense - growable <= {"lora_rank", "lora_alpha", "quantization_config"}
    shared = (dense & growable) - {"name"}
    assert [n for n in shared if configurations[0][n] != configurations[1][n]] == []


def test_arguments_may_be_given_in_the_order_of_dense():
    arguments = (4, "relu", False, "he_normal", "ones", "l1", "l2", "L1L2", "non_neg", "max_norm")
    dense, growable = (layer(*arguments) for layer in (keras.layers.Dense, GrowableDense))
    config = growable.get_config()
    for name in (
        "units",
        "activation",
        "use_bias",
        "kernel_initializer",
        "bias_initializer",
        "kernel_regularizer",
        "bias_regularizer",
        "activity_regularizer",
        "kernel_constraint",
        "bias_constraint",
    ):
        assert config[name] == dense.get_config()[name], name
