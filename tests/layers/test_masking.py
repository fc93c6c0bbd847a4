"""What a mask makes of a kernel and of its gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow.layers import masked

# What is active comes through as it is; what is dormant is 0, not -0 and not NaN.
_KERNEL = np.array([[1.5, -0.0, np.inf, -2.0], [np.nan, -5.0, np.inf, -0.0]], "float32")
_MASK = np.array([[True] * 4, [False] * 4])
_EXPECTED = np.array([[1.5, -0.0, np.inf, -2.0], [0.0, 0.0, 0.0, 0.0]], "float32")


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dormant_entries_become_zero_whatever_they_hold(jit_compile, dtype):
    run = tf.function(masked.keep_active, jit_compile=jit_compile)
    found = run(tf.cast(_KERNEL, dtype), tf.constant(_MASK))
    assert found.dtype == dtype
    found = tf.cast(found, "float32").numpy()
    assert found.tobytes() == _EXPECTED.tobytes()


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_gradients_of_dormant_entries_are_zero_and_can_be_differentiated(jit_compile):
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


def test_nan_that_flows_back_to_dormant_entries_stops_there():
    kernel, mask = tf.ones((1, 2)), tf.constant([[True, False]])
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        kept = masked.keep_active(kernel, mask)
    upstream = tf.constant([[3.0, np.nan]])
    np.testing.assert_array_equal(tape.gradient(kept, kernel, upstream), [[3, 0]])


@pytest.mark.parametrize("layer_class", [keras_grow.GrowableDense, keras_grow.WeightNormDense])
def test_keras_exports_masked_layers_to_litert(layer_class, tmp_path):
    # The converter makes other numbers of some ways to mask, from some size on.
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
