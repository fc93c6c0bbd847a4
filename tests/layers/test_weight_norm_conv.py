"""WeightNormConv2D: w = g v / ||v|| with one norm per output map."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import WeightNormConv2D


def _built(draw_gain=True, **arguments):
    """A layer of 4 maps, of which gains and biases are no longer the initial ones."""
    layer = WeightNormConv2D(4, (3, 2), padding="same", seed=3, **arguments)
    layer.build((None, 5, 6, 2))
    random = np.random.default_rng(0)
    if draw_gain:
        layer.g.assign(random.normal(size=4))
    layer.bias.assign(random.normal(size=4))
    return layer


def _inputs(dtype="float64"):
    return np.random.default_rng(1).normal(size=(7, 5, 6, 2)).astype(dtype)


def _weights_in_numpy(layer):
    v = np.where(layer.kernel_mask.numpy(), layer.v.numpy(), 0)
    return layer.g.numpy() * v / np.sqrt((v**2).sum(axis=(0, 1, 2)))


def test_weights_and_outputs_are_the_formula():
    layer = _built(dtype="float64", initial_density=0.6)
    w = _weights_in_numpy(layer)
    np.testing.assert_allclose(layer.effective_kernel(), w, rtol=1e-14)
    # "Same" padding of a 3 x 2 window: one row above and below, one column behind.
    x = np.pad(_inputs(), [(0, 0), (1, 1), (0, 1), (0, 0)])
    expected = layer.bias.numpy() + sum(
        x[:, i : i + 5, j : j + 6] @ w[i, j] for i in range(3) for j in range(2)
    )
    np.testing.assert_allclose(layer(_inputs()), expected, rtol=1e-12)


def test_gradients_are_the_formulas_of_salimans_and_kingma():
    layer = _built(dtype="float64", initial_density=0.6)
    x = _inputs()
    dy = np.random.default_rng(2).normal(size=(7, 5, 6, 4))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(dy * layer(x))
    dv, dg = (d.numpy() for d in tape.gradient(loss, [layer.v, layer.g]))
    dw = layer.as_rows(x).numpy().T @ dy.reshape(-1, 4)
    dw = dw.reshape(layer.kernel_shape) * layer.kernel_mask.numpy()
    v, g = layer.v.numpy(), layer.g.numpy()
    norm = np.sqrt((v**2).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose(dg, (dw * v).sum(axis=(0, 1, 2)) / norm, rtol=1e-11)
    np.testing.assert_allclose(dv, g / norm * dw - g * dg / norm**2 * v, rtol=1e-11, atol=1e-13)


def test_initially_the_weights_are_v():
    layer = _built(draw_gain=False, initial_density=0.3)
    np.testing.assert_array_equal(layer.effective_kernel(), layer.v)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_pruning_and_growing_keep_the_other_weights(dtype, tolerance):
    layer = _built(dtype=dtype, initial_density=0.7)
    expected = layer.effective_kernel().numpy()
    active, dormant = (np.flatnonzero(m) for m in (layer.kernel_mask, ~layer.kernel_mask.numpy()))
    pruned = np.random.default_rng(2).permutation(active)[:12]
    layer.prune_connections(pruned)
    expected.flat[pruned] = 0
    np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=tolerance)
    layer.grow_connections(dormant[:6], [0.5, 0.0, -1.0, 2.0, 0.0, 1.0])
    expected.flat[dormant[:6]] = [0.5, 0.0, -1.0, 2.0, 0.0, 1.0]
    np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=tolerance)


def test_a_map_without_inputs_outputs_its_bias_and_wakes_downhill():
    layer = _built(dtype="float64", initial_density=0.5)
    x = _inputs()
    dead = np.flatnonzero(layer.kernel_mask.numpy()[..., 1]) * 4 + 1
    layer.prune_connections(dead)
    with tf.GradientTape() as tape:
        outputs = layer(x)
    np.testing.assert_array_equal(outputs[..., 1], np.full((7, 5, 6), layer.bias.numpy()[1]))
    gradients = tape.gradient(outputs, layer.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    # dL/dw for the loss sum(outputs): each weight is to move against it.
    dw = (layer.as_rows(x).numpy().T @ np.ones((7 * 5 * 6, 4))).reshape(-1)[dead]
    layer.grow_connections(dead, gradient=tf.constant(dw))
    assert layer(x).numpy().tobytes() == outputs.numpy().tobytes()
    with tf.GradientTape() as tape:
        outputs = layer(x)
    layer.g.assign_sub(0.01 * tape.gradient(outputs, layer.g.value))
    np.testing.assert_array_equal(
        np.sign(layer.effective_kernel().numpy().flat[dead]), -np.sign(dw)
    )


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_weights_under_half_precision_are_those_of_single_precision(policy):
    """Squares of 300 are beyond float16."""
    layers = [WeightNormConv2D(2, 8, dtype=dtype) for dtype in ("float32", policy)]
    for layer in layers:
        layer.build((None, 8, 8, 4))
        layer.v.assign(np.full((8, 8, 4, 2), [1e-4, 300.0]))
        layer.g.assign([1.0, 2.0])
    expected, weights = (layer.effective_kernel().numpy() for layer in layers)
    assert weights.dtype == np.float32
    assert weights.tobytes() == expected.tobytes()
    y = layers[1](np.ones((1, 8, 8, 4)))
    # 256 weights of 1/16 and 2/16.
    np.testing.assert_allclose(tf.cast(y, "float32")[0, 0, 0], [16, 32], rtol=2**-8)


def test_constraints_act_on_the_effective_kernel():
    constraint = keras.constraints.MaxNorm(0.5, axis=[0, 1, 2])
    layer = _built(dtype="float64", initial_density=0.6, kernel_constraint=constraint)
    expected = np.where(layer.kernel_mask, constraint(layer.effective_kernel()), 0)
    gradients = [tf.zeros_like(v) for v in layer.trainable_variables]
    keras.optimizers.SGD(1.0).apply(gradients, layer.trainable_variables)
    np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=1e-13, atol=1e-15)
