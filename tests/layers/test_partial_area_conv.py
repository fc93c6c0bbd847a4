import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableConv2D, growth_gradients, report
from keras_grow.areas import PartialAreaConv2D


def _layers(seed=0, **arguments):
    """A convolution and its partial-area twin with the same weights, and 4 images for them."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(4, 7, 6, 2)).astype("float32")
    arguments = {"initial_density": 0.5, "seed": 3, **arguments}
    whole, partial = (c(3, 3, **arguments) for c in (GrowableConv2D, PartialAreaConv2D))
    whole.build(x.shape)
    partial.build(x.shape)
    for variable, other in zip(partial.trainable_variables, whole.trainable_variables):
        other.assign(random.normal(size=other.shape) * (other.numpy() != 0))
        variable.assign(other)
    return whole, partial, x


def _by_hand(layer, x):
    """The definition, pair by pair and position by position."""
    kernel, area = layer.effective_kernel().numpy(), layer.area_mask.numpy()
    height, width, channels, filters = area.shape
    outputs = np.zeros((len(x), height, width, filters))
    for p in range(height):
        for q in range(width):
            patch = x[:, p : p + 3, q : q + 3]
            for c in range(channels):
                for o in range(filters):
                    if area[p, q, c, o]:
                        outputs[:, p, q, o] += np.sum(patch[..., c] * kernel[:, :, c, o], (1, 2))
    return outputs + layer.bias.numpy()


def _leave_out(layer, share=0.6, seed=1):
    area = np.random.default_rng(seed).random(layer.area_mask.shape) > share
    layer.area_mask.assign(area)
    return area


@pytest.mark.parametrize(
    "arguments",
    [{}, {"padding": "same"}, {"strides": 2}, {"dilation_rate": 2, "padding": "same"}],
    ids=str,
)
def test_with_the_whole_area_it_is_the_convolution(arguments):
    whole, partial, x = _layers(**arguments)
    np.testing.assert_allclose(partial(x), whole(x), rtol=0, atol=1e-5)


def test_each_pair_of_maps_is_computed_in_its_area_only():
    _, partial, x = _layers()
    _leave_out(partial)
    np.testing.assert_allclose(partial(x), _by_hand(partial, x), rtol=0, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    _, partial, x = _layers(dtype="float64")
    _leave_out(partial)
    target = np.random.default_rng(2).normal(size=partial(x).shape)

    def loss():
        return tf.reduce_mean((partial(x) - target) ** 2)

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, partial.kernel.value).numpy()
    active = np.argwhere(partial.kernel_mask.numpy())
    kernel = partial.kernel.numpy()
    for place in active[::5]:
        steps = []
        for step in (1e-6, -1e-6):
            moved = kernel.copy()
            moved[tuple(place)] += step
            partial.kernel.assign(moved)
            steps.append(float(loss()))
        partial.kernel.assign(kernel)
        np.testing.assert_allclose(gradient[tuple(place)], (steps[0] - steps[1]) / 2e-6, rtol=1e-5)


def test_a_nan_where_nothing_is_computed_reaches_nothing():
    _, partial, x = _layers()
    area = np.ones(partial.area_mask.shape, bool)
    area[:, :, 1] = False  # The second input map is used nowhere.
    partial.area_mask.assign(area)
    expected = partial(x).numpy()
    kernel = np.where(np.arange(2)[:, None] == 1, np.nan, partial.kernel.numpy())
    partial.kernel.assign(kernel.astype("float32"))
    np.testing.assert_array_equal(partial(x), expected)


def test_flops_are_counted_weight_by_weight():
    _, partial, x = _layers()
    model = keras.Sequential([keras.Input(x.shape[1:]), partial])
    area, mask = _leave_out(partial), partial.kernel_mask.numpy()
    counted = sum(
        2 * mask[i, j, c, o] * area[p, q, c, o]
        for p, q, c, o in np.ndindex(area.shape)
        for i, j in np.ndindex(3, 3)
    )
    assert report(model).flops == counted
    # Of ones, every input counts in full.
    np.testing.assert_allclose(report(model, (np.ones_like(x),)).scaled_flops, counted)


def test_growth_sees_the_area():
    _, partial, x = _layers(dtype="float64")
    model = keras.Sequential([keras.Input(x.shape[1:]), partial])
    target = np.random.default_rng(2).normal(size=model(x).shape)
    model.compile("sgd", "mse")
    partial.area_mask.assign(np.zeros(partial.area_mask.shape, bool))
    (gradient,) = growth_gradients(model, (x, target)).values()
    assert not gradient.numpy().any()
    partial.area_mask.assign(np.ones(partial.area_mask.shape, bool))
    (gradient,) = growth_gradients(model, (x, target)).values()
    assert gradient.numpy().all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_trains_saves_and_loads(jit_compile, tmp_path):
    _, partial, x = _layers()
    _leave_out(partial)
    model = keras.Sequential([keras.Input(x.shape[1:]), partial, keras.layers.Flatten()])
    model.compile("adam", "mse", jit_compile=jit_compile)
    y = np.zeros(model(x).shape)
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded.layers[0].area_mask, partial.area_mask)


def test_inputs_of_unknown_size_are_refused_in_words():
    with pytest.raises(ValueError, match="must know them. Received: inputs of shape"):
        PartialAreaConv2D(3, 3).build((None, None, 6, 2))
