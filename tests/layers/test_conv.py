"""Growable convolutions: what a connection is, growth and pruning, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableConv1D, GrowableConv2D, WeightNormConv1D, WeightNormConv2D

_LAYERS = {
    "2d": (GrowableConv2D, (7, 6, 2), {"kernel_size": (3, 2)}),
    "2d_same_strides": (
        GrowableConv2D,
        (7, 6, 2),
        {"kernel_size": 3, "strides": 2, "padding": "same"},
    ),
    "2d_same_dilation": (
        GrowableConv2D,
        (7, 6, 2),
        {"kernel_size": (3, 2), "dilation_rate": 2, "padding": "same"},
    ),
    "weight_norm": (WeightNormConv2D, (7, 6, 2), {"kernel_size": 3, "padding": "same"}),
    "1d_same_strides": (
        GrowableConv1D,
        (8, 2),
        {"kernel_size": 4, "strides": 3, "padding": "same"},
    ),
    "1d_causal": (
        GrowableConv1D,
        (8, 2),
        {"kernel_size": 3, "dilation_rate": 2, "padding": "causal"},
    ),
    "1d_weight_norm": (WeightNormConv1D, (8, 2), {"kernel_size": 3}),
}


@pytest.fixture(params=_LAYERS.values(), ids=_LAYERS)
def layer_and_inputs(request):
    layer_class, shape, arguments = request.param
    layer = layer_class(4, **arguments, initial_density=0.4, seed=3, bias_initializer="ones")
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype("float32")
    layer.build((None, *shape))
    return layer, x


def test_rows_times_the_flat_kernel_are_the_convolution(layer_and_inputs):
    layer, x = layer_and_inputs
    rows = layer.as_rows(x)
    outputs = layer(x).numpy()
    assert rows.shape == (outputs.size // 4, layer.fan_in)
    kernel = layer.effective_kernel().numpy().reshape(-1, 4)
    np.testing.assert_allclose(rows @ kernel + 1, outputs.reshape(-1, 4), rtol=1e-5, atol=1e-5)
    assert layer.num_positions == outputs[0].size // 4
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *outputs.shape[1:])


def test_growing_at_zero_keeps_outputs_bit_identical(layer_and_inputs):
    layer, x = layer_and_inputs
    before = layer(x).numpy()
    layer.grow_connections(np.flatnonzero(~layer.kernel_mask.numpy())[::2])
    assert layer(x).numpy().tobytes() == before.tobytes()


def test_a_connection_leads_from_a_place_and_a_map_to_a_map():
    layer = GrowableConv2D(2, (1, 2), use_bias=False, initial_density=0.0)
    layer.build((None, 1, 3, 2))
    # Row-major over (row, column, input map, output map): the right place, map 0, to map 1.
    layer.grow_connections([5], [3.0])
    x = np.array([[[[1, 10], [2, 20], [4, 40]]]], "float32")
    np.testing.assert_array_equal(layer(x), [[[[0, 6], [0, 12]]]])
    layer.prune_connections([5])
    np.testing.assert_array_equal(layer(x), np.zeros((1, 1, 2, 2)))


def test_every_map_starts_with_a_connection_where_the_count_allows(layer_and_inputs):
    layer, _ = layer_and_inputs
    assert layer.num_active == round(0.4 * layer.num_connections)
    fan_in = layer.kernel_mask.numpy().reshape(-1, 4).sum(axis=0)
    assert fan_in.min() >= 1


@pytest.mark.parametrize("arguments", [{"dtype": "mixed_float16"}, {}], ids=["half", "single"])
@pytest.mark.parametrize("jit_compile", [True, False], ids=["xla", "plain"])
def test_networks_train_grow_and_are_pruned(arguments, jit_compile):
    layers = [
        GrowableConv2D(4, 3, 2, "same", activation="relu", initial_density=0.3, **arguments),
        WeightNormConv2D(4, 2, activation="relu", initial_density=0.3, **arguments),
        keras.layers.GlobalAveragePooling2D(),
        keras_grow.GrowableDense(3, initial_density=0.5),
    ]
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit_compile)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 8, 8, 2)), random.normal(size=(32, 3))
    losses = [model.train_on_batch(x, y)]
    num_active = keras_grow.report(model).num_active
    keras_grow.grow(model, (x, y), count=20)
    model.reset_metrics()
    losses.append(model.train_on_batch(x, y))
    assert keras_grow.report(model).num_active == num_active + 20
    keras_grow.prune(model, count=10, score=keras_grow.scores.ActivationMagnitude(), data=(x, y))
    model.reset_metrics()
    losses.append(model.train_on_batch(x, y))
    assert np.all(np.isfinite(losses))
    for layer in layers[:2]:
        dormant = ~layer.kernel_mask.numpy()
        assert dormant.any()
        assert not layer.effective_kernel().numpy()[dormant].any()


def test_compiled_by_xla_a_convolution_computes_the_same(layer_and_inputs):
    layer, x = layer_and_inputs
    compiled = tf.function(layer, jit_compile=True)
    np.testing.assert_allclose(compiled(x), layer(x), rtol=1e-5, atol=1e-6)
    # The compiled function reads the mask that the layer has now.
    layer.prune_connections(layer.active_connections()[0])
    np.testing.assert_array_equal(compiled(x), np.ones_like(layer(x)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "`filters`, expected a positive integer. Received: filters=0"),
        ({"kernel_size": (3,)}, "`kernel_size`.*or 2 of them, one per axis.*\\(3,\\)"),
        ({"kernel_size": (3, 0)}, "kernel_size=\\(3, 0\\)"),
        ({"strides": 1.5}, "strides=1.5"),
        ({"strides": 2, "dilation_rate": 2}, "strides=\\(2, 2\\), dilation_rate=\\(2, 2\\)"),
        ({"padding": "causal"}, "expected one of \\('valid', 'same'\\). Received: .*'causal'"),
        ({"padding": None}, "padding=None"),
        ({"groups": 2}, "expected a divisor of `filters`. Received: groups=2, filters=3"),
        ({"groups": 0}, "`groups`, expected a positive integer. Received: groups=0"),
        ({"data_format": "channels_first"}, "Received: data_format='channels_first'"),
        ({"initial_density": 1.5}, "initial_density=1.5"),
        ({"seed": -1}, "seed=-1"),
    ],
)
@pytest.mark.parametrize("layer_class", [GrowableConv2D, WeightNormConv2D])
def test_wrong_arguments_are_refused(layer_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer_class(**{"filters": 3, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (None, 2, 5, 1),
            "no position in its inputs.*of shape \\(None, 2, 5, 1\\)",
        ),
        ((None, 5, 5, None), "how many channels its inputs have.*for layer 'small'"),
        ((None, 5, 5), "inputs of rank 4.*Received: inputs of shape \\(None, 5, 5\\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        GrowableConv2D(2, 3, name="small").build(shape)
