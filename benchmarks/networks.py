"""The networks whose channels are pruned: published ones, and small ones as people build them.

Each is a function of a size, the edge of an image or the length of a text, and returns a model with
random weights and a function that makes a batch of what it takes.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

Made = tuple[keras.Model, Callable[[int], np.ndarray]]
WORDS = 8192


@keras.saving.register_keras_serializable(package="benchmarks")
class Positions(layers.Layer):
    """Adds to each place of a sequence waves of its own, after Vaswani et al., arXiv:1706.03762."""

    def build(self, input_shape):
        _, length, width = input_shape
        waves = np.arange(length)[:, None] / 10000 ** (np.arange(width // 2) * 2 / width)
        self.table = np.concatenate([np.sin(waves), np.cos(waves)], axis=1).astype("float32")
        self.built = True

    def call(self, inputs):
        return inputs + self.table


def _images(size: int) -> Callable[[int], np.ndarray]:
    def batch(count: int) -> np.ndarray:
        random = np.random.default_rng(count)
        return random.normal(size=(count, size, size, 3)).astype("float32")

    return batch


def application(name: str, size: int) -> Made:
    """A network of keras.applications."""
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    return model, _images(size)


def _convolution(x, filters: int, size: int = 3, strides: int = 1, activation: str = "relu"):
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def u_net(size: int) -> Made:
    """Four scales of two convolutions down and up, of 32 to 256 maps; a mask of one map.

    After Ronneberger, Fischer, Brox, "U-Net", arXiv:1505.04597, padded and with BatchNormalization.
    """
    x = images = keras.Input((size, size, 3))
    skips = []
    for filters in (32, 64, 128):
        x = _convolution(_convolution(x, filters), filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = _convolution(_convolution(x, 256), 256)
    for skip in reversed(skips):
        filters = skip.shape[-1]
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = layers.Concatenate()([x, skip])
        x = _convolution(_convolution(x, filters), filters)
    return keras.Model(images, layers.Conv2D(1, 1)(x)), _images(size)


def detector(size: int) -> Made:
    """A one-stage detector: residual stages, a pyramid of three scales, boxes of 20 classes.

    It has the shape of the smallest YOLO networks, without being one of them.
    """
    x = images = keras.Input((size, size, 3))
    x = _convolution(x, 16, strides=2, activation="silu")
    scales = []
    for filters in (32, 64, 128, 256):
        x = _convolution(x, filters, strides=2, activation="silu")
        y = _convolution(x, filters // 2, 1, activation="silu")
        x = layers.Add()([x, _convolution(y, filters, activation="silu")])
        scales.append(x)
    low, middle, high = scales[1:]
    for_middle = layers.UpSampling2D()(_convolution(high, 128, 1, activation="silu"))
    middle = _convolution(layers.Concatenate()([middle, for_middle]), 128, activation="silu")
    for_low = layers.UpSampling2D()(_convolution(middle, 64, 1, activation="silu"))
    low = _convolution(layers.Concatenate()([low, for_low]), 64, activation="silu")
    answers = []
    for scale in (low, middle, high):
        boxes = layers.Conv2D(4 + 1 + 20, 1)(_convolution(scale, 64, activation="silu"))
        answers.append(layers.Reshape((-1, 4 + 1 + 20))(boxes))
    return keras.Model(images, layers.Concatenate(axis=1)(answers)), _images(size)


def _block(x, width: int, heads: int):
    """One layer of a transformer that normalizes what its parts read."""
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
    y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x))
    return layers.Add()([x, layers.Dense(width)(y)])


def vision_transformer(size: int) -> Made:
    """Patches of 16 x 16, twelve layers of width 192 with three heads, their mean classified.

    After Touvron et al., arXiv:2012.12877 (DeiT-Ti), without its tokens for a class.
    """
    images = keras.Input((size, size, 3))
    x = layers.Conv2D(192, 16, strides=16)(images)
    x = Positions()(layers.Reshape(((size // 16) ** 2, 192))(x))
    for _ in range(12):
        x = _block(x, 192, 3)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(images, layers.Dense(1000)(x)), _images(size)


def text_transformer(size: int) -> Made:
    """A text of `size` of 8192 words, four layers of width 256 with four heads, two classes."""
    tokens = keras.Input((size,), dtype="int32")
    x = Positions()(layers.Embedding(WORDS, 256)(tokens))
    for _ in range(4):
        x = _block(x, 256, 4)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))

    def batch(count: int) -> np.ndarray:
        random = np.random.default_rng(count)
        return random.integers(1, WORDS, size=(count, size), dtype="int32")

    return keras.Model(tokens, layers.Dense(2)(x)), batch


NETWORKS: dict[str, tuple[Callable[[int], Made], int, int]] = {
    "MobileNetV2": (functools.partial(application, "MobileNetV2"), 224, 32),
    "ResNet50": (functools.partial(application, "ResNet50"), 224, 32),
    "U-Net": (u_net, 128, 16),
    "detector": (detector, 256, 32),
    "vision transformer": (vision_transformer, 224, 32),
    "text transformer": (text_transformer, 128, 16),
}
"""By name the function, the size that is measured, and that of a quick run."""
