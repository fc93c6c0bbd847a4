"""Kernels inside layers of every kind, stored as direction and length."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import WeightNormKernels
from tests.layers.kinds import KINDS, bits, every_kind
from tests.quick import among

L = keras.layers


def _model(kind, density=0.4):
    return kind.model(
        lambda layer: WeightNormKernels(layer, initial_density=density, seed=5, name="kind")
    )


def _kernels(model):
    return keras_grow.growable_layers(model)


def _train(model, kind, steps=2):
    for _ in range(steps):
        model.train_on_batch(*kind.data(model))


def _by_unit(kernel, values):
    """Values of connections as an array of units, each with all that lead into it."""
    units = np.asarray(kernel.axes.units_of(np.arange(kernel.num_connections)))
    return [np.ravel(values)[units == unit] for unit in range(kernel.axes.num_units)]


@pytest.mark.parametrize("kind", every_kind)
def test_it_starts_as_keras_own_layer_and_gains_are_norms(kind):
    plain, model = kind.model(), _model(kind, density=1.0)
    for kernel in _kernels(model):
        v = kernel.v.numpy()
        assert bits(kernel.effective_kernel()) == bits(v)
        norms = [np.linalg.norm(into) for into in _by_unit(kernel, v)]
        np.testing.assert_allclose(kernel.g, norms, rtol=1e-6)
    assert bits(model(kind.arrays)) == bits(plain(kind.arrays))


@pytest.mark.parametrize("kind", every_kind)
def test_a_trained_kernel_has_the_gain_as_norm_of_each_unit(kind):
    model = _model(kind)
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    before = [kernel.g.numpy() for kernel in _kernels(model)]
    _train(model, kind)
    for kernel, start in zip(_kernels(model), before, strict=True):
        assert (kernel.g.numpy() != start).any()
        w = kernel.effective_kernel().numpy()
        assert not w[~kernel.kernel_mask.numpy()].any()
        norms = [np.linalg.norm(into) for into in _by_unit(kernel, w)]
        lives = [into.any() for into in _by_unit(kernel, kernel.kernel_mask.numpy())]
        expected = np.where(lives, np.abs(kernel.g), 0)
        np.testing.assert_allclose(norms, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", every_kind)
def test_growth_at_zero_leaves_the_function_and_pruning_the_other_weights(kind):
    model = _model(kind)
    model.compile("sgd", "mse")
    data = kind.data(model)
    kernels = _kernels(model)
    weights = [kernel.effective_kernel().numpy() for kernel in kernels]
    active = sum(kernel.num_active for kernel in kernels)
    keras_grow.grow(model, data, count=6)
    assert sum(kernel.num_active for kernel in kernels) == active + 6
    assert bits([kernel.effective_kernel() for kernel in kernels]) == bits(weights)
    keras_grow.prune(model, count=9)
    assert sum(kernel.num_active for kernel in kernels) == active - 3
    for kernel, before in zip(kernels, weights, strict=True):
        expected = np.where(kernel.kernel_mask, before, 0)
        np.testing.assert_allclose(kernel.effective_kernel(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", every_kind)
def test_gradients_of_empty_units_are_finite_and_nothing_dormant_is_seen(kind):
    model = _model(kind, density=0.0)
    model.compile("sgd", "mse")
    # One connection each, so that all units but one are empty.
    for kernel in _kernels(model):
        kernel.grow_connections(np.array([kernel.num_connections - 1]), np.array([0.5]))
    state = [variable.numpy() for variable in model.non_trainable_variables]

    def run():
        x, y = kind.data(model)
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(y=y, y_pred=outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, value in zip(model.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return [loss, *map(tf.convert_to_tensor, gradients)]

    expected = run()
    assert all(np.isfinite(each).all() for each in expected)
    for value in (7.0, np.nan):
        for kernel in _kernels(model):
            kernel.v.assign(np.where(kernel.kernel_mask, kernel.v, value))
        assert bits(run()) == bits(expected)
    model.compile("adam", "mse", run_eagerly=True)
    _train(model, kind)
    for kernel in _kernels(model):
        assert not kernel.v.numpy()[~kernel.kernel_mask.numpy()].any()


_SAVED = ("conv2d_groups", "separable_conv1d", "lstm", "attention", "block", "stacked_cells")


@pytest.mark.parametrize(
    "kind", among({name: KINDS[name] for name in _SAVED}, quick=("lstm", "block"))
)
def test_files_clones_and_checkpoints_bring_directions_gains_and_masks_back(kind, tmp_path):
    model = _model(kind)
    model.compile("adam", "mse", run_eagerly=True)
    _train(model, kind)
    keras_grow.grow(model, kind.data(model), count=5)
    keras_grow.prune(model, count=3)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("kind")) is WeightNormKernels
    other = _model(kind, density=0.2)
    other.load_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for each in (loaded, other, clone):
        assert bits(each.weights) == bits(model.weights)
        assert bits(each(kind.arrays)) == bits(model(kind.arrays))
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    restored = _model(kind, density=0.2)
    tf.train.Checkpoint(model=restored).restore(path).assert_existing_objects_matched()
    for kernel, before in zip(_kernels(restored), _kernels(model), strict=True):
        assert bits([kernel.g, kernel.kernel_mask]) == bits([before.g, before.kernel_mask])


def test_a_constraint_holds_the_weights_and_not_the_directions():
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    layer = WeightNormKernels(L.GRU(4, recurrent_constraint=keras.constraints.MaxNorm(0.3)))
    model = keras.Sequential([keras.Input((5, 3)), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    model.train_on_batch(x, np.ones((4, 4)))
    free, held = (kernel.effective_kernel().numpy() for kernel in layer.masked_kernels)
    assert np.linalg.norm(held, axis=0).max() <= 0.3 * (1 + 1e-6)
    assert np.linalg.norm(free, axis=0).max() > 0.3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_norms_are_taken_in_float32_under_a_mixed_policy(policy):
    layer = WeightNormKernels(L.LSTM(3, dtype=policy))
    outputs = layer(np.ones((2, 4, 3), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
    for kernel in layer.masked_kernels:
        assert kernel.effective_kernel().dtype == tf.float32
        assert kernel.g.dtype == "float32"


def test_norms_in_half_precision_are_refused():
    with pytest.raises(ValueError, match="Norms are taken in float32 .* 'dense/kernel' of float16"):
        WeightNormKernels(L.Dense(3, dtype="float16", name="dense"))(np.ones((2, 3)))
