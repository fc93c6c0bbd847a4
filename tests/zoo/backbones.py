"""Networks as they are published, and as people build them, each with inputs it takes.

Each function makes a model and a few samples. Those of keras_hub are there where it is installed.
"""

import functools
import importlib.util

import keras
import numpy as np
from keras import layers

APPLICATION_CLASSES = {
    "ConvNeXt": "ConvNeXtTiny",
    "DenseNet": "DenseNet121",
    "EfficientNet": "EfficientNetB0",
    "EfficientNetV2": "EfficientNetV2B0",
    "InceptionResNetV2": "InceptionResNetV2",
    "InceptionV3": "InceptionV3",
    "MobileNet": "MobileNet",
    "MobileNetV2": "MobileNetV2",
    "MobileNetV3": "MobileNetV3Small",
    "NASNet": "NASNetMobile",
    "ResNet": "ResNet50",
    "ResNetV2": "ResNet50V2",
    "VGG": "VGG16",
    "Xception": "Xception",
}
_LARGE_IMAGES = ("InceptionResNetV2", "InceptionV3", "Xception")


def _floats(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def _tokens(high, *shape):
    return np.random.default_rng(2).integers(1, high, size=shape, dtype="int32")


def _application(name):
    size = 75 if name in _LARGE_IMAGES else 32
    make = getattr(keras.applications, APPLICATION_CLASSES[name])
    model = make(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    return model, _floats(4, size, size, 3)


def text_transformer():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(500, 32, mask_zero=True)(tokens)
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 8)(x, x)
        x = layers.LayerNormalization()(x + attended)
        x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, "gelu")(x)))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(2, "softmax")(x)), _tokens(500, 4, 12)


def lstm_classifier():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.LSTM(32)(layers.Embedding(500, 32, mask_zero=True)(tokens))
    return keras.Model(tokens, layers.Dense(2, "softmax")(x)), _tokens(500, 4, 12)


def bidirectional_tagger():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(500, 32)(tokens)
    for _ in range(2):
        x = layers.Bidirectional(layers.GRU(16, return_sequences=True))(x)
    return keras.Model(tokens, layers.TimeDistributed(layers.Dense(5))(x)), _tokens(500, 4, 12)


def recommender():
    towers, inputs = [], []
    for name, count in (("user", 300), ("item", 200)):
        inputs.append(keras.Input((1,), dtype="int32", name=name))
        x = layers.Flatten()(layers.Embedding(count, 16, name=f"{name}s")(inputs[-1]))
        towers.append(layers.Dense(8)(layers.Dense(16, "relu")(x)))
    samples = {"user": _tokens(300, 4, 1), "item": _tokens(200, 4, 1)}
    outputs = layers.Dot(axes=-1, normalize=True)(towers)
    return keras.Model({each.name: each for each in inputs}, outputs), samples


def convolutional_autoencoder():
    x = images = keras.Input((16, 16, 3))
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    for filters in (8, 3):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same")(x)
    return keras.Model(images, x), _floats(4, 16, 16, 3)


def u_net():
    x = images = keras.Input((16, 16, 3))
    skips = []
    for filters in (8, 16):
        x = layers.SeparableConv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    for skip in reversed(skips):
        x = layers.Conv2DTranspose(skip.shape[-1], 2, strides=2)(x)
        x = layers.Concatenate()([x, skip])
        x = layers.Conv2D(skip.shape[-1], 3, padding="same", activation="relu")(x)
    return keras.Model(images, layers.Conv2D(1, 1, activation="sigmoid")(x)), _floats(4, 16, 16, 3)


def detector():
    x = images = keras.Input((32, 32, 3))
    scales = []
    for filters in (8, 16, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.Activation("silu")(layers.BatchNormalization()(x))
        x = x + layers.DepthwiseConv2D(3, padding="same")(x)
        scales.append(x)
    head = layers.Conv2D(6, 1, name="head")
    narrow = [layers.Conv2D(8, 1)(scale) for scale in scales]
    outputs = [layers.Reshape((-1, 6))(head(each)) for each in narrow]
    return keras.Model(images, layers.Concatenate(axis=1)(outputs)), _floats(2, 32, 32, 3)


def wavenet():
    x = sounds = keras.Input((32, 1))
    x = layers.Conv1D(8, 2, padding="causal")(x)
    skips = []
    for dilation in (1, 2, 4):
        gates = [
            layers.Conv1D(8, 2, dilation_rate=dilation, padding="causal", activation=activation)(x)
            for activation in ("tanh", "sigmoid")
        ]
        skips.append(layers.Conv1D(8, 1)(gates[0] * gates[1]))
        x = x + skips[-1]
    return keras.Model(sounds, layers.Conv1D(16, 1)(layers.Add()(skips))), _floats(4, 32, 1)


def video():
    frames = keras.Input((4, 8, 8, 2))
    x = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)(frames)
    x = layers.Conv3D(4, 2, activation="relu")(x)
    x = layers.Conv3DTranspose(2, 2)(x)
    x = layers.GlobalAveragePooling3D()(x)
    return keras.Model(frames, layers.Dense(3)(x)), _floats(2, 4, 8, 8, 2)


def tabular():
    space = keras.utils.FeatureSpace(
        {"age": "float_normalized", "kind": "string_categorical", "place": "integer_categorical"},
        crosses=[("kind", "place")],
        crossing_dim=8,
        output_mode="concat",
    )
    random = np.random.default_rng(3)
    table = {
        "age": random.normal(40, 12, size=(32, 1)).astype("float32"),
        "kind": random.choice(["red", "green", "blue"], size=(32, 1)),
        "place": random.integers(1, 4, size=(32, 1)),
    }
    import tensorflow as tf

    space.adapt(tf.data.Dataset.from_tensor_slices({k: v[:, 0] for k, v in table.items()}))
    encoded = space.get_encoded_features()
    outputs = layers.Dense(1)(layers.Dense(16, "relu")(encoded))
    model = keras.Model(encoded, outputs)
    return model, np.asarray(space({name: column[:, 0] for name, column in table.items()}))


def _hub(name, inputs, **arguments):
    import keras_hub

    return getattr(keras_hub.models, name)(**arguments), inputs()


def _text():
    return {"token_ids": _tokens(100, 2, 8), "padding_mask": np.ones((2, 8), "int32")}


_ENCODER = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
_DECODER = {
    **{name: value for name, value in _ENCODER.items() if name != "num_heads"},
    "vocabulary_size": 100,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
}
_HUB = {
    "BERT": functools.partial(
        _hub,
        "BertBackbone",
        lambda: {**_text(), "segment_ids": np.zeros((2, 8), "int32")},
        vocabulary_size=100,
        max_sequence_length=16,
        **_ENCODER,
    ),
    "GPT-2": functools.partial(
        _hub, "GPT2Backbone", _text, vocabulary_size=100, max_sequence_length=16, **_ENCODER
    ),
    "Gemma": functools.partial(_hub, "GemmaBackbone", _text, head_dim=8, **_DECODER),
    "Llama 3": functools.partial(_hub, "Llama3Backbone", _text, **_DECODER),
    "ViT": functools.partial(
        _hub,
        "ViTBackbone",
        lambda: _floats(2, 32, 32, 3),
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    ),
    "ResNet of keras_hub": functools.partial(
        _hub,
        "ResNetBackbone",
        lambda: _floats(2, 32, 32, 3),
        input_conv_filters=[8],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        image_shape=(32, 32, 3),
    ),
    "EfficientNet of keras_hub": functools.partial(
        _hub,
        "EfficientNetBackbone",
        lambda: _floats(2, 32, 32, 3),
        stackwise_width_coefficients=[0.5] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_squeeze_and_excite_ratios=[0.25] * 2,
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[16, 16],
        stackwise_output_filters=[16, 24],
        stackwise_expansion_ratios=[1, 6],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1"] * 2,
        image_shape=(32, 32, 3),
    ),
    "Whisper": functools.partial(
        _hub,
        "WhisperBackbone",
        lambda: {
            "encoder_features": _floats(2, 16, 8),
            "decoder_token_ids": _tokens(100, 2, 8),
            "decoder_padding_mask": np.ones((2, 8), "int32"),
        },
        vocabulary_size=100,
        num_mels=8,
        max_encoder_sequence_length=16,
        max_decoder_sequence_length=16,
        **_ENCODER,
    ),
}

OWN = {
    function.__name__.replace("_", " "): function
    for function in (
        text_transformer,
        lstm_classifier,
        bidirectional_tagger,
        recommender,
        convolutional_autoencoder,
        u_net,
        detector,
        wavenet,
        video,
        tabular,
    )
}
APPLICATIONS = {name: functools.partial(_application, name) for name in APPLICATION_CLASSES}
HUB = _HUB if importlib.util.find_spec("keras_hub") else {}
BACKBONES = {**OWN, **APPLICATIONS, **HUB}
