"""How growable layers start, and that they are called as Dense is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import ActiveFanIn


def _built(layer_class, inputs=20, units=10, **arguments):
    layer = layer_class(units, **arguments)
    layer.build((None, inputs))
    return layer


def _mask(layer):
    return layer.kernel_mask.numpy()


@pytest.mark.parametrize(
    ("density", "count"), [(0, 0), (0.02, 4), (0.05, 10), (0.3, 60), (0.3325, 67), (1, 200)]
)
def test_an_exact_count_of_connections_starts_active(layer_class, density, count):
    layer = _built(layer_class, initial_density=density, seed=4)
    assert layer.num_active == _mask(layer).sum() == count
    # Every unit has an input where the count allows, and none has two before all have one.
    fan_in = _mask(layer).sum(axis=0)
    assert fan_in.min() >= 1 if count >= 10 else fan_in.max() <= 1


def test_every_connection_is_as_likely_as_any_other_to_start_active(layer_class):
    counts = np.zeros((6, 4))
    for seed in range(300):
        counts += _mask(_built(layer_class, 6, 4, initial_density=0.5, seed=seed))
    # 300 draws with probability 1/2: five standard deviations are 43.
    assert np.abs(counts - 150).max() < 43


def test_the_seed_alone_fixes_the_mask(layer_class):
    keras.utils.set_random_seed(1)
    first = _mask(_built(layer_class, initial_density=0.3, seed=4))
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(_mask(_built(layer_class, initial_density=0.3, seed=4)), first)
    assert np.any(_mask(_built(layer_class, initial_density=0.3, seed=5)) != first)


def test_without_a_seed_the_mask_follows_the_global_one(layer_class):
    masks = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        masks.append([_mask(_built(layer_class, initial_density=0.3)) for _ in range(2)])
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.any(masks[0][0] != masks[2][0])
    assert np.any(masks[0][0] != masks[0][1])


def test_the_fan_in_initializer_keeps_the_variance_of_the_pre_activation(layer_class):
    x = np.random.default_rng(0).normal(size=(2000, 400)).astype("float32")
    variances = {}
    for name in ("he_normal", ActiveFanIn("he_normal")):
        initializer = keras.initializers.get(name)
        layer = _built(
            layer_class, 400, 300, initial_density=0.1, seed=1, kernel_initializer=initializer
        )
        variances[type(initializer).__name__] = layer(x).numpy().var(axis=0).mean()
    # He's variance is 2 per unit. 12,000 weights: its relative standard error is sqrt(2 / 12000).
    error = 5 * np.sqrt(2 / 12_000)
    assert variances["ActiveFanIn"] == pytest.approx(2, rel=error)
    assert variances["HeNormal"] == pytest.approx(0.2, rel=error)


def test_the_fan_in_initializer_scales_each_unit_by_its_own_inputs():
    mask = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]], bool)
    kernel = ActiveFanIn("ones")((4, 3), "float32", mask=mask)
    np.testing.assert_array_equal(kernel, np.tile([1.0, 2.0, 2.0], (4, 1)))
    np.testing.assert_array_equal(ActiveFanIn("ones")((4, 3)), np.ones((4, 3)))


def test_the_fan_in_initializer_comes_back_from_its_configuration():
    initializer = ActiveFanIn(keras.initializers.HeNormal(seed=3))
    again = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert isinstance(again, ActiveFanIn)
    np.testing.assert_array_equal(again((4, 3), "float32"), initializer((4, 3), "float32"))


@pytest.mark.parametrize("shape", [(4, 20), (4, 5, 20), (2, 3, 5, 20)])
def test_the_last_axis_is_multiplied_by_the_effective_kernel(layer_class, shape):
    layer = _built(layer_class, initial_density=0.3, activation="relu", bias_initializer="ones")
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = np.maximum(x @ layer.effective_kernel().numpy() + 1, 0)
    outputs = layer(x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape(shape) == outputs.shape == (*shape[:-1], 10)


def test_a_symbolic_call_knows_its_shape(layer_class):
    outputs = layer_class(10)(keras.Input((None, 20)))
    assert outputs.shape == (None, None, 10)
    assert outputs.dtype == "float32"


def test_masks_of_timesteps_pass_through(layer_class):
    class Probe(keras.layers.Layer):
        def call(self, inputs, mask=None):
            return tf.cast(mask, "int32")

    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedding = keras.layers.Embedding(5, 6, mask_zero=True)
    model = keras.Sequential([embedding, layer_class(3), Probe()])
    np.testing.assert_array_equal(model(tokens), tokens != 0)


def test_sparse_inputs_give_what_dense_ones_give(layer_class):
    """keras.layers.Dense takes a tf.SparseTensor, and so do these."""
    layer = _built(layer_class, initial_density=0.3)
    x = np.random.default_rng(0).normal(size=(4, 20)).astype("float32")
    x[x < 0.5] = 0
    sparse = tf.sparse.from_dense(x)
    keras.layers.Dense(10)(sparse)
    np.testing.assert_allclose(layer(sparse), layer(x), rtol=1e-5, atol=1e-6)
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_sum(layer(inputs) ** 2) for inputs in (sparse, x)]
    gradients = [tape.gradient(loss, layer.trainable_variables) for loss in losses]
    for of_sparse, of_dense in zip(*gradients, strict=True):
        np.testing.assert_allclose(of_sparse, of_dense, rtol=1e-4, atol=1e-5)


def test_compiled_by_xla_the_layer_computes_the_same(layer_class):
    layer = _built(layer_class, initial_density=0.3, activation="tanh")
    x = np.random.default_rng(0).normal(size=(7, 20)).astype("float32")

    def step(x):
        with tf.GradientTape() as tape:
            outputs = layer(x)
            loss = tf.reduce_sum(outputs**2)
        return [outputs, *tape.gradient(loss, layer.trainable_variables)]

    expected = step(x)
    compiled = tf.function(step, jit_compile=True)
    for a, b in zip(compiled(x), expected, strict=True):
        assert np.abs(a - b).max() <= 1e-6 * np.abs(b).max()
    # The compiled step reads the mask that the layer has now.
    indices, _ = layer.active_connections()
    layer.prune_connections(indices)
    np.testing.assert_array_equal(compiled(x)[0], np.zeros((7, 10)))


@pytest.mark.parametrize(
    ("policy", "kernel", "outputs", "resolution"),
    [
        ("mixed_float16", "float32", "float16", 2**-10),
        ("mixed_bfloat16", "float32", "bfloat16", 2**-7),
        ("float64", "float64", "float64", 2**-52),
    ],
)
def test_precisions_are_those_of_the_policy(layer_class, policy, kernel, outputs, resolution):
    layer = _built(layer_class, initial_density=0.3, dtype=policy)
    weights = layer.effective_kernel()
    assert weights.dtype == kernel
    x = np.random.default_rng(0).normal(size=(7, 20))
    y = layer(x)
    assert y.dtype == outputs
    weights = weights.numpy().astype("float64")
    # Inputs, weights and outputs are rounded to half the resolution, and so are partial sums.
    bound = 3 * resolution * (np.abs(x) @ np.abs(weights))
    assert np.all(np.abs(tf.cast(y, "float64") - x @ weights) <= bound)


def test_masks_are_no_trainable_weights(layer_class):
    layer = _built(layer_class)
    assert [weight.name for weight in layer.non_trainable_weights] == ["kernel_mask"]
    assert all(weight.name != "kernel_mask" for weight in layer.trainable_weights)
