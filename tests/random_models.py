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
from keras_grow.layers import kernel_types
from keras_grow.layers.masked import ActiveConstraint

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
        elif kernel_types.kernels_of(layer):
            for name in kernel_types.kernels_of(layer):
                kernel = getattr(layer, name, None)
                if kernel is not None and not isinstance(kernel.constraint, ActiveConstraint):
                    values = kernel.numpy()
                    kernel.assign(np.where(random.random(values.shape) < density, values, 0))
        if isinstance(layer, PartialAreaConv2D):
            layer.area_mask.assign(random.random(layer.area_mask.shape) < 0.8)
        for name in ("bias", "beta", "moving_mean", "gamma", "scale"):
            variable = getattr(layer, name, None)
            if isinstance(variable, keras.Variable):
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


def _several_kernels(random, x):
    """A tensor made from `x` by a layer with several kernels, or one of another kind."""
    if len(x.shape) == 4:
        return _filtered(random, x)
    width, choice = int(random.integers(2, 6)), random.integers(8)
    if choice < 3:
        kind = [_layers.LSTM, _layers.GRU, _layers.SimpleRNN][choice]
        use_bias = bool(random.random() < 0.7)
        return _either(random, kind(width, return_sequences=True, use_bias=use_bias))(x)
    if choice == 3:
        inner = _layers.GRU(width, return_sequences=True)
        mode = str(random.choice(["concat", "sum"]))
        return _either(random, _layers.Bidirectional(inner, merge_mode=mode))(x)
    heads, size = int(random.integers(1, 4)), int(random.integers(1, 4))
    if choice == 4:
        keys = _kernel_layer(random, 4)(x)
        attention = _layers.MultiHeadAttention(heads, size, value_dim=width, output_shape=width)
        return _either(random, attention)(x, x, keys)
    if choice == 5:  # With a residual connection, behind a normalization.
        y = _layers.RMSNormalization(epsilon=0.1)(x)
        attention = _layers.GroupQueryAttention(size, 2 * heads, heads)
        return x + _either(random, attention)(y, y)
    if choice == 6:
        other = _kernel_layer(random, x.shape[-1])(x)
        return _layers.Concatenate(axis=int(random.choice([1, 2])))([x, other])
    shape = (x.shape[1], width)
    return _either(random, _layers.EinsumDense("btd,df->btf", shape, bias_axes="f"))(x)


def _filtered(random, x):
    width, choice = int(random.integers(1, 4)), random.integers(5)
    if choice == 0:
        groups = int(random.choice([n for n in (1, 2, 3, 4) if x.shape[-1] % n == 0]))
        layer = random.choice([_layers.Conv2D, GrowableConv2D])
        return layer(groups * width, 3, padding="same", groups=groups, activation="relu")(x)
    if choice == 1:
        separable = _layers.SeparableConv2D(
            width + 2, 3, padding="same", depth_multiplier=int(random.integers(1, 3))
        )
        return _either(random, separable)(x)
    if choice == 2:
        return _either(random, _layers.Conv2DTranspose(width + 2, 2, activation="tanh"))(x)
    if choice == 3:
        multiplier = int(random.integers(1, 3))
        return _either(random, _layers.DepthwiseConv2D(2, depth_multiplier=multiplier))(x)
    other = _layers.Conv2D(x.shape[-1], 1)(x)
    return _layers.Concatenate(axis=int(random.choice([1, 3])))([x, other])


def _either(random, layer):
    """A layer, or one that computes the same with growable kernels."""
    return layer if random.random() < 0.5 else keras_grow.GrowableKernels(layer)


def random_wired_model(seed):
    """The same, with recurrent layers, attention, embeddings, convolutions of all kinds."""
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    kind = seed % 3
    inputs = [keras.Input((6, 6, 3)), keras.Input((5, 6)), keras.Input((5,), dtype="int32")][kind]
    x = _either(random, _layers.Embedding(9, 6))(inputs) if kind == 2 else inputs
    for _ in range(int(random.integers(2, 6))):
        make = _several_kernels if random.random() < 0.7 else _random_block
        x = make(random, x)
    x = _layers.Flatten()(x) if random.random() < 0.5 else _pooled(x)
    x = GrowableDense(4, "relu")(x)
    return scramble(keras.Model(inputs, _layers.Dense(3)(x)), random)


def _pooled(x):
    is_image = len(x.shape) == 4
    return (_layers.GlobalAveragePooling2D if is_image else _layers.GlobalAveragePooling1D)()(x)


def inputs_of(model, count=16, seed=0):
    """Normal numbers for a model of one input."""
    shape = model.inputs[0].shape[1:]
    if "int" in model.inputs[0].dtype:
        return np.random.default_rng(seed).integers(0, 9, (count, *shape))
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")
