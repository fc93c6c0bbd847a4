"""Which layers of a model of one's own are masked where they stand, and that they stay the same."""

import keras
import numpy as np
from keras import layers

import keras_grow
from keras_grow.layers.in_place import (
    mask_in_place,
    maskable_layers,
    masked_in_place,
    unmask_in_place,
)


class _Block(layers.Layer):
    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


class _Model(keras.Model):
    def __init__(self, *inner):
        super().__init__()
        self.inner = list(inner)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


def _all_kinds():
    shared = layers.Dense(4, name="shared")
    model = _Model(
        layers.TimeDistributed(layers.Dense(4, name="of steps"), name="wrapper"),
        _Block([shared, layers.ReLU(), layers.LayerNormalization()], name="block"),
        keras.Sequential([shared, layers.Dense(4, name="nested")]),
        layers.MultiHeadAttention(2, 3, name="attention"),
        layers.GRU(3, name="gru"),
        layers.Bidirectional(layers.LSTM(3, name="lstm"), name="both"),
        layers.RNN(layers.SimpleRNNCell(3), name="of a cell"),
        keras_grow.GrowableDense(3, name="growable"),
        layers.Embedding(5, 2, name="words"),
    )
    return model


def test_layers_that_apply_kernels_are_found_as_a_whole_each_once():
    model, x = _all_kinds(), np.ones((2, 5, 4), "float32")
    for layer in model.inner:
        if isinstance(layer, layers.Embedding):
            layer(np.ones((2, 5), int))
        else:
            layer(*([x, x] if isinstance(layer, layers.MultiHeadAttention) else [x]))
    found = [layer.name for layer in maskable_layers(model)]
    assert found == [
        "of steps",
        "shared",
        "nested",
        "attention",
        "gru",
        "both",
        "of a cell",
        "words",
    ]
    assert next(maskable_layers(model.inner[4])) is model.inner[4]
    assert list(maskable_layers(layers.ReLU())) == []


def test_a_layer_stays_the_object_and_the_function_it_is():
    layer = layers.GRU(3)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    expected = np.asarray(layer(x))
    variables = list(layer.variables)
    kernels = mask_in_place(layer)
    assert masked_in_place(layer) == kernels
    assert len(kernels) == 2
    assert list(layer.trainable_variables) == variables[:3]
    np.testing.assert_array_equal(layer(x), expected)
    assert list(maskable_layers(layer)) == [layer]
    for kernel in kernels:
        kernel.prune_connections(np.arange(5))
        assert kernel.num_active == kernel.num_connections - 5
    pruned = np.asarray(layer(x))
    assert np.any(pruned != expected)
    unmask_in_place(layer)
    assert masked_in_place(layer) == []
    assert "call" not in vars(layer)
    np.testing.assert_array_equal(layer(x), pruned)
    assert [np.count_nonzero(v == 0) >= 5 for v in variables[:2]] == [True, True]
