"""Kinds of Keras layers whose kernels grow inside `GrowableKernels`: one table for all tests."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_grow import kernel_types
from keras_grow.kernel_axes import KernelAxes
from tests.quick import among

L = keras.layers
_BATCH = 4


@keras.saving.register_keras_serializable("tests")
class Block(keras.Layer):
    """Layers in a list and in a dict, one of them called twice, a dropout and a normalization."""

    def __init__(self, units, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rate = units, rate
        self.layers = [L.Dense(units, "tanh", name="first"), L.Dense(units, name="second")]
        self.named = {"norm": L.BatchNormalization(), "memory": L.GRU(units, name="memory")}
        self.dropout = L.Dropout(rate, seed=4)

    def call(self, x, training=False):
        for layer in self.layers:
            x = layer(x)
        x = self.named["norm"](self.layers[1](x), training=training)
        return self.named["memory"](self.dropout(x, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rate": self.rate}


@keras.saving.register_keras_serializable("tests")
class Bilinear(keras.Layer):
    """A layer of one's own with two kernels, of which the second is stored the other way round."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.left = self.add_weight(shape=(input_shape[-1], self.units), name="left")
        self.right = self.add_weight(shape=(self.units, input_shape[-1]), name="right")

    def call(self, x):
        return (x @ self.left) * (x @ keras.ops.transpose(self.right))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


kernel_types.register(
    Bilinear,
    left=lambda layer, shape: KernelAxes(shape),
    right=lambda layer, shape: KernelAxes(shape, inputs=(1,), units=(0,)),
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A layer, and how it is called.

    Attributes:
        make: makes the layer.
        inputs: what it is called with, a batch of each input.
        call: calls a layer with these, arrays or symbolic tensors.
        has_fixed_batch: whether a batch must have as many samples as `inputs`.
        input_axes, output_axes: the axes of the first input and of the output that the kernel's
            inputs and units are counted along, where the layer is linear in one kernel that both
            are the layer's own of.
        reads_tokens: whether inputs are numbers of rows.
        is_random: whether it draws numbers in training.
    """

    make: Callable[[], keras.Layer]
    inputs: tuple[np.ndarray, ...]
    call: Callable[..., Any] = lambda layer, *inputs: layer(*inputs)
    has_fixed_batch: bool = False
    input_axes: tuple[int, ...] = ()
    output_axes: tuple[int, ...] = ()
    reads_tokens: bool = False
    is_random: bool = False

    def model(self, wrap=lambda layer: layer, model_class=keras.Model):
        """A functional model of the layer, or of what `wrap` makes of it: the same each time."""
        keras.utils.set_random_seed(7)
        layer = wrap(self.make())
        inputs = [
            keras.Input(
                array.shape[1:],
                batch_size=len(array) if self.has_fixed_batch else None,
                dtype=array.dtype.name,
            )
            for array in self.inputs
        ]
        outputs = self.call(layer, *inputs)
        return model_class(inputs if len(inputs) > 1 else inputs[0], outputs)

    def targets(self, model):
        """Targets for each output of a model."""
        random = np.random.default_rng(2)
        outputs = keras.tree.flatten(model.output)
        made = [random.normal(size=(_BATCH, *each.shape[1:])) for each in outputs]
        return made if len(made) > 1 else made[0]

    def data(self, model):
        """Inputs and targets of a model, as `fit` and `grow` take them."""
        return self.arrays, self.targets(model)

    def start_over(self, model):
        """Sets states that batches hand on, which are no variables of a model's, to 0."""
        for layer in model.layers:
            recurrent = getattr(layer, "layer", layer)
            if self.has_fixed_batch and isinstance(recurrent, L.RNN):
                recurrent.reset_states()

    @property
    def arrays(self):
        """The inputs, as a model takes them."""
        return list(self.inputs) if len(self.inputs) > 1 else self.inputs[0]


def bits(tensors):
    """What tensors or variables hold, all that a structure has, to the last bit."""
    return [np.asarray(each).tobytes() for each in keras.tree.flatten(tensors)]


def _normal(*shape):
    return np.random.default_rng(1).normal(size=(_BATCH, *shape)).astype("float32")


_TOKENS = np.array([[3, 1, 0, 0], [2, 2, 5, 0], [0, 4, 1, 3], [5, 0, 0, 0]], "int32")
_STEPS = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
_SEQUENCES = _normal(4, 3)
_CHANNELS = {"input_axes": (-1,), "output_axes": (-1,)}


def _sequence(layer_class, **arguments):
    return Kind(lambda: layer_class(3, **arguments), (_SEQUENCES,))


def _convolution(make, *shape):
    return Kind(make, (_normal(*shape),), **_CHANNELS)


def _masked(layer, sequences, mask):
    return layer(sequences, mask=mask)


def _attention(call, *others, make=lambda: L.MultiHeadAttention(2, 3, name="attention")):
    return Kind(make, (_normal(4, 6), *others), call)


KINDS = {
    "dense": Kind(lambda: L.Dense(5), (_normal(3, 6),), **_CHANNELS),
    "einsum_dense": Kind(
        lambda: L.EinsumDense("abc,cd->abd", (3, 5), bias_axes="d"),
        (_normal(3, 6),),
        **_CHANNELS,
    ),
    "einsum_of_several_units": Kind(
        lambda: L.EinsumDense("abc,cde->abde", (3, 2, 4), bias_axes="de"),
        (_normal(3, 6),),
        input_axes=(-1,),
        output_axes=(-2, -1),
    ),
    "einsum_of_several_inputs": Kind(
        lambda: L.EinsumDense("abcd,cde->abe", (3, 5)),
        (_normal(3, 2, 4),),
        input_axes=(-2, -1),
        output_axes=(-1,),
    ),
    "einsum_with_an_axis_of_both": Kind(
        lambda: L.EinsumDense("abc,bcd->abd", (3, 5), bias_axes="d"),
        (_normal(3, 4),),
        input_axes=(-2, -1),
        output_axes=(-2, -1),
    ),
    "conv1d": _convolution(lambda: L.Conv1D(4, 3), 7, 3),
    "conv1d_causal": _convolution(lambda: L.Conv1D(4, 2, padding="causal", dilation_rate=2), 7, 3),
    "conv2d": _convolution(lambda: L.Conv2D(4, (2, 3), strides=2, padding="same"), 5, 6, 3),
    "conv2d_groups": _convolution(lambda: L.Conv2D(6, 2, groups=2), 4, 4, 4),
    "conv3d": _convolution(lambda: L.Conv3D(3, 2), 3, 3, 3, 2),
    "conv1d_transpose": _convolution(lambda: L.Conv1DTranspose(4, 3, strides=2), 4, 3),
    "conv2d_transpose": _convolution(
        lambda: L.Conv2DTranspose(4, 2, strides=(2, 1), padding="same"), 3, 3, 2
    ),
    "conv3d_transpose": _convolution(lambda: L.Conv3DTranspose(3, 2, strides=2), 2, 2, 2, 2),
    "depthwise_conv1d": _convolution(lambda: L.DepthwiseConv1D(2, depth_multiplier=2), 5, 3),
    "depthwise_conv2d": _convolution(lambda: L.DepthwiseConv2D(2, depth_multiplier=2), 4, 4, 3),
    "separable_conv1d": Kind(lambda: L.SeparableConv1D(4, 2, depth_multiplier=2), (_normal(5, 3),)),
    "separable_conv2d": Kind(
        lambda: L.SeparableConv2D(4, 2, depth_multiplier=2), (_normal(4, 4, 3),)
    ),
    "embedding": Kind(
        lambda: L.Embedding(6, 3),
        (_TOKENS,),
        input_axes=(-1,),
        output_axes=(-1,),
        reads_tokens=True,
    ),
    "embedding_mask_zero": Kind(
        lambda: keras.Sequential([L.Embedding(6, 3, mask_zero=True), L.LSTM(2)]), (_TOKENS,)
    ),
    "simple_rnn": _sequence(L.SimpleRNN),
    "simple_rnn_masked": Kind(
        lambda: L.SimpleRNN(3, return_sequences=True), (_SEQUENCES, _STEPS), _masked
    ),
    "rnn_cell": Kind(
        lambda: L.SimpleRNNCell(3, activation=None),
        (_normal(4), _normal(3)),
        lambda layer, x, state: layer(x, state)[0],
    ),
    "lstm": _sequence(L.LSTM),
    "lstm_sequences": _sequence(L.LSTM, return_sequences=True, return_state=True),
    "lstm_masked": Kind(lambda: L.LSTM(3), (_SEQUENCES, _STEPS), _masked),
    "lstm_dropout": Kind(
        lambda: L.LSTM(3, dropout=0.3, recurrent_dropout=0.4, seed=3), (_SEQUENCES,), is_random=True
    ),
    "lstm_stateful": Kind(lambda: L.LSTM(3, stateful=True), (_SEQUENCES,), has_fixed_batch=True),
    "gru": _sequence(L.GRU),
    "gru_backwards": _sequence(L.GRU, go_backwards=True, unroll=True),
    "gru_masked": Kind(
        lambda: L.GRU(3, return_sequences=True, reset_after=False),
        (_SEQUENCES, _STEPS),
        _masked,
    ),
    "stacked_cells": Kind(lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)]), (_SEQUENCES,)),
    "bidirectional": Kind(
        lambda: L.Bidirectional(L.LSTM(3, return_sequences=True)), (_SEQUENCES, _STEPS), _masked
    ),
    "conv_lstm1d": Kind(lambda: L.ConvLSTM1D(3, 2), (_normal(3, 4, 2),)),
    "conv_lstm2d": Kind(lambda: L.ConvLSTM2D(2, 2, return_sequences=True), (_normal(3, 3, 3, 2),)),
    "attention": _attention(lambda layer, x: layer(x, x)),
    "attention_to_others": _attention(lambda layer, x, y: layer(x, y), _normal(5, 4)),
    "attention_masked": _attention(
        lambda layer, x, mask: layer(x, x, attention_mask=mask),
        np.tile(_STEPS[:, None, :], (1, 4, 1)),
    ),
    "attention_causal": _attention(
        # Keras puts a mask on the scores, which no loss of theirs can take.
        lambda layer, x: [
            1 * each for each in layer(x, x, use_causal_mask=True, return_attention_scores=True)
        ]
    ),
    "grouped_query_attention": _attention(
        lambda layer, x: layer(x, x), make=lambda: L.GroupQueryAttention(3, 4, 2)
    ),
    "time_distributed": Kind(lambda: L.TimeDistributed(L.Dense(4)), (_normal(3, 2, 5),)),
    "bilinear": Kind(lambda: Bilinear(4), (_normal(3, 5),)),
    "block": Kind(lambda: Block(4), (_SEQUENCES,)),
    "block_dropout": Kind(lambda: Block(4, 0.5), (_SEQUENCES,), is_random=True),
}


def _round_trip(layer, tokens):
    return layer(layer(tokens), reverse=True)


if hasattr(L, "ReversibleEmbedding"):  # Since Keras 3.13 or so.
    KINDS |= {
        "reversible_embedding": Kind(lambda: L.ReversibleEmbedding(6, 3), (_TOKENS,)),
        "reversible_embedding_reversed": Kind(
            lambda: L.ReversibleEmbedding(6, 3),
            (_normal(4, 3),),
            lambda layer, x: layer(x, reverse=True),
        ),
        "reversible_embedding_tied": Kind(
            lambda: L.ReversibleEmbedding(6, 3, mask_zero=True), (_TOKENS,), _round_trip
        ),
        "reversible_embedding_untied": Kind(
            lambda: L.ReversibleEmbedding(6, 3, tie_weights=False), (_TOKENS,), _round_trip
        ),
    }

# One of each way that a kernel is read, and of each layout of axes.
_QUICK = (
    "einsum_with_an_axis_of_both",
    "conv2d_groups",
    "conv1d_transpose",
    "separable_conv1d",
    "embedding_mask_zero",
    "lstm_dropout",
    "gru_masked",
    "attention_causal",
    "reversible_embedding_untied",
    "bilinear",
    "block_dropout",
)


def kinds(chosen=lambda kind: True, quick=_QUICK):
    """Parameters of the kinds that `chosen` says, all but `quick` slow."""
    return among({name: kind for name, kind in KINDS.items() if chosen(kind)}, quick)


every_kind = kinds()
