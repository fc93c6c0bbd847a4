"""Quantized models keep every zero, and what is growable is quantized by no other way."""

import warnings

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import GrowableConv2D, GrowableDense, GrowableKernels, SparseDense
from tests.random_models import difference

_layers = keras.layers
# Keras before 3.11 has no int4.
MODES = ["int8", *(["int4"] if hasattr(keras.quantizers, "unpack_int4") else [])]


def _grown(has_attention=True):
    """A model of all that Keras quantizes, with 30% of its connections."""
    keras.utils.set_random_seed(0)
    x = keras.Input((5,), dtype="int32")
    h = GrowableKernels(_layers.Embedding(20, 8), name="table")(x)
    if has_attention:
        h = GrowableKernels(_layers.MultiHeadAttention(2, 4), name="attention")(h, h)
    h = GrowableKernels(_layers.EinsumDense("btd,df->btf", (5, 6), bias_axes="f"), name="mixed")(h)
    h = GrowableDense(16, name="hidden")(_layers.Flatten()(h))
    h = SparseDense(12, initial_density=0.5, capacity=0.9, name="sparse")(h)
    model = keras.Model(x, _layers.Dense(3, name="answer")(h))
    keras_grow.prune(model, density=0.3, per_layer=True)
    return model


def _inputs():
    return np.random.default_rng(0).integers(0, 20, (32, 5))


def _kernel(layer, shape):
    """What a layer multiplies by, of a shape, found out by asking it: `layer(one-hot) - layer(0)`.

    What is summed over stands first in the kernels here, and behind the batch in the inputs.
    """
    if isinstance(layer, _layers.Embedding):
        return np.asarray(layer(np.arange(shape[0])))
    if isinstance(layer, _layers.Dense):
        summed, others = shape[:1], ()
    else:
        read, kernel, _ = layer.equation.replace("->", ",").split(",")
        summed = shape[: len(set(read) & set(kernel))]
        others = (1,) * (len(read) - 1 - len(summed))
    count = int(np.prod(summed))
    ones = np.eye(count, dtype="float32").reshape(count, *others, *summed)
    rows = np.asarray(layer(ones)) - np.asarray(layer(np.zeros_like(ones)))
    return rows.reshape(shape)


def _kernels(model):
    """Every kernel of a plain model, by its layer's path."""
    found = {}
    for layer, path in keras_grow.layers.paths.layer_paths(model).items():
        variable = getattr(layer, "embeddings", getattr(layer, "kernel", None))
        if variable is not None:
            found[path] = (layer, np.asarray(variable))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_every_zero_stays_a_zero(mode):
    grown = _grown()
    plain = _kernels(keras_grow.make_plain(grown))
    quantized = _kernels(keras_grow.quantize(grown, mode))
    assert len(plain) == 9
    num_zeros = 0
    for (path, (layer, _)), (_, kernel) in zip(quantized.items(), plain.values(), strict=True):
        assert layer.quantization_mode == mode, path
        found = _kernel(layer, kernel.shape)
        # Found out right: 8 bits and the rounding of inputs are as near as this.
        near = np.abs(found - kernel).max() / np.abs(kernel).max()
        assert near < (0.02 if mode == "int8" else 0.2), path
        assert not found[kernel == 0].any(), path
        num_zeros += int(np.sum(kernel == 0))
    report = keras_grow.report(grown)
    dormant = sum(layer.num_connections for layer in keras_grow.growable_layers(grown))
    assert num_zeros == dormant - report.num_active > 500


@pytest.mark.parametrize("mode", MODES)
def test_it_computes_what_keras_does_with_the_plain_model(mode):
    grown, x = _grown(), _inputs()
    before = grown(x)
    plain = keras_grow.make_plain(grown)
    plain.quantize(mode)
    quantized = keras_grow.quantize(grown, mode)
    np.testing.assert_array_equal(quantized(x), plain(x))
    assert difference(quantized(x), before) < (0.05 if mode == "int8" else 0.5)
    np.testing.assert_array_equal(grown(x), before)
    assert keras_grow.report(grown).num_active > 0
    # A plain model is copied too, and stays as it was.
    again = keras_grow.make_plain(grown)
    np.testing.assert_array_equal(keras_grow.quantize(again, mode)(x), plain(x))
    np.testing.assert_allclose(again(x), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_it_comes_back_from_a_file(mode, tmp_path):
    # Keras does not load quantized layers inside another layer, which attention has.
    quantized = keras_grow.quantize(_grown(has_attention=False), mode)
    quantized.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded(_inputs()), quantized(_inputs()))


def _in_place(layer):
    model = keras.Sequential([keras.Input((4, 6)), layer, _layers.Dense(2)])
    return keras_grow.make_growable(model, in_place=True)


_GROWABLE = {
    "a growable layer": lambda: keras.Sequential([keras.Input((6,)), GrowableDense(3)]),
    "a sparse layer": lambda: keras.Sequential([keras.Input((6,)), SparseDense(3, capacity=9)]),
    "kernels in a layer": lambda: keras.Sequential(
        [keras.Input((4, 6)), GrowableKernels(_layers.EinsumDense("btd,df->btf", (4, 3)))]
    ),
    "kernels in layers inside": lambda: _in_place(_Attended()),
    "kernels in place": lambda: _in_place(_layers.EinsumDense("btd,df->btf", (4, 3))),
}


class _Attended(_layers.Layer):
    """Attention of a layer to itself."""

    def __init__(self):
        super().__init__()
        self.attention = _layers.MultiHeadAttention(2, 3)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, inputs):
        return self.attention(inputs, inputs)


@pytest.mark.parametrize("case", _GROWABLE)
def test_what_is_growable_refuses_to_be_quantized_in_silence(case):
    model = _GROWABLE[case]()
    keras_grow.prune(model, density=0.4)
    x = np.random.default_rng(1).normal(size=(8, *model.input_shape[1:])).astype("float32")
    before, weights = model(x), model.get_weights()
    with pytest.raises(ValueError, match="dormant connections.*keras_grow.quantize\\(model\\)"):
        model.quantize("int8")
    np.testing.assert_array_equal(model(x), before)
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    # Each layer inside refuses as well.
    wrappers = [layer for layer in model.layers if isinstance(layer, GrowableKernels)]
    for layer in [*keras_grow.growable_layers(model), *wrappers]:
        for each in (layer, getattr(getattr(layer, "inner", None), "layer", layer)):
            with pytest.raises(ValueError, match="dormant connections"):
                each.quantize("int8")


def test_a_layer_whose_mask_is_taken_off_can_be_quantized_again():
    model = _in_place(_layers.EinsumDense("btd,df->btf", (4, 3)))
    keras_grow.prune(model, density=0.5)
    keras_grow.make_plain(model, in_place=True)
    model.quantize("int8")
    assert [layer.quantization_mode for layer in model.layers] == ["int8", "int8"]


def test_what_keras_has_no_integers_for_is_named():
    convolution = keras.Sequential(
        [keras.Input((6, 6, 2)), GrowableConv2D(3, 3, name="maps"), _layers.Flatten()]
    )
    with pytest.raises(ValueError, match="none was quantized: 'maps' \\(Conv2D\\).*export_litert"):
        keras_grow.quantize(convolution)
    both = keras.Sequential([convolution, GrowableDense(2, name="answer")])
    both.build((None, 6, 6, 2))
    with pytest.warns(UserWarning, match="36.0% of the weights stay as they are.*/maps' \\(Conv2D"):
        quantized = keras_grow.quantize(both)
    assert quantized.layers[-1].quantization_mode == "int8"


def test_every_kernel_that_stays_counts():
    layers = [GrowableKernels(_layers.LSTM(4), name="read"), GrowableDense(2, name="answer")]
    model = keras.Sequential([keras.Input((5, 3)), *layers])
    # 3 x 16 and 4 x 16 of the LSTM, 4 x 2 of the answer.
    with pytest.warns(UserWarning, match="93.3% of the weights.*'read/.*LSTMCell"):
        keras_grow.quantize(model)


def test_layers_without_kernels_are_no_news():
    model = keras.Sequential([keras.Input((6,)), GrowableDense(3), _layers.Dropout(0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_grow.quantize(model)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("gptq", "makes up for rounding in all other weights"),
        ("awq", "makes up for rounding in all other weights"),
        ("float8", "goes on training all weights"),
        ("int3", "Received: mode='int3'\\. Choose"),
    ],
)
def test_modes_that_lose_zeros_are_refused(mode, message):
    with pytest.raises(ValueError, match=message):
        keras_grow.quantize(_grown(), mode)


class _Shifted(keras.quantizers.AbsMaxQuantizer):
    """A quantizer that gives 0 another value."""

    def __call__(self, x, to_numpy=False):
        integers, scale = super().__call__(x, to_numpy=to_numpy)
        return integers + 1, scale


@pytest.mark.skipif(
    not hasattr(keras.quantizers, "Int8QuantizationConfig"), reason="Keras has no such config yet"
)
def test_a_quantizer_that_loses_zeros_is_refused():
    config = keras.quantizers.Int8QuantizationConfig
    model = keras.Sequential([keras.Input((6,)), GrowableDense(3, initial_density=0.5, name="h")])
    symmetric = config(weight_quantizer=keras.quantizers.AbsMaxQuantizer(axis=0))
    assert keras_grow.quantize(model, config=symmetric).layers[0].quantization_mode == "int8"
    with pytest.raises(ValueError, match="keep 0 at 0.* gives 9 zeros of 'h' another value"):
        keras_grow.quantize(model, config=config(weight_quantizer=_Shifted(axis=0)))


@pytest.mark.skipif(
    not hasattr(keras.quantizers, "Int8QuantizationConfig"), reason="Keras has no `filters` yet"
)
def test_layers_can_be_chosen():
    model = keras.Sequential(
        [keras.Input((6,)), GrowableDense(3, name="first"), GrowableDense(2, name="second")]
    )
    quantized = keras_grow.quantize(model, filters="second")
    modes = [layer.quantization_mode for layer in quantized.layers]
    assert modes == [None, "int8"]
