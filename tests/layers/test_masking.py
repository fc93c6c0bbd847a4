"""Masks in the forms that small and large kernels take: the same numbers, to the bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow.layers import masked


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Lets every kernel count as a small or as a large one."""
    monkeypatch.setattr(
        masked, "_ZEROS_ARE_A_CONSTANT", {"small": 2**62, "large": 0}[request.param]
    )
    return request.param


# What is active comes through as it is; what is dormant is 0, not -0 and not NaN.
_KERNEL = np.array([[1.5, -0.0, np.inf, -2.0], [np.nan, -5.0, np.inf, -0.0]], "float32")
_MASK = np.array([[True] * 4, [False] * 4])
_EXPECTED = np.array([[1.5, -0.0, np.inf, -2.0], [0.0, 0.0, 0.0, 0.0]], "float32")


@pytest.mark.parametrize("function", [masked.keep_active, masked.zero_dormant])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dormant_entries_become_zero_whatever_they_hold(size, function, jit_compile, dtype):
    run = tf.function(function, jit_compile=jit_compile)
    found = run(tf.cast(_KERNEL, dtype), tf.constant(_MASK))
    assert found.dtype == dtype
    found = tf.cast(found, "float32").numpy()
    assert found.tobytes() == _EXPECTED.tobytes()


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_gradients_of_dormant_entries_are_zero_and_can_be_differentiated(size, jit_compile):
    kernel, mask = tf.constant([[2.0, 3.0], [4.0, 5.0]]), tf.constant([[True, False]] * 2)

    @tf.function(jit_compile=jit_compile)
    def derivatives():
        with tf.GradientTape() as outer:
            outer.watch(kernel)
            with tf.GradientTape() as inner:
                inner.watch(kernel)
                cubes = tf.reduce_sum(masked.keep_active(kernel, mask) ** 3)
            first = inner.gradient(cubes, kernel)
        return first, outer.gradient(first, kernel)

    first, second = derivatives()
    np.testing.assert_array_equal(first, [[12, 0], [48, 0]])
    np.testing.assert_array_equal(second, [[12, 0], [24, 0]])


def test_nan_that_flows_back_to_dormant_entries_stops_there(size):
    kernel, mask = tf.ones((1, 2)), tf.constant([[True, False]])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        kept = masked.keep_active(kernel, mask)
    upstream = tf.constant([[3.0, np.nan]])
    np.testing.assert_array_equal(tape.gradient(kept, kernel, upstream), [[3, 0]])


@pytest.mark.parametrize("layer_class", [keras_grow.GrowableDense, keras_grow.WeightNormDense])
def test_large_kernels_train_as_small_ones_do(monkeypatch, layer_class, blobs):
    trained = []
    for limit in (2**62, 0):
        monkeypatch.setattr(masked, "_ZEROS_ARE_A_CONSTANT", limit)
        keras.utils.set_random_seed(0)
        layers = [layer_class(n, initial_density=0.4, seed=1) for n in (16, 3)]
        model = keras.Sequential([keras.Input((8,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, run_eagerly=True)
        model.fit(*blobs, batch_size=32, epochs=2, verbose=0)
        keras_grow.grow(model, blobs, count=20)
        model.fit(*blobs, batch_size=32, verbose=0)
        trained.append(b"".join(variable.numpy().tobytes() for variable in model.variables))
    assert trained[0] == trained[1]


@pytest.mark.parametrize("layer_class", [keras_grow.GrowableDense, keras_grow.WeightNormDense])
def test_keras_exports_masked_layers_to_litert(size, layer_class, tmp_path):
    # LiteRT's converter makes other numbers of TensorFlow's `multiply_no_nan`, from some size on.
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    layers = [layer_class(n, "relu", initial_density=0.3, seed=1) for n in (128, 5)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        pytest.skip("Keras exports to LiteRT from 3.13 on")
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    runner = interpreter.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
    x = np.random.default_rng(0).normal(size=(6, 64)).astype("float32")
    (name,) = runner.get_input_details()
    (found,) = runner(**{name: x}).values()
    np.testing.assert_allclose(found, model(x), rtol=0, atol=1e-5)
