"""Kernels that stand in other layers are exported as those of growable layers are."""

import keras
import pytest
from keras import layers

import keras_grow
from tests.quick import among

_FORMATS = {
    "SavedModel": keras_grow.export_saved_model,
    "LiteRT": keras_grow.export_litert,
    "ONNX": keras_grow.export_onnx,
}


class _Positions(keras.Layer):
    """It keeps a tensor, as layers that number positions do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(6, 8)

    def build(self, shape):
        self.table.build((1, 6))
        self.numbers = keras.ops.expand_dims(keras.ops.arange(6), axis=0)

    def call(self, x):
        return x + self.table(self.numbers)


def _attention():
    x = _Positions()(inputs := keras.Input((6, 8)))
    x = x + layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), activation="gelu")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def _recurrent():
    inputs = keras.Input((6, 8))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, unroll=True))(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.GRU(4, unroll=True)(x)))


def _convolutions():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, groups=2, padding="same", activation="relu")(inputs)
    x = layers.SeparableConv2D(6, 3, strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(layers.DepthwiseConv2D(3)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


_MODELS = {"attention": _attention, "recurrent": _recurrent, "convolutions": _convolutions}


@pytest.mark.parametrize("export", _FORMATS.values(), ids=_FORMATS)
@pytest.mark.parametrize("make", among(_MODELS, quick=("attention",)))
def test_the_file_computes_what_the_grown_model_does(make, export, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_grow.make_growable(make(), initial_density=0.4, seed=1)
    record = export(model, tmp_path / "grown")
    assert record.error <= record.tolerance
    assert set(record.storages) == {row.name for row in keras_grow.report(model).layers}


def test_a_saved_model_holds_active_connections_only(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 64))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(128)(inputs)))
    growable = keras_grow.make_growable(model, initial_density=0.02, seed=1)
    sizes = [
        keras_grow.export_saved_model(each, tmp_path / "served").num_bytes
        for each in (growable, keras_grow.make_growable(model))
    ]
    # The weights of 98,304 connections, without those that are dormant.
    assert sizes[1] - sizes[0] > 0.9 * 4 * 98_304
