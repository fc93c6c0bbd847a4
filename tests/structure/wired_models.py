"""Small models of layers with several kernels, one for each way of wiring, and what they take."""

import keras
import numpy as np
from keras import layers

import keras_grow
from keras_grow.layers.paths import nested_layers


def _sequence():
    return keras.Input((6, 8))


def _image():
    return keras.Input((7, 7, 6))


def lstm():
    x = _sequence()
    y = layers.LSTM(7, return_sequences=True, name="first")(x)
    return keras.Model(x, layers.Dense(3)(layers.LSTM(5, name="second")(y)))


def gru():
    x = _sequence()
    y = layers.GRU(7, return_sequences=True, name="first")(layers.Dense(9, "relu")(x))
    return keras.Model(x, layers.Dense(3)(layers.GRU(5, reset_after=False, name="second")(y)))


def simple_rnn():
    x = _sequence()
    y = layers.SimpleRNN(7, use_bias=False, name="first")(layers.Dense(9, "relu")(x))
    return keras.Model(x, layers.Dense(3)(y))


def states():
    """A decoder that starts from the states of an encoder, whose units are therefore its own."""
    x, y = _sequence(), keras.Input((4, 5))
    _, *state = layers.LSTM(7, return_state=True, name="encoder")(x)
    z = layers.LSTM(7, return_sequences=True, name="decoder")(y, initial_state=state)
    return keras.Model([x, y], layers.Dense(3)(z))


def bidirectional():
    x = _sequence()
    y = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="first")(x)
    y = layers.Bidirectional(layers.GRU(5), merge_mode="sum", name="second")(y)
    return keras.Model(x, layers.Dense(3)(y))


def attention():
    x = _sequence()
    y = layers.Dense(9, "relu", name="before")(x)
    y = layers.MultiHeadAttention(4, 3, value_dim=5, output_shape=7, name="attention")(y, x, y)
    return keras.Model(x, layers.Dense(3)(y))


def gated_attention():
    x = _sequence()
    y = layers.MultiHeadAttention(4, 3, use_gate=True, name="attention")(x, x)
    return keras.Model(x, layers.Dense(3)(y))


def grouped_query_attention():
    x = _sequence()
    y = layers.Dense(8, "relu", name="before")(x)
    z = layers.Dense(8, "relu", name="beside")(x)
    y = layers.GroupQueryAttention(4, 6, 3, name="attention")(y, z, use_causal_mask=True)
    return keras.Model(x, layers.Dense(3)(y))


def transformer():
    """Its residual stream is of tied units, and its normalization a root mean square."""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(tokens)
    y = layers.RMSNormalization(epsilon=0.1)(x)
    x = x + layers.MultiHeadAttention(2, 4, name="attention")(y, y, use_causal_mask=True)
    y = layers.RMSNormalization()(x)
    x = x + layers.Dense(8, name="narrow")(layers.Dense(11, "gelu", name="wide")(y))
    return keras.Model(tokens, layers.Dense(3)(layers.RMSNormalization()(x)))


def tied_embedding():
    tokens = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(20, 8, name="words")
    x = table(tokens)
    x = layers.Dense(8, name="hidden")(layers.ReLU()(x)) + x
    return keras.Model(tokens, table(x, reverse=True))


def untied_embedding():
    tokens = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(20, 8, tie_weights=False, name="words")
    return keras.Model(tokens, table(layers.ReLU()(table(tokens)), reverse=True))


def einsum():
    x = _sequence()
    y = layers.EinsumDense("btd,df->btf", (None, 9), "relu", "f", name="first")(x)
    y = layers.EinsumDense("btd,def->btef", (None, 2, 5), bias_axes="ef", name="second")(y)
    return keras.Model(x, layers.Dense(3)(y))


def grouped():
    """Two wide groups shrink alike; of six small ones, whole ones go."""
    x = _image()
    y = layers.Conv2D(8, 3, activation="relu", name="before")(x)
    y = layers.Conv2D(12, 3, padding="same", groups=2, activation="relu", name="wide")(y)
    y = layers.Conv2D(12, 1, groups=6, name="small")(y)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def separable():
    x = _image()
    left, right = (layers.Conv2D(n, 3, activation="relu", name=f"map{n}")(x) for n in (4, 5))
    y = layers.Concatenate()([left, right])
    y = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="separable")(y)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def transposed():
    x = _image()
    y = layers.Conv2DTranspose(9, 3, strides=2, activation="relu", name="first")(x)
    y = layers.Conv2DTranspose(5, 2, padding="same", name="second")(y)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def volumes():
    """What has no growable layer of its own: wrapped, it is followed like what it wraps."""
    x = keras.Input((4, 5, 5, 2))
    y = layers.Conv3D(6, 2, padding="same", activation="relu", name="first")(x)
    y = layers.Conv3D(8, 2, groups=2, activation="relu", name="second")(y)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling3D()(y)))


def scales():
    """Heads of several scales, laid along another axis than that of units."""
    x = _sequence()
    y = layers.Dense(7, name="one")(x), layers.Dense(7, name="other")(layers.Dense(5)(x))
    return keras.Model(x, layers.Dense(3)(layers.Concatenate(axis=1)(y)))


MAKERS = {
    each.__name__: each
    for each in (
        lstm,
        gru,
        simple_rnn,
        states,
        bidirectional,
        attention,
        grouped_query_attention,
        transformer,
        einsum,
        grouped,
        separable,
        transposed,
        volumes,
        scales,
    )
}
if hasattr(layers, "ReversibleEmbedding"):
    MAKERS |= {"tied_embedding": tied_embedding, "untied_embedding": untied_embedding}
if "use_gate" in layers.MultiHeadAttention.__init__.__code__.co_varnames:
    MAKERS["gated_attention"] = gated_attention


def made(name, growable=False):
    """The model, with numbers in all its weights that nothing starts with."""
    keras.utils.set_random_seed(0)
    model = stirred(MAKERS[name]())
    return keras_grow.make_growable(model) if growable else model


def stirred(model, seed=1):
    """Random weights, biases and statistics."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name in ("gamma", "scale", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif "float" in variable.dtype:
            variable.assign(random.normal(0, 0.4, variable.shape))
    return model


def inputs_of(model, count=5, seed=2):
    """Numbers, or words, for each of the model's inputs."""
    random = np.random.default_rng(seed)
    found = [
        random.integers(1, 20, (count, *x.shape[1:]))
        if "int" in x.dtype
        else random.normal(size=(count, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    return found if len(found) > 1 else found[0]


def layer_called(model, name):
    """The layer of that name, or what is inside the wrapper of that name."""
    (layer,) = [each for each in nested_layers(model) if each.name == name]
    return getattr(layer, "layer", layer)
