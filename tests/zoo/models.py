"""Models as people bring them, each with inputs it takes: what a copy must not change.

Each function makes one model, with a seed of Keras's set before; `stirred` gives its variables
values that nothing starts with, so that one that stayed behind shows.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_grow import GrowableDense, WeightNormDense
from keras_grow.layers.paths import nested_layers


def _floats(*shape, mean=0.0, scale=1.0):
    return np.random.default_rng(1).normal(mean, scale, size=shape).astype("float32")


def _integers(high, *shape):
    return np.random.default_rng(2).integers(0, high, size=shape)


def stirred(model):
    """The model with all its float variables somewhere else than where layers start."""
    random = np.random.default_rng(3)
    adapted = [
        variable
        for layer in nested_layers(model)
        if isinstance(layer, layers.Normalization)
        for variable in layer.weights
    ]
    for variable in model.weights:
        is_ours = not any(variable is each for each in adapted)
        if is_ours and keras.backend.is_float_dtype(variable.dtype):
            value = variable.numpy() + 0.3 * random.normal(size=variable.shape)
            variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    return model


# What is adapted to data.


def normalization():
    layer = layers.Normalization()
    layer.adapt(_floats(200, 6, mean=300, scale=7))
    model = keras.Sequential([keras.Input((6,)), layer, layers.Dense(5, "relu"), layers.Dense(3)])
    return model, _floats(9, 6, mean=300, scale=7)


def normalization_of_images():
    layer = layers.Normalization(axis=-1)
    layer.adapt(_floats(20, 6, 6, 3, mean=120, scale=60))
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255.0)(layer(inputs)))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), _floats(4, 6, 6, 3, mean=120)


def discretization():
    layer = layers.Discretization(num_bins=5, output_mode="one_hot")
    layer.adapt(_floats(300, 1, mean=50, scale=9))
    model = keras.Sequential([keras.Input((1,)), layer, layers.Dense(4, "relu"), layers.Dense(2)])
    return model, _floats(30, 1, mean=50, scale=9)


def text_vectorization():
    layer = layers.TextVectorization(max_tokens=12, output_sequence_length=5)
    layer.adapt(["the cat sat", "the dog ran far", "a bird sang"])
    inputs = keras.Input((), dtype="string")
    x = layers.Embedding(12, 4)(layer(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    return model, tf.constant(["the cat ran", "a dog", "some fish sang"])


def tf_idf():
    layer = layers.TextVectorization(max_tokens=10, output_mode="tf_idf")
    layer.adapt(["red green blue", "red red", "green yellow"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), layer, layers.Dense(3)])
    return model, tf.constant([["red blue"], ["yellow green green"], ["pink"]])


def string_lookup():
    layer = layers.StringLookup(output_mode="one_hot")
    layer.adapt(np.array([["a"], ["b"], ["c"], ["a"]]))
    model = keras.Sequential([keras.Input((1,), dtype="string"), layer, layers.Dense(3)])
    return model, tf.constant([["a"], ["c"], ["z"], ["b"]])


def string_lookup_with_given_vocabulary():
    layer = layers.StringLookup(vocabulary=["x", "y", "z"], output_mode="multi_hot")
    model = keras.Sequential([keras.Input((2,), dtype="string"), layer, layers.Dense(3)])
    return model, tf.constant([["x", "y"], ["z", "q"]])


def integer_lookup():
    layer = layers.IntegerLookup(output_mode="count")
    layer.adapt(np.array([[7], [12], [12], [40]]))
    model = keras.Sequential([keras.Input((3,), dtype="int64"), layer, layers.Dense(2)])
    return model, np.array([[7, 12, 12], [40, 1, 7]])


def hashing_and_categories():
    word = keras.Input((1,), dtype="string", name="word")
    number = keras.Input((1,), dtype="int32", name="number")
    hashed = layers.Hashing(6, output_mode="one_hot", salt=3)(word)
    coded = layers.CategoryEncoding(5, output_mode="one_hot")(number)
    crossed = layers.HashedCrossing(4, output_mode="one_hot")((word, word))
    joined = layers.Concatenate()([hashed, coded, crossed])
    model = keras.Model({"word": word, "number": number}, layers.Dense(3)(joined))
    return model, {"word": tf.constant([["p"], ["q"]]), "number": tf.constant([[4], [0]])}


def feature_space():
    space = keras.utils.FeatureSpace(
        features={
            "age": keras.utils.FeatureSpace.float_normalized(),
            "city": keras.utils.FeatureSpace.string_categorical(num_oov_indices=1),
            "income": keras.utils.FeatureSpace.float_discretized(num_bins=4),
        },
        output_mode="concat",
    )
    data = {
        "age": _floats(40, mean=41, scale=12),
        "city": np.array(["rome", "oslo", "lima", "oslo"] * 10),
        "income": _floats(40, mean=900, scale=100),
    }
    space.adapt(tf.data.Dataset.from_tensor_slices(data))
    outputs = layers.Dense(3)(layers.Dense(6, "relu")(space.get_encoded_features()))
    return keras.Model(space.get_inputs(), outputs), {
        name: tf.constant(array[:8, None]) for name, array in data.items()
    }


def image_augmentation():
    inputs = keras.Input((12, 12, 3))
    x = layers.Resizing(10, 10)(inputs)
    x = layers.CenterCrop(8, 8)(x)
    for layer in (
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomContrast(0.2),
        layers.RandomBrightness(0.2),
        layers.RandomHue(0.1),
        layers.RandomGrayscale(0.5),
        layers.RandomErasing(),
        layers.Solarization(),
        layers.RandAugment(),
        layers.AutoContrast(),
        layers.Pipeline([layers.RandomInvert(), layers.RandomSharpness(0.5)]),
    ):
        x = layer(x)
    x = layers.Conv2D(3, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), 255 * abs(
        _floats(3, 12, 12, 3, scale=0.3)
    )


def more_augmentation():
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for layer in (
        layers.AugMix(),
        layers.RandomColorDegeneration(0.5),
        layers.RandomColorJitter(),
        layers.RandomElasticTransform(),
        layers.RandomGaussianBlur(),
        layers.RandomPerspective(),
        layers.RandomPosterization(4),
        layers.RandomSaturation(0.5),
        layers.CutMix(),
        layers.MixUp(),
    ):
        x = layer(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), 255 * abs(
        _floats(3, 8, 8, 3, scale=0.3)
    )


def ragged():
    inputs = keras.Input((None,), dtype="int64", ragged=True)
    x = layers.Embedding(10, 4)(inputs)
    x = layers.Lambda(lambda t: tf.reduce_mean(t, axis=1), output_shape=(4,))(x)
    x = layers.Dense(5, "relu")(x)
    return keras.Model(inputs, layers.Dense(2)(x)), tf.ragged.constant([[1, 2, 9], [3]], tf.int64)


def spectrogram():
    inputs = keras.Input((128,))
    mel = layers.MelSpectrogram(num_mel_bins=6, fft_length=32, sequence_stride=16)(inputs)
    plain = layers.STFTSpectrogram(frame_length=16, frame_step=8, fft_length=16)(
        layers.Reshape((128, 1))(inputs)
    )
    x = layers.Concatenate()([layers.Flatten()(mel), layers.Flatten()(plain)])
    return keras.Model(inputs, layers.Dense(3)(x)), _floats(3, 128)


# Sequences.


def stacked_rnns():
    inputs = keras.Input((5, 4))
    x = layers.LSTM(4, return_sequences=True, recurrent_dropout=0.2)(inputs)
    x = layers.GRU(3, return_sequences=True)(x)
    x = layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True))(x)
    x = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)]))(x)
    return keras.Model(inputs, layers.Dense(2)(x)), _floats(3, 5, 4)


def stateful_rnn():
    model = keras.Sequential(
        [
            keras.Input((4, 2), batch_size=3),
            layers.LSTM(4, stateful=True, return_sequences=True),
            layers.TimeDistributed(layers.Dense(2, "tanh")),
        ]
    )
    x = _floats(3, 4, 2)
    model(x)
    return model, x


def conv_lstm():
    inputs = keras.Input((3, 5, 5, 2))
    x = layers.ConvLSTM2D(2, 3)(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), _floats(2, 3, 5, 5, 2)


def masked_text():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.LSTM(5)(x)
    return keras.Model(inputs, layers.Dense(3)(x)), np.array([[1, 4, 8, 0, 0, 0], [2] * 6])


def transformer():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, 8)(inputs)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(x + attended)
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(16, "gelu")(x)))
    x = layers.GroupQueryAttention(4, 4, 2)(x, x)
    return keras.Model(inputs, layers.Dense(11)(x)), _integers(11, 2, 7)


def attention_over_pairs():
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    x = layers.Attention(use_scale=True)([query, value])
    x = layers.AdditiveAttention()([x, value])
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d")(x)
    return keras.Model([query, value], layers.Dense(2)(x)), [_floats(2, 4, 6), _floats(2, 5, 6)]


# Images.


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(max_value=6)(layers.BatchNormalization()(x))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    x = layers.Activation("relu")(x + y)
    x = layers.SeparableConv2D(5, 3)(layers.DepthwiseConv2D(3)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x)), _floats(4, 8, 8, 3)


def autoencoder():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3, strides=2, padding="same", activation="elu")(inputs)
    x = layers.GroupNormalization(3)(x)
    x = layers.Conv2DTranspose(2, 3, strides=2, padding="same")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.UnitNormalization()(x)
    return keras.Model(inputs, layers.Conv2D(1, 1)(x)), _floats(3, 8, 8, 1)


def one_dimensional():
    inputs = keras.Input((None, 3))
    x = layers.Conv1D(4, 3, activation="relu", dilation_rate=2)(inputs)
    x = layers.Conv1D(4, 1, groups=2)(x)
    x = layers.RMSNormalization()(layers.SeparableConv1D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(x))), _floats(2, 20, 3)


def fully_convolutional_of_free_size():
    inputs = keras.Input((None, None, 2))
    x = layers.Conv2D(3, 3, activation="relu")(inputs)
    x = layers.MaxPooling2D()(layers.Conv2D(3, 5)(x))
    x = layers.Conv2D(2, 3)(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))), _floats(
        2, 20, 20, 2
    )


# Structure.


def _block(name):
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(5, "relu", name="dense"), layers.BatchNormalization()],
        name=name,
    )


def nested():
    inputs = keras.Input((5,))
    inner = keras.Model(i := keras.Input((5,)), layers.Dense(4)(_block("inner")(i)), name="outer")
    frozen = _block("frozen")
    frozen.trainable = False
    return keras.Model(inputs, layers.Dense(2)(inner(frozen(inputs)))), _floats(4, 5)


def ensemble_of_namesakes():
    inputs = keras.Input((5,))
    members = [_block(f"member_{number}")(inputs) for number in range(3)]
    return keras.Model(inputs, layers.Dense(2)(layers.Average()(members))), _floats(4, 5)


def shared():
    one, other = keras.Input((5,)), keras.Input((5,))
    tower = _block("tower")
    dense = layers.Dense(4, "tanh")
    a, b = dense(tower(one)), dense(tower(other))
    outputs = {"dot": layers.Dot(1)([a, b]), "product": layers.Dense(2)(layers.Multiply()([a, b]))}
    return keras.Model([one, other], outputs), [_floats(4, 5), _floats(4, 5) + 1]


def wide_and_deep():
    wide, deep = keras.Input((6,), name="wide"), keras.Input((4,), name="deep")
    x = layers.Dense(5, "relu")(deep)
    outputs = layers.Dense(1, "sigmoid")(layers.Concatenate()([wide, layers.Dropout(0.3)(x)]))
    model = keras.Model({"wide": wide, "deep": deep}, outputs)
    return model, {"wide": _floats(4, 6), "deep": _floats(4, 4)}


def operations():
    inputs = keras.Input((3, 4))
    x = ops.concatenate([inputs[:, :1] * 2.0, ops.exp(-ops.abs(inputs))], axis=1)
    x = ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, 16))
    x = layers.Dense(6, "softplus")(x)
    return keras.Model(inputs, layers.Dense(2)(ops.where(x > 1, x, 0.1 * x))), _floats(5, 3, 4)


# State and settings of all sorts.


def _swish(x):
    return x * tf.sigmoid(1.3 * x)


class _Damped(keras.regularizers.Regularizer):
    def __call__(self, kernel):
        return 0.1 * ops.sum(ops.abs(kernel))


def _around_a_tenth(shape, dtype=None):
    return 0.1 + keras.random.normal(shape, stddev=0.01, dtype=dtype, seed=1)


def functions_of_the_users():
    inputs = keras.Input((6,))
    x = layers.Lambda(lambda t: t * 3 + 1)(inputs)
    x = layers.Dense(
        5, _swish, kernel_regularizer=_Damped(), kernel_initializer=_around_a_tenth, name="own"
    )(x)
    x = layers.Activation(functools.partial(tf.nn.leaky_relu, alpha=0.3))(x)
    x = layers.Dense(4, lambda t: t**2, bias_regularizer=_Damped())(x)
    return keras.Model(inputs, layers.Dense(2)(x)), _floats(4, 6)


class Calibrated(keras.Layer):
    """Keeps a table that is no weight, and saves it in a way of its own."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.table = np.zeros(3, "float32")

    def call(self, x):
        return self.factor * x + ops.sum(self.table)

    def save_own_variables(self, store):
        store["table"] = self.table

    def load_own_variables(self, store):
        self.table = np.array(store["table"])


class Worded(keras.Layer):
    """Keeps its state in a file."""

    scale = 1.0

    def call(self, x):
        return x * self.scale

    def save_assets(self, folder):
        with open(f"{folder}/scale.txt", "w", encoding="utf-8") as file:
            file.write(str(self.scale))

    def load_assets(self, folder):
        with open(f"{folder}/scale.txt", encoding="utf-8") as file:
            self.scale = float(file.read())


class Counting(keras.Layer):
    """Counts its calls in training, and lets the count into its outputs."""

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), trainable=False, initializer="zeros")

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1.0)
        return x + self.count


class Residual(keras.Layer):
    """A block with layers inside that are made when it is."""

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation = units, activation
        self.first = layers.Dense(units, activation)
        self.second = layers.Dense(units)

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((*input_shape[:-1], self.units))

    def call(self, x):
        return x + self.second(self.first(x))


def layers_of_the_users():
    inputs = keras.Input((5,))
    calibrated, worded, counting = Calibrated(), Worded(), Counting()
    x = Residual(5, _swish)(counting(worded(calibrated(inputs))))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(6, "relu")(x)))
    calibrated.table, worded.scale = np.array([1, 2, 3], "float32"), 1.7
    counting.count.assign(2.0)
    return model, _floats(4, 5)


def spectral_norm():
    inputs = keras.Input((6,))
    x = layers.SpectralNormalization(layers.Dense(5, "relu"))(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model(_floats(3, 6), training=True)
    return model, _floats(4, 6)


def quantized():
    inputs = keras.Input((6,))
    x = layers.Dense(8, "relu", name="quantized")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.get_layer("quantized").quantize("int8")
    return model, _floats(4, 6)


def low_rank_adaptation():
    inputs = keras.Input((6,))
    x = layers.Dense(8, "relu", name="adapted")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.get_layer("adapted").enable_lora(2)
    return model, _floats(4, 6)


def mixed_precision():
    policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="relu", dtype=policy)(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.Dense(5, "tanh", dtype=policy)(layers.Flatten(dtype=policy)(x))
    return keras.Model(inputs, layers.Dense(3, "softmax", dtype="float32")(x)), _floats(4, 6, 6, 2)


def double_precision():
    inputs = keras.Input((4,), dtype="float64")
    x = layers.Dense(5, "selu", dtype="float64")(inputs)
    return keras.Model(inputs, layers.Dense(2, dtype="float64")(x)), _floats(3, 4).astype("float64")


def randomness_at_inference():
    inputs = keras.Input((5,))
    x = layers.Dropout(0.4, seed=3)(layers.Dense(8)(inputs), training=True)
    x = layers.GaussianNoise(0.1)(x, training=True)
    return keras.Model(inputs, layers.Dense(2)(x)), _floats(4, 5)


def sparse_inputs():
    inputs = keras.Input((7,), sparse=True)
    x = layers.Dense(4, "relu")(inputs)
    return keras.Model(inputs, layers.Dense(2)(x)), tf.sparse.from_dense(_floats(3, 7))


def grown():
    inputs = keras.Input((8,))
    x = GrowableDense(12, "relu", initial_density=0.3, seed=1)(inputs)
    x = layers.BatchNormalization()(x)
    x = WeightNormDense(6, "tanh", initial_density=0.5, seed=2)(x)
    return keras.Model(inputs, GrowableDense(3, initial_density=0.5, seed=3)(x)), _floats(5, 8)


class Distilled(keras.Model):
    """A model of one's own class over inputs and outputs, which trains in its own way."""

    def __init__(self, inputs, outputs, temperature=2.0, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.temperature = temperature

    def train_step(self, data):
        return {"loss": ops.convert_to_tensor(self.temperature)}


def own_class():
    inputs = keras.Input((5,))
    outputs = layers.Dense(2)(layers.Dense(6, "relu")(inputs))
    return Distilled(inputs, outputs, temperature=3.5), _floats(4, 5)


ZOO = {
    make.__name__: make
    for make in (
        normalization,
        normalization_of_images,
        discretization,
        text_vectorization,
        tf_idf,
        string_lookup,
        string_lookup_with_given_vocabulary,
        integer_lookup,
        hashing_and_categories,
        feature_space,
        image_augmentation,
        more_augmentation,
        ragged,
        spectrogram,
        stacked_rnns,
        stateful_rnn,
        conv_lstm,
        masked_text,
        transformer,
        attention_over_pairs,
        residual,
        autoencoder,
        one_dimensional,
        fully_convolutional_of_free_size,
        nested,
        ensemble_of_namesakes,
        shared,
        wide_and_deep,
        operations,
        functions_of_the_users,
        layers_of_the_users,
        spectral_norm,
        quantized,
        low_rank_adaptation,
        mixed_precision,
        double_precision,
        randomness_at_inference,
        sparse_inputs,
        grown,
        own_class,
    )
}
