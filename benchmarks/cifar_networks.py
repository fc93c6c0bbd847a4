"""Two small networks for CIFAR-10 at any width, and what they cost."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from benchmarks.cifar_data import CLASSES, SIDE


def residual(widths: Sequence[int], inner: Sequence[int], blocks: int = 1) -> keras.Model:
    """ResNet-8, or -20 with three blocks a stage; of these widths and widths inside the blocks."""
    x = inputs = keras.Input((SIDE, SIDE, 3))
    x = _convolution(x, widths[0], 3, name="stem")
    for number, (width, narrow) in enumerate(zip(widths, inner, strict=True)):
        for block in range(blocks):
            name = f"block{number}" if block == 0 else f"block{number}_{block}"
            is_smaller = number > 0 and block == 0
            stride = 2 if is_smaller else 1
            y = _convolution(x, narrow, 3, stride, name=f"{name}_first")
            y = _convolution(y, width, 3, activation=None, name=f"{name}_second")
            if is_smaller:
                x = _convolution(x, width, 1, stride, activation=None, name=f"{name}_short")
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def mobile(widths: Sequence[int], inner: Sequence[int]) -> keras.Model:
    """Three inverted residual blocks as MobileNetV2's, the last two of stride 2."""
    x = inputs = keras.Input((SIDE, SIDE, 3))
    x = _convolution(x, widths[0], 3, name="stem")
    for number, (width, wide) in enumerate(zip(widths, inner, strict=True)):
        stride = 1 if number == 0 else 2
        y = _convolution(x, wide, 1, name=f"block{number}_wide")
        y = keras.layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(y)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(y))
        y = _convolution(y, width, 1, activation=None, name=f"block{number}_narrow")
        x = keras.layers.Add()([x, y]) if number == 0 else y
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def _convolution(
    x: Any,
    filters: int,
    window: int,
    stride: int = 1,
    activation: str | None = "relu",
    name: str = "",
) -> Any:
    x = keras.layers.Conv2D(
        filters, window, stride, "same", use_bias=False, name=name, kernel_initializer="he_normal"
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return x if activation is None else keras.layers.Activation(activation)(x)


NETWORKS: dict[str, tuple[Callable[..., keras.Model], tuple[int, ...], tuple[int, ...]]] = {
    "residual": (residual, (8, 16, 32), (8, 16, 32)),
    "mobile": (mobile, (8, 16, 32), (32, 48, 96)),
}


def flops(model: keras.Model) -> int:
    """2 for each weight at each position, of one image."""
    total = 0
    for layer in model.layers:
        kernel = getattr(getattr(layer, "layer", layer), "kernel", None)
        if kernel is not None:
            positions = math.prod(layer.output.shape[1:-1]) if len(kernel.shape) > 2 else 1
            total += 2 * math.prod(kernel.shape) * positions
    return total


def narrower(name: str, share: float) -> keras.Model:
    """The network, all of it alike narrower: as wide as a share of the FLOPs allows."""
    make, widths, inner = NETWORKS[name]
    whole = flops(make(widths, inner))
    for scale in np.arange(1.0, 0.0, -0.01):
        scaled = [[max(2, int(scale * n)) for n in each] for each in (widths, inner)]
        model = make(*scaled)
        if flops(model) <= share * whole:
            return model
    raise ValueError(f"No width is within a share of the FLOPs. Received: {share}")
