"""Convolutions whose units are split into groups that read input maps of their own."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import GrowableConv1D, GrowableConv2D, WeightNormConv2D
from keras_grow.policies.statistics import InputRMS

_PAIRS = [
    (keras.layers.Conv1D, GrowableConv1D, (7, 4)),
    (keras.layers.Conv2D, GrowableConv2D, (6, 5, 4)),
]


def _model(layer_class, density=1.0, **arguments):
    conv = layer_class(6, 3, groups=2, initial_density=density, seed=1, name="conv", **arguments)
    layers = [conv, keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6, 5, 4)), *layers])
    model.compile("sgd", "mse")
    return model


def _data(dtype="float32"):
    random = np.random.default_rng(0)
    shapes = (16, 6, 5, 4), (16, 2)
    return tuple(random.normal(size=shape).astype(dtype) for shape in shapes)


@pytest.mark.parametrize(("plain_class", "growable_class", "shape"), _PAIRS)
def test_training_is_that_of_keras_to_the_bit(plain_class, growable_class, shape):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, *shape)), random.normal(size=(8, 6))
    results = []
    for layer_class in (plain_class, growable_class):
        keras.utils.set_random_seed(3)
        conv = layer_class(6, 3, padding="same", groups=2)
        pool = getattr(keras.layers, f"GlobalAveragePooling{len(shape) - 1}D")()
        model = keras.Sequential([keras.Input(shape), conv, pool])
        model.compile("adam", "mse")
        model.fit(x, y, epochs=2, verbose=0, shuffle=False)
        results.append([variable.numpy().tobytes() for variable in model.trainable_variables])
    assert results[0] == results[1]


@pytest.mark.parametrize("layer_class", [GrowableConv2D, WeightNormConv2D])
def test_each_unit_starts_with_an_input_of_its_group(layer_class):
    layer = _model(layer_class, 0.2).get_layer("conv")
    assert (layer.kernel_shape, layer.fan_in) == ((3, 3, 2, 6), 18)
    assert (layer.axes.num_inputs, layer.axes.num_units) == (4, 6)
    mask = layer.kernel_mask.numpy()
    assert layer.num_active == mask.sum() == 22
    assert mask.any(axis=(0, 1, 2)).all()


def test_growth_gradients_are_the_differences_of_the_loss():
    model, (x, y) = _model(GrowableConv2D, 0.4, dtype="float64"), _data("float64")
    model.layers[-1].trainable = False
    layer = model.get_layer("conv")
    found = np.reshape(keras_grow.growth_gradients(model, (x, y))[layer], -1)
    mask, kernel = layer.kernel_mask.numpy(), layer.kernel.numpy()
    layer.kernel_mask.assign(np.ones_like(mask))
    for index in np.random.default_rng(0).choice(mask.size, 12, replace=False):
        losses = []
        for step in (1e-4, -1e-4):
            moved = kernel.copy().reshape(-1)
            moved[index] += step
            layer.kernel.assign(moved.reshape(mask.shape))
            losses.append(float(np.mean((model(x).numpy() - y) ** 2)))
        # The last layer computes in float32.
        assert found[index] == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=0.02, abs=2e-3)


def test_pruning_by_activation_takes_what_each_group_reads():
    model, (x, y) = _model(GrowableConv2D), _data()
    x = x * np.array([1.0, 2.0, 3.0, 4.0], "float32")
    layer = model.get_layer("conv")
    rms = np.sqrt((x**2).mean(axis=(0, 1, 2)))
    of_unit = np.stack([rms[:2]] * 3 + [rms[2:]] * 3, axis=1)
    score = np.abs(layer.kernel.numpy()) * of_unit
    wanda = keras_grow.scores.ActivationMagnitude()
    assert wanda.statistics == (InputRMS(),)
    record = keras_grow.prune(model, count=9, layers=["conv"], score=wanda, data=(x, y))
    expected = np.sort(np.argsort(score.reshape(-1))[:9])
    np.testing.assert_array_equal(record.layers[0].indices, expected)


def test_plain_ones_become_growable_and_plain_again():
    inputs = keras.Input((6, 5, 4))
    conv = keras.layers.Conv2D(6, 3, groups=2, activation="relu")
    outputs = keras.layers.GlobalAveragePooling2D()(conv(inputs))
    model = keras.Model(inputs, outputs)
    growable = keras_grow.make_growable(model)
    assert type(growable.layers[1]) is GrowableConv2D
    assert growable.layers[1].groups == 2
    keras_grow.prune(growable, density=0.3)
    x, _ = _data()
    plain = keras_grow.make_plain(growable)
    assert type(plain.layers[1]) is keras.layers.Conv2D
    np.testing.assert_array_equal(plain(x), growable(x))


def test_what_groups_do_not_have_is_refused_in_words():
    model, data = _model(GrowableConv2D, 0.5), _data()
    with pytest.raises(ValueError, match="see no rows in common.*'conv' with groups=2"):
        keras_grow.hebbian_gradients(model, data)
    with pytest.raises(ValueError, match="groups=3, inputs of shape .* for layer 'odd'"):
        GrowableConv2D(6, 3, groups=3, name="odd").build((None, 6, 5, 4))
    with pytest.raises(ValueError, match="mask for each pair of maps, which groups forbid"):
        keras_grow.areas.PartialAreaConv2D(6, 3, groups=2).build((None, 6, 5, 4))
    with pytest.raises(ValueError, match="above the 6 .* a multiple of 2 for its groups"):
        keras_grow.widen(model, "conv", 9)


def test_each_group_gets_as_many_new_maps():
    model, (x, _) = _model(GrowableConv2D, 0.5), _data()
    wider = keras_grow.widen(model, "conv", 10)
    (conv,) = [each for each in wider.layers if each.name == "conv"]
    assert conv.filters == 10
    np.testing.assert_allclose(wider(x), model(x), rtol=1e-5, atol=1e-6)
    mask = conv.kernel_mask.numpy().reshape(-1, 10).any(axis=0)
    assert mask.tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2
