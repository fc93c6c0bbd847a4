"""A kernel inside another layer, seen as a layer of its own."""

import keras

import keras_grow
from keras_grow import GrowableKernels


def test_the_bias_of_a_kernel_is_that_which_is_added_to_what_it_alone_makes():
    def biases(layer, shape):
        x = keras.Input(shape)
        layer = keras.layers.RNN(layer) if hasattr(layer, "state_size") else layer
        model = keras.Model(x, GrowableKernels(layer)(x))
        return [kernel.bias for kernel in keras_grow.growable_layers(model)]

    layers = keras.layers
    for layer in (layers.EinsumDense("bd,df->bf", 4, bias_axes="f"), layers.SimpleRNNCell(3)):
        first, *others = biases(layer, (5,) if layer.name.startswith("einsum") else (4, 5))
        assert first is layer.bias
        assert others == [None] * len(others)
    assert biases(layers.EinsumDense("bd,df->bf", 4), (5,)) == [None]
    # One for both outputs of a unit.
    shared = layers.EinsumDense("btd,dgf->btgf", (None, 2, 4), bias_axes="f")
    assert biases(shared, (6, 5)) == [None]
