"""A kernel that this package does not have: one class says its axes, and every verb takes it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import unit_rules
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.affine import Affine
from keras_grow.layers.plain_kernel import PlainKernel
from keras_grow.policies.statistics import InputRMS


@keras.saving.register_keras_serializable("tests")
class GrowableDepthwise(PlainKernel, Affine):
    """A depthwise convolution: the axis of inputs is one of units too."""

    def __init__(self, size, depth_multiplier=1, padding="valid", **kwargs):
        super().__init__(**kwargs)
        self.size, self.depth_multiplier, self.padding = size, depth_multiplier, padding

    def axes_for(self, shape):
        return KernelAxes(shape, inputs=(-2,), units=(-2, -1))

    def _kernel_shape_for(self, input_shape):
        return (self.size, self.size, input_shape[-1], self.depth_multiplier)

    def apply_kernel(self, inputs, kernel):
        return keras.ops.depthwise_conv(inputs, kernel, padding=self.padding)

    def as_rows(self, inputs):
        raise ValueError("Each unit of a depthwise convolution has rows of its own.")

    def compute_output_shape(self, input_shape):
        batch, *positions, channels = input_shape
        lost = self.size - 1 if self.padding == "valid" else 0
        return (batch, *(p - lost for p in positions), channels * self.depth_multiplier)

    def get_config(self):
        own = {"size": self.size, "depth_multiplier": self.depth_multiplier}
        return {**super().get_config(), **own, "padding": self.padding}


@pytest.fixture(autouse=True)
def _rule():
    unit_rules.register(GrowableDepthwise, unit_rules.Depthwise())
    yield
    del unit_rules._RULES[GrowableDepthwise]


def _model(density=0.5):
    conv = keras_grow.GrowableConv2D
    layers = [
        conv(4, 1, activation="relu", initial_density=density, seed=1, name="first"),
        GrowableDepthwise(3, 2, initial_density=density, seed=2, name="depthwise"),
        conv(3, 1, initial_density=density, seed=3, name="last"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, name="outputs"),
    ]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
    model.compile("adam", "mse")
    return model


def _data():
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 6, 6, 3)).astype("float32")
    return x, random.normal(size=(32, 2)).astype("float32")


def test_it_starts_with_an_exact_count_and_an_input_for_each_unit():
    layer = _model().get_layer("depthwise")
    mask = layer.kernel_mask.numpy()
    assert mask.shape == (3, 3, 4, 2)
    assert layer.num_active == mask.sum() == 36
    assert mask.any(axis=(0, 1)).all()
    assert layer.bias.shape == (8,)
    assert layer.fan_in == 9


def test_it_computes_what_keras_does_with_its_dormant_weights_at_zero():
    model, plain = _model(), keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
    layer = model.get_layer("depthwise")
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 4)).astype("float32")
    plain(x)
    plain.kernel.assign(layer.effective_kernel())
    plain.bias.assign(layer.bias)
    np.testing.assert_array_equal(layer(x), plain(x))


def test_growth_takes_the_connections_of_largest_gradient_by_differences():
    model = _model()
    layer, (x, y) = model.get_layer("depthwise"), _data()
    before, mask = layer.kernel.numpy(), layer.kernel_mask.numpy()
    gradient = np.zeros(mask.size)
    layer.kernel_mask.assign(np.ones_like(mask))
    for index in range(mask.size):
        losses = []
        for step in (1e-2, -1e-2):
            moved = before.copy().reshape(-1)
            moved[index] += step
            layer.kernel.assign(moved.reshape(mask.shape))
            losses.append(float(tf.reduce_mean((model(x) - y) ** 2)))
        gradient[index] = (losses[0] - losses[1]) / 2e-2
    layer.kernel.assign(before)
    layer.kernel_mask.assign(mask)
    found = keras_grow.growth_gradients(model, (x, y))[layer]
    np.testing.assert_allclose(np.reshape(found, -1), gradient, rtol=1e-2, atol=1e-4)
    record = keras_grow.grow(model, (x, y), count=5, layers=["depthwise"])
    best = np.argsort(np.where(mask.reshape(-1), -1, np.abs(np.reshape(found, -1))))[-5:]
    np.testing.assert_array_equal(record.layers[0].indices, np.sort(best))


def test_it_is_pruned_by_what_its_own_input_brings():
    model, (x, y) = _model(), _data()
    layer = model.get_layer("depthwise")
    inputs = keras.Model(model.inputs, model.get_layer("first").output)(x).numpy()
    rms = np.sqrt((inputs**2).mean(axis=(0, 1, 2)))
    score = np.abs(layer.effective_kernel().numpy()) * rms[:, None]
    score = np.where(layer.kernel_mask.numpy(), score, np.inf).reshape(-1)
    wanda = keras_grow.scores.ActivationMagnitude()
    assert wanda.statistics == (InputRMS(),)
    record = keras_grow.prune(model, count=6, layers=["depthwise"], score=wanda, data=(x, y))
    np.testing.assert_array_equal(record.layers[0].indices, np.sort(np.argsort(score)[:6]))


def test_it_is_saved_reported_and_trained(tmp_path):
    model, (x, y) = _model(), _data()
    callback = keras_grow.GrowthCallback((x, y), count=4)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[callback])
    layer = model.get_layer("depthwise")
    assert np.all(layer.kernel.numpy()[~layer.kernel_mask.numpy()] == 0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    row = keras_grow.report(model).layers[1]
    assert (row.name, row.connected_inputs, row.connected_units) == ("depthwise", 4, 8)


def test_its_channels_are_pruned_and_compacted_with_those_that_it_filters():
    model, (x, _) = _model(1.0), _data()
    group = keras_grow.groups(model)[0]
    assert str(group) == "4 units of 'first', through 'depthwise', read by 'last'"
    assert group.read_by[0].indices.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    keras_grow.prune_neurons(model, count=2, layers=["first"], data=(x,))
    expected = model(x)
    small = keras_grow.compact(model).model
    assert small.get_layer("depthwise").kernel_shape == (3, 3, 2, 2)
    np.testing.assert_allclose(small(x), expected, rtol=1e-5, atol=1e-6)
    wider = keras_grow.widen(model, "first", 6)
    assert wider.get_layer("depthwise").kernel_shape == (3, 3, 6, 2)
    np.testing.assert_allclose(wider(x), expected, rtol=1e-5, atol=1e-6)
