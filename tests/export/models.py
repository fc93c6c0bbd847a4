"""Models that every format must export, with inputs for them and the names they go by."""

import keras
import numpy as np
from keras import layers

from keras_grow import (
    GrowableConv1D,
    GrowableConv2D,
    GrowableDense,
    SparseDense,
    WeightNormConv1D,
    WeightNormConv2D,
    WeightNormDense,
)


def stirred(model: keras.Model, seed: int = 0) -> keras.Model:
    """`model` with biases and batch statistics that a trained one could have."""
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(random.normal(size=shape))
            layer.beta.assign(random.normal(size=shape))
            layer.moving_mean.assign(random.normal(size=shape))
            layer.moving_variance.assign(random.uniform(0.5, 2, size=shape))
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(random.normal(size=layer.bias.shape))
    return model


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _sequential():
    model = keras.Sequential(
        [
            keras.Input((40,), name="features"),
            GrowableDense(64, "relu", initial_density=0.04, seed=0, name="sparse"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            WeightNormDense(64, "gelu", initial_density=0.2, seed=1, name="packed"),
            layers.Dense(5),
            GrowableDense(3, "softmax", name="classes"),
        ]
    )
    x = draw(40, 40)
    return model, x, {"features": x}, ["classes"]


def _convolutions():
    image = keras.Input((10, 12, 3), name="image")
    h = GrowableConv2D(16, 3, padding="same", initial_density=0.1, seed=1)(image)
    h = layers.ReLU()(layers.BatchNormalization()(h))
    residual = WeightNormConv2D(16, 3, padding="same", initial_density=0.2, seed=2)(h)
    h = layers.Add()([h, residual])
    other = GrowableConv2D(8, (3, 2), strides=2, dilation_rate=1, initial_density=0.3, seed=3)(h)
    means = layers.GlobalAveragePooling2D()(h)
    h = layers.Concatenate()([means, layers.GlobalMaxPooling2D()(other)])
    outputs = GrowableDense(5, "softmax", initial_density=0.2, seed=4, name="classes")(h)
    x = draw(40, 10, 12, 3)
    return keras.Model(image, outputs), x, {"image": x}, ["classes"]


def _steps():
    model = keras.Sequential(
        [
            keras.Input((9, 16), name="steps"),
            GrowableConv1D(32, 3, padding="causal", initial_density=0.1, seed=1),
            WeightNormConv1D(
                32, 3, dilation_rate=2, activation="relu", initial_density=0.1, seed=2
            ),
            GrowableDense(64, "tanh", initial_density=0.03, seed=3),
            layers.LayerNormalization(),
            layers.TimeDistributed(GrowableDense(16, "relu", initial_density=0.3, seed=4)),
            layers.GlobalAveragePooling1D(),
            GrowableDense(1, "sigmoid", initial_density=0.5, seed=5, name="chance"),
        ]
    )
    x = draw(40, 9, 16)
    return model, x, {"steps": x}, ["chance"]


def _branches():
    shared = GrowableDense(64, "tanh", name="shared", initial_density=0.04, seed=0)
    inner = keras.Sequential([keras.Input((64,)), WeightNormDense(50)], name="nest")
    x, z = keras.Input((64,), name="x"), keras.Input((64,), name="the z")
    h = layers.Add()([shared(shared(x)), z])
    model = keras.Model([z, x], [layers.Identity(name="b")(inner(h)), layers.Softmax(name="a")(h)])
    a, b = draw(40, 64), draw(40, 64, seed=1)
    return model, [a, b], {"the_z": a, "x": b}, ["b", "a"]


def _dictionaries():
    x, y = keras.Input((32,), name="x"), keras.Input((8,), name="y")
    outputs = {
        "wide": GrowableDense(32, initial_density=0.04, seed=1)(x),
        "narrow": GrowableDense(2, initial_density=0.5, seed=2)(y),
    }
    values = {"x": draw(40, 32), "y": draw(40, 8)}
    return keras.Model({"y": y, "x": x}, outputs), values, values, ["narrow", "wide"]


def _sparse():
    model = keras.Sequential(
        [
            keras.Input((100,), name="x"),
            SparseDense(200, "relu", initial_density=0.03, seed=1),
            SparseDense(3, "softmax", initial_density=0.5, seed=3, name="classes"),
        ]
    )
    x = draw(40, 100)
    return model, x, {"x": x}, ["classes"]


def _empty():
    model = keras.Sequential(
        [
            keras.Input((100,), name="x"),
            GrowableDense(120, "relu", initial_density=0.0, seed=1),
            GrowableDense(100, "relu", initial_density=0.001, seed=2),
            GrowableDense(3, "softmax", initial_density=0.0, seed=3, name="classes"),
        ]
    )
    x = draw(40, 100)
    return model, x, {"x": x}, ["classes"]


BUILDERS = [_sequential, _convolutions, _steps, _branches, _dictionaries, _sparse, _empty]


def build(builder):
    """A model; its inputs as it takes them, and by name; the names of its outputs, flattened."""
    model, *rest = builder()
    return stirred(model), *rest


class Subclassed(keras.Model):
    """A model that does not know its inputs."""

    def __init__(self):
        super().__init__()
        self.hidden = GrowableDense(4, "tanh", initial_density=0.5, seed=0)

    def call(self, x):
        return self.hidden(x)
