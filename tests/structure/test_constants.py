"""Constant units go into the biases of what reads them, whatever kind of layer makes them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_grow
from keras_grow.neurons.units import Units
from keras_grow.structure.constants import Kernel

# A layer of 6 units, the axis of its kernel's units, and the shape that it is given.
_KINDS = {
    "dense": (lambda: layers.Dense(6, "relu", name="first"), -1, (8,)),
    "convolution": (lambda: layers.Conv2D(6, 2, activation="relu", name="first"), -1, (5, 5, 4)),
    "volumes": (lambda: layers.Conv3D(6, 2, activation="relu", name="first"), -1, (3, 3, 3, 2)),
    "transposed": (
        lambda: layers.Conv2DTranspose(6, 2, activation="relu", name="first"),
        -2,
        (3, 3, 2),
    ),
    "separable": (
        lambda: layers.SeparableConv1D(6, 2, activation="relu", name="first"),
        -1,
        (5, 3),
    ),
}


def _model(kind):
    make, axis, shape = _KINDS[kind]
    x = keras.Input(shape)
    y = first = make()
    y = first(x)
    if len(shape) > 1:
        y = layers.Reshape((-1, 6))(y)
        y = layers.GlobalAveragePooling1D()(y)
    model = keras.Model(x, layers.Dense(3, name="reader")(y))
    kernel = getattr(first, "pointwise_kernel", None)
    kernel = first.kernel if kernel is None else kernel
    values = np.moveaxis(kernel.numpy(), axis, 0)
    values[0] = 0
    kernel.assign(np.moveaxis(values, 0, axis))
    first.bias.assign([1.5, 0.1, -0.1, 0.2, 0.3, -0.3])
    return model, np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")


@pytest.mark.parametrize("growable", [False, True], ids=["plain", "growable"])
@pytest.mark.parametrize("kind", _KINDS)
def test_a_unit_that_reads_nothing_goes_with_what_it_brings(kind, growable):
    model, x = _model(kind)
    if growable:
        model = keras_grow.make_growable(model)
        (first,) = [group for group in keras_grow.groups(model) if Units(group).path == "first"]
        Units(first).cut_incoming(np.array([0]), None)
        biases = [v for v in model.get_layer("first").weights if v.name == "bias"]
        biases[0].assign([1.5, 0.1, -0.1, 0.2, 0.3, -0.3])
    expected = model(x).numpy()
    small = keras_grow.compact(model).model
    np.testing.assert_allclose(small(x), expected, rtol=1e-5, atol=1e-6)
    assert small.get_layer("first").output.shape[-1] == 5
    # All that it brought was its bias, behind the activation.
    brought = 1.5 * _kernel(model.get_layer("reader"))[0]
    bias = small.get_layer("reader").bias - model.get_layer("reader").bias
    np.testing.assert_allclose(bias, brought, rtol=1e-5)


def _kernel(layer):
    return (
        layer.effective_kernel().numpy() if hasattr(layer, "kernel_mask") else layer.kernel.numpy()
    )


def _dense(activation=None, use_bias=True):
    layer = layers.Dense(3, activation, use_bias=use_bias)
    layer.build((None, 4))
    kernel = np.array([[1, 0, 2], [0, 0, 3], [0, 0, -1], [4, 0, 0]], "float32")
    layer.kernel.assign(kernel)
    if use_bias:
        layer.bias.assign([0.5, -1, 2])
    return layer, Kernel(layer, layer)


def test_outputs_are_constant_where_all_that_feeds_them_is():
    nan = np.nan
    _, kernel = _dense("relu")
    # The first unit reads inputs 0 and 3, the last 0 to 2, the second none.
    for given, outputs in (
        ([2, 0, 0, 1], [6.5, 0, 6]),
        ([2, 5, 1, nan], [nan, 0, 20]),
        ([nan] * 4, [nan, 0, nan]),
    ):
        np.testing.assert_allclose(kernel.outputs_of(np.array(given, float)), outputs)
    _, kernel = _dense(use_bias=False)
    np.testing.assert_allclose(kernel.outputs_of(np.array([2, 0, 0, nan])), [nan, 0, 4])


def test_what_constants_add_is_their_product_with_the_kernel():
    layer, kernel = _dense()
    found = kernel.sums(np.array([1, 3]), np.array([2.0, -1.0]))
    np.testing.assert_allclose(found, np.array([0, 2, 0, -1]) @ layer.kernel.numpy())


def test_constants_are_absorbed_by_biases_where_all_calls_have_the_same():
    constants = [np.array([1, 0, 2, np.nan]), np.array([1, 0, 3, np.nan])]
    _, with_bias = _dense()
    _, without = _dense(use_bias=False)
    assert with_bias.can_absorb(constants).tolist() == [True, True, False, False]
    assert without.can_absorb(constants).tolist() == [False, True, False, False]
    assert with_bias.obstacle == "they differ from call to call"
    assert without.obstacle == "it has no biases to take them"
    negative = [np.array([-1.0, 0, 2, np.nan])]
    assert without.can_absorb(negative).tolist() == [False, True, False, False]


def test_padding_is_no_constant_but_zero():
    layer = layers.Conv1D(2, 3, padding="same")
    layer.build((None, 5, 2))
    kernel = Kernel(layer, layer)
    assert kernel.obstacle == "its padding is 0, not the constant"
    assert kernel.can_absorb([np.array([0.0, 1.0])]).tolist() == [True, False]
    assert np.isnan(kernel.outputs_of(np.array([0.0, 1.0]))).all()
    np.testing.assert_allclose(kernel.outputs_of(np.zeros(2)), layer.bias)


def test_weights_that_are_normalized_together_take_nothing():
    layer = keras_grow.WeightNormDense(2)
    layer.build((None, 2))
    kernel = Kernel(layer, layer, absorbs=False)
    assert kernel.obstacle == "their weights are normalized together with others"
    assert not kernel.can_absorb([np.zeros(2)]).any()
