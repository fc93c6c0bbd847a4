"""WeightNormDense: w = g v / ||v||, its gradients, and what growing and pruning do to w."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import WeightNormDense

_GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "weight_norm.json"


def _built(units=5, inputs=12, seed=3, draw_gain=True, **arguments):
    """A layer of which gains and biases are no longer the initial ones."""
    layer = WeightNormDense(units, seed=seed, **arguments)
    layer.build((None, inputs))
    random = np.random.default_rng(0)
    if draw_gain:
        layer.g.assign(random.normal(size=units))
    if layer.bias is not None:
        layer.bias.assign(random.normal(size=units))
    return layer


def _gradients(layer, x, dy):
    """Outputs, and the gradients of sum(dy * y) by v, g and the bias."""
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(tf.cast(dy, y.dtype) * y)
    return [y.numpy(), *(d.numpy() for d in tape.gradient(loss, [layer.v, layer.g, layer.bias]))]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_outputs_and_gradients_are_those_of_pytorch(dtype, tolerance):
    golden = json.loads(_GOLDEN.read_text())
    layer = _built(3, 4, dtype=dtype)
    for name in ("v", "g", "bias"):
        getattr(layer, name).assign(golden[name])
    y, dv, dg, dbias = _gradients(layer, np.array(golden["x"], dtype), golden["dy"])
    computed = {"w": layer.effective_kernel(), "y": y, "dv": dv, "dg": dg, "dbias": dbias}
    for name, value in computed.items():
        expected = np.array(golden[name])
        assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("variable", ["v", "g"])
def test_gradients_are_those_of_finite_differences(variable):
    layer = _built(dtype="float64", initial_density=0.4, activation="tanh")
    random = np.random.default_rng(1)
    x, dy = random.normal(size=(7, 12)), random.normal(size=(7, 5))
    _, dv, dg, _ = _gradients(layer, x, dy)
    variable, gradient = getattr(layer, variable), dv if variable == "v" else dg
    start, step = variable.numpy(), 1e-4
    differences = np.zeros_like(start)
    for place in np.ndindex(start.shape):
        # Right to the fourth order: where v is short, the third derivative is large.
        for steps, factor in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = start.copy()
            moved[place] += steps * step
            variable.assign(moved)
            differences[place] += factor * float(np.sum(dy * layer(x))) / (12 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-7, atol=1e-9)


def test_gradients_are_the_formulas_of_salimans_and_kingma():
    layer = _built(dtype="float64", initial_density=0.4)
    random = np.random.default_rng(1)
    x, dy = random.normal(size=(7, 12)), random.normal(size=(7, 5))
    _, dv, dg, _ = _gradients(layer, x, dy)
    mask, v, g = layer.kernel_mask.numpy(), layer.v.numpy(), layer.g.numpy()
    dw, norm = x.T @ dy * mask, np.linalg.norm(v, axis=0)
    np.testing.assert_allclose(dg, (dw * v).sum(axis=0) / norm, rtol=1e-12)
    np.testing.assert_allclose(dv, g / norm * dw - g * dg / norm**2 * v, rtol=1e-12, atol=1e-14)


def test_second_derivatives_are_those_of_the_formula():
    layer = _built(dtype="float64", initial_density=0.4, activation="tanh")
    x = np.random.default_rng(1).normal(size=(7, 12))

    def by_formula(inputs):
        v = tf.where(layer.kernel_mask.value, layer.v.value, 0.0)
        w = layer.g.value * v / tf.sqrt(tf.reduce_sum(v * v, axis=0))
        return tf.tanh(inputs @ w + layer.bias.value)

    second = []
    for function in (layer, by_formula):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                cubes = tf.reduce_sum(function(tf.constant(x)) ** 3)
            first = inner.gradient(cubes, [layer.v.value, layer.g.value])
            penalty = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
        second.append(outer.gradient(penalty, [layer.v.value, layer.g.value]))
    for found, expected in zip(*second, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_initially_the_weights_are_v():
    layer = _built(draw_gain=False, initial_density=0.3)
    np.testing.assert_array_equal(layer.effective_kernel(), layer.v)
    np.testing.assert_allclose(layer.g, np.linalg.norm(layer.v, axis=0), rtol=1e-6)


def _with_dead_unit(**arguments):
    layer = _built(initial_density=0.5, **arguments)
    dead = np.flatnonzero(layer.kernel_mask.numpy()[:, 1]) * 5 + 1
    layer.prune_connections(dead)
    return layer, dead


def test_a_unit_without_inputs_outputs_its_bias_with_finite_gradients():
    layer, _ = _with_dead_unit()
    x = np.random.default_rng(1).normal(size=(7, 12)).astype("float32")
    y, *gradients = _gradients(layer, x, np.ones((7, 5)))
    np.testing.assert_array_equal(y[:, 1], np.full(7, layer.bias.numpy()[1]))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert gradients[2][1] == 7


def test_a_unit_that_wakes_at_zero_learns_downhill_in_every_connection():
    """Its output stays, and a step down dL/dg gives each weight the sign of -dL/dw."""
    layer, dead = _with_dead_unit(dtype="float64")
    x = np.random.default_rng(1).normal(size=(7, 12))
    dy = np.zeros((7, 5))
    dy[:, 1] = np.random.default_rng(4).normal(size=7)
    dw = (x.T @ dy).reshape(-1)[dead]
    assert set(np.sign(dw)) == {-1.0, 1.0}
    before = layer(x).numpy()
    layer.grow_connections(dead, gradient=tf.constant(dw))
    assert layer(x).numpy().tobytes() == before.tobytes()
    np.testing.assert_array_equal(np.sign(layer.v.numpy().flat[dead]), -np.sign(dw))
    _, dv, dg, _ = _gradients(layer, x, dy)
    assert dg[1] < 0
    layer.g.assign_sub(0.01 * dg)
    layer.v.assign_sub(0.01 * dv)
    np.testing.assert_array_equal(
        np.sign(layer.effective_kernel().numpy().flat[dead]), -np.sign(dw)
    )
    assert float(np.sum(dy * layer(x))) < float(np.sum(dy * before))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_pruning_leaves_the_weights_of_survivors(dtype, tolerance):
    layer = _built(dtype=dtype, initial_density=0.7)
    before = layer.effective_kernel().numpy()
    active = np.flatnonzero(layer.kernel_mask)
    pruned = active[np.random.default_rng(2).permutation(len(active))[:20]]
    layer.prune_connections(pruned)
    before.flat[pruned] = 0
    np.testing.assert_allclose(layer.effective_kernel(), before, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_growing_gives_exactly_the_weights_asked_for_and_keeps_the_others(dtype, tolerance):
    """In a connected unit, in a dead one, and in one whose gain is 0."""
    layer, _ = _with_dead_unit(dtype=dtype)
    layer.g.assign(np.where(np.arange(5) == 3, 0, layer.g.numpy()))
    expected = layer.effective_kernel().numpy()
    dormant = np.flatnonzero(~layer.kernel_mask.numpy())
    indices = np.concatenate([dormant[dormant % 5 == unit][:3] for unit in (0, 1, 3, 4)])
    values = np.random.default_rng(2).normal(size=12)
    values[[1, 4, 7]] = 0
    layer.grow_connections(indices, values)
    expected.flat[indices] = values
    np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=tolerance)
    np.testing.assert_array_equal(layer.effective_kernel().numpy()[:, 2], expected[:, 2])


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "bfloat16", "mixed_bfloat16"])
def test_weights_under_half_precision_are_those_of_single_precision(policy):
    """Squares of 300 are beyond float16, and sums of 4,096 small ones below its resolution."""
    v = np.full((4096, 3), 1e-4)
    v[:, 1] = 300.0
    v[:, 2] = np.linspace(-1, 1, 4096)
    layers = [WeightNormDense(3, dtype=dtype) for dtype in ("float32", policy)]
    for layer in layers:
        layer.build((None, 4096))
        layer.v.assign(v)
        layer.g.assign([1.0, 1.0, 2.0])
    expected, weights = (layer.effective_kernel().numpy() for layer in layers)
    assert weights.dtype == np.float32
    assert weights.tobytes() == expected.tobytes()
    y = layers[1](np.ones((1, 4096)))
    assert y.dtype == layers[1].compute_dtype
    # 4,096 weights of 1/64.
    np.testing.assert_allclose(tf.cast(y, "float32")[0, :2], [64, 64], rtol=2**-8)


@pytest.mark.parametrize(
    "constraint",
    [
        keras.constraints.MaxNorm(0.5),
        keras.constraints.UnitNorm(axis=0),
        keras.constraints.NonNeg(),
        keras.constraints.MinMaxNorm(0.5, 0.9, rate=0.3),
    ],
    ids=lambda constraint: type(constraint).__name__,
)
def test_constraints_act_on_the_effective_kernel(constraint):
    layer = _built(dtype="float64", initial_density=0.6, kernel_constraint=constraint)
    weights = layer.effective_kernel()
    expected = np.where(layer.kernel_mask, constraint(weights), 0)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply(
        [tf.zeros_like(v) for v in layer.trainable_variables], layer.trainable_variables
    )
    np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=1e-13, atol=1e-15)
    assert np.abs(expected - weights).max() > 0.01
