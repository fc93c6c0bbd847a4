"""Random models of what compaction and exports follow, and of what they must leave alone."""

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from keras_grow import (
    GrowableConv2D,
    GrowableDense,
    SparseDense,
    WeightNormConv2D,
    WeightNormDense,
)
from keras_grow.areas import PartialAreaConv2D

_layers = keras.layers
DENSITIES = (0.0, 0.3, 0.5, 0.7, 0.9)


def difference(outputs, expected):
    """The largest max|a - b| / max|b| of two models' outputs."""
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True)
    return max(float(tf.reduce_max(abs(a - b)) / (tf.reduce_max(abs(b)) + 1e-30)) for a, b in pairs)


def scramble(model, random, densities=DENSITIES):
    """Random masks, down to empty ones, and random biases and statistics, a third of them 0."""
    for layer in keras_grow.layers.paths.nested_layers(model):
        if isinstance(layer, keras.Model):
            continue
        density = random.choice(densities)
        if isinstance(layer, keras_grow.Growable):
            indices, _ = layer.active_connections()
            layer.prune_connections(indices[random.random(len(indices)) >= density])
        elif isinstance(layer, (_layers.Dense, _layers.Conv2D)):
            kernel = layer.kernel.numpy()
            layer.kernel.assign(np.where(random.random(kernel.shape) < density, kernel, 0))
        if isinstance(layer, PartialAreaConv2D):
            layer.area_mask.assign(random.random(layer.area_mask.shape) < 0.8)
        for name in ("bias", "beta", "moving_mean", "gamma"):
            variable = getattr(layer, name, None)
            if variable is not None and not callable(variable):
                values = random.normal(size=variable.shape)
                variable.assign(np.where(random.random(variable.shape) < 0.3, 0, values))
    return model


def _kernel_layer(random, units):
    kind = random.integers(4)
    activation = random.choice(["relu", "tanh", "linear", "sigmoid"])
    use_bias = bool(random.random() < 0.8)
    if kind == 0:
        return WeightNormDense(units, activation, use_bias)
    if kind == 1:
        return SparseDense(units, activation, use_bias, initial_density=0.7, capacity=0.9)
    if kind == 2:
        return _layers.Dense(units, activation, use_bias)
    return GrowableDense(units, activation, use_bias)


def _convolution(random, filters):
    options = {
        "padding": str(random.choice(["valid", "same"])),
        "activation": str(random.choice(["relu", "tanh", "linear"])),
        "use_bias": bool(random.random() < 0.8),
    }
    kinds = [GrowableConv2D, GrowableConv2D, WeightNormConv2D, _layers.Conv2D, PartialAreaConv2D]
    return kinds[random.integers(len(kinds))](filters, 3, **options)


def _random_block(random, x, depth=0):
    """A tensor made from `x` by what compaction follows, or by what it does not."""
    width = int(random.integers(3, 7))
    is_image = len(x.shape) == 4
    make = _convolution if is_image and min(x.shape[1:3]) > 3 else _kernel_layer
    choice = random.integers(12)
    if choice == 0:
        return _layers.BatchNormalization(scale=bool(random.random() < 0.7))(x)
    if choice == 1:
        return _layers.Activation(str(random.choice(["relu", "tanh"])))(_layers.Dropout(0.5)(x))
    if choice == 2:  # A residual branch.
        branch = make(random, x.shape[-1])
        if isinstance(branch, _layers.Layer) and hasattr(branch, "padding"):
            branch = type(branch).from_config({**branch.get_config(), "padding": "same"})
        y = branch(x)
        merge = random.choice([0, 1, 2])
        return x + y if merge == 0 else [_layers.Add(), _layers.Multiply()][merge - 1]([x, y])
    if choice == 3:
        options = {"padding": "same"} if make is _convolution else {}
        first, second = make(random, width), make(random, 3)
        pair = [
            type(layer).from_config({**layer.get_config(), **options}) for layer in (first, second)
        ]
        return _layers.Concatenate()([layer(x) for layer in pair])
    if choice == 4:  # A shared layer, called on two tensors of the same width.
        shared = _kernel_layer(random, x.shape[-1])
        return _layers.Average()([shared(x), shared(shared(x))])
    if choice == 5 and depth == 0:
        inner = keras.Input(x.shape[1:])
        nested = keras.Model(inner, _random_block(random, inner, 1))
        return nested(x)
    if choice == 6 and is_image:
        kind = random.integers(3)
        if kind == 0:
            return _layers.ZeroPadding2D(1)(x)
        if kind == 1:
            return _layers.UpSampling2D(2)(x)
        return _layers.MaxPooling2D(2, padding="same")(x)
    if choice == 7:
        return _layers.LayerNormalization()(x)
    return make(random, width)(x)


def random_model(seed):
    """A model of a random graph with random masks, some of them empty; `seed` says which."""
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 2) if seed % 2 else (5,))
    x = inputs
    for _ in range(int(random.integers(3, 7))):
        x = _random_block(random, x)
    if seed % 2:
        x = (_layers.Flatten() if random.random() < 0.6 else _layers.GlobalAveragePooling2D())(x)
    x = _kernel_layer(random, 5)(x)
    outputs = [GrowableDense(3, "softmax")(x)]
    if random.random() < 0.3:
        outputs.append(_layers.Dense(2)(x))
    return scramble(keras.Model(inputs, outputs), random)


def inputs_of(model, count=16, seed=0):
    """Normal numbers for a model of one input."""
    shape = model.inputs[0].shape[1:]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")
