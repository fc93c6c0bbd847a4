"""Compact models compute what the model did, with nothing left that could have gone."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import (
    GrowableConv2D,
    GrowableDense,
    SparseDense,
    WeightNormConv2D,
    WeightNormDense,
    compact,
)
from tests.random_models import difference, inputs_of, random_model, scramble

_layers = keras.layers


def _check_equal(model):
    x = inputs_of(model)
    expected = model(x)
    compaction = compact(model)
    assert difference(compaction.model(x), expected) < 1e-5
    narrow = compact(model, drop_inputs=True)
    np.testing.assert_array_equal(narrow.input_indices[0], compaction.input_indices[0])
    assert difference(narrow.model(x[..., narrow.input_indices[0]]), expected) < 1e-5
    return compaction


@pytest.mark.parametrize("seed", range(6))
def test_a_compact_random_model_computes_the_same(seed):
    _check_equal(random_model(seed))


# Rows of a batch may be added up in different orders: far below what a weight does in float64.
_ROUNDING = 1e-12


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def _depends(model, layer, on_input):
    """Which units of `layer` depend on the model's input, or move its output: by nudging them."""
    x = inputs_of(model, 64)
    tail = keras.Model(model.inputs, layer.output)
    if on_input:
        values = tail(x).numpy().reshape(64, -1, layer.output.shape[-1])
        return np.ptp(values, axis=0).max(axis=0) > _ROUNDING
    before, bias = model(x).numpy(), layer.bias.numpy()
    moves = []
    for unit in range(len(bias)):
        layer.bias.assign(bias + 0.37 * (np.arange(len(bias)) == unit))
        moves.append(np.abs(model(x).numpy() - before).max() > _ROUNDING)
    layer.bias.assign(bias)
    return np.array(moves)


def _chain(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((7, 7, 2))
    x = GrowableConv2D(5, 3, activation="tanh", name="a")(inputs)
    x = _layers.AveragePooling2D(2)(_layers.BatchNormalization()(x))
    parts = [WeightNormConv2D(4, 2, activation="tanh", name="b")(x), GrowableConv2D(3, 2)(x)]
    x = _layers.Flatten()(_layers.Concatenate()(parts))
    x = GrowableDense(12, "tanh", name="d")(x)
    outputs = WeightNormDense(3, name="e")(_layers.Dense(9, "tanh", name="f")(x))
    model = keras.Model(inputs, outputs)
    return scramble(model, np.random.default_rng(seed), densities=(0.1, 0.2, 0.3))


# Other seeds are other masks of the same layers.
@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 6))]
)
def test_what_is_left_depends_on_the_input_and_moves_the_output_and_all_of_it_is_left(
    seed, float64
):
    model = _chain(seed)
    compaction = _check_equal(model)
    constant = set()
    for layer in compaction.layers[:-1]:
        source = model.get_layer(layer.name)
        matters = _depends(model, source, True) & _depends(model, source, False)
        if matters.any():
            np.testing.assert_array_equal(layer.units, np.flatnonzero(matters))
        else:
            assert len(layer.units) == 1
            constant.add(layer.name)
    # One unit stays where none is needed; nothing else has a reason to.
    assert set(compaction.reasons) <= constant


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 200))
def test_a_compact_random_model_computes_the_same_at_length(seed):
    _check_equal(random_model(seed))


def _dense(*kernels, activation="relu", biases=None):
    """A Sequential model of growable layers with these kernels, zeros being dormant."""
    model = keras.Sequential([keras.Input((len(kernels[0]),))])
    for number, kernel in enumerate(kernels):
        kernel = np.array(kernel, "float32")
        layer = GrowableDense(kernel.shape[1], activation if number < len(kernels) - 1 else None)
        model.add(layer)
        layer.kernel_mask.assign(kernel != 0)
        layer.kernel.assign(kernel)
        if biases is not None:
            layer.bias.assign(np.broadcast_to(biases[number], layer.bias.shape))
    return model


def test_a_unit_without_fan_out_vanishes_and_a_constant_one_goes_into_the_biases():
    # Unit 0 is fed and read, 1 is fed and not read, 2 is read and not fed: it is relu(3) = 3.
    model = _dense([[1, 1, 0], [2, 0, 0]], [[5, 0], [0, 0], [7, 0]], biases=[[0, 0, 3], [1, 2]])
    compaction = compact(model)
    hidden, outputs = compaction.model.layers
    np.testing.assert_array_equal(hidden.effective_kernel(), [[1], [2]])
    np.testing.assert_array_equal(outputs.effective_kernel(), [[5, 0]])
    np.testing.assert_array_equal(outputs.bias, [1 + 7 * 3, 2])
    np.testing.assert_array_equal(compaction.layers[0].units, [0])


def test_unused_inputs_are_listed_and_dropped_on_request_only():
    model = _dense([[0, 0], [2, 0], [3, 0], [0, 9]], [[5], [0]])
    compaction = compact(model)
    np.testing.assert_array_equal(compaction.input_indices[0], [1, 2])
    assert compaction.model.input_shape == (None, 4)
    narrow = compact(model, drop_inputs=True)
    assert narrow.model.input_shape == (None, 2)
    np.testing.assert_array_equal(narrow.model.layers[0].effective_kernel(), [[2], [3]])
    assert "2 entries are used, the model takes those" in str(narrow)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("constant", [0.0, 2.0])
def test_a_constant_map_goes_where_padding_can_not_be_told_from_it(padding, constant):
    first = GrowableConv2D(2, 3, activation="relu", padding=padding)
    second = GrowableConv2D(2, 3, padding=padding)
    model = keras.Sequential([keras.Input((8, 8, 1)), first, second])
    first.prune_connections(tf.range(0, 18, 2))  # All that lead into map 0.
    first.bias.assign([constant, 0.5])
    compaction = _check_equal(model)
    goes = padding == "valid" or constant == 0
    np.testing.assert_array_equal(compaction.layers[0].units, [1] if goes else [0, 1])
    assert bool(compaction.reasons) is not goes
    if not goes:
        assert compaction.reasons[second.name] == (
            "1 constant inputs stay: its padding is 0, not the constant"
        )


def test_what_may_mix_units_keeps_them_and_the_reason_is_said():
    model = _dense([[1, 0], [2, 0]], [[5, 0], [0, 3]])
    inputs = keras.Input((2,))
    x = _layers.LayerNormalization(name="mixes")(model.layers[0](inputs))
    compaction = _check_equal(keras.Model(inputs, model.layers[1](x)))
    assert compaction.reasons == {
        "mixes": "1 constant units stay, since its mean and variance run over them"
    }
    assert "mixes: 1 constant units stay" in str(compaction)


def test_a_constant_without_biases_to_go_into_stays():
    model = _dense([[1, 0], [2, 0]], [[5, 1], [4, 3]], biases=[[0, 2], [0, 0]])
    inputs = keras.Input((2,))
    reader = GrowableDense(2, use_bias=False, name="reader")
    compaction = _check_equal(keras.Model(inputs, reader(model.layers[0](inputs))))
    assert list(compaction.layers[0].units) == [0, 1]
    assert compaction.reasons == {"reader": "1 constant inputs stay: it has no biases to take them"}


def test_a_network_that_is_constant_keeps_one_unit_of_each_layer():
    model = _dense(np.zeros((4, 3)), np.zeros((3, 2)), np.ones((2, 2)), biases=[1, 2, 3])
    compaction = _check_equal(model)
    assert [len(layer.units) for layer in compaction.layers] == [1, 1, 2]


def test_the_copy_is_of_the_same_kind_grows_on_and_the_source_is_left_alone(tmp_path):
    model = scramble(random_model(8), np.random.default_rng(1))
    before = [variable.numpy() for variable in model.variables]
    small = compact(model).model
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in model.layers]
    small.compile("adam", "mse")
    x = inputs_of(small)
    small.fit(x, [np.zeros(y.shape) for y in keras.tree.flatten(small(x))], verbose=0)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert difference(loaded(x), small(x)) == 0


def test_plain_models_that_another_tool_pruned_are_compacted_too():
    model = scramble(
        keras.Sequential([keras.Input((9,)), _layers.Dense(8, "relu"), _layers.Dense(3)]),
        np.random.default_rng(0),
        densities=(0.2,),
    )
    compaction = _check_equal(model)
    assert len(compaction.layers[0].units) < 8
    assert [type(layer) for layer in compaction.model.layers] == [_layers.Dense] * 2


def _with_unread_units(kind):
    keras.utils.set_random_seed(3)
    hidden = kind(12, "tanh", name="hidden")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            hidden,
            _layers.BatchNormalization(),
            GrowableDense(9, "tanh"),
            _layers.Dense(2),
        ]
    )
    reader = model.layers[2]
    indices, _ = reader.active_connections()
    reader.prune_connections(indices[(indices // 9) % 3 == 0])  # Every third is read by none.
    return model


# Every layer and every optimizer: slots are cut as the variables are that they belong to.
_QUICK = (
    (GrowableDense, "adam"),
    (GrowableDense, "adafactor"),
    (WeightNormDense, "rmsprop"),
    (SparseDense, "adam"),
)


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        pytest.param(
            kind,
            optimizer,
            id=f"{kind.__name__}-{optimizer}",
            marks=() if (kind, optimizer) in _QUICK else pytest.mark.slow,
        )
        for kind in (GrowableDense, WeightNormDense, SparseDense)
        for optimizer in ("adam", "rmsprop", "adafactor")
    ],
)
def test_training_goes_on_as_if_nothing_had_gone(kind, optimizer):
    if kind is SparseDense:
        if optimizer == "adafactor":
            pytest.skip("a sparse layer refuses it")
        kind = functools.partial(SparseDense, initial_density=0.8, capacity=0.9)
    model = _with_unread_units(kind)
    # Eagerly and in one size of batch: a sparse layer is traced and compiled for each.
    model.compile(optimizer, "mse", run_eagerly=True)
    x, y = inputs_of(model, 40), np.random.default_rng(1).normal(size=(40, 2))
    model.fit(x, y, batch_size=40, epochs=4, shuffle=False, verbose=0)
    compaction = compact(model)
    assert len(compaction.layers[0].units) == 8
    small = compaction.model
    small.compile(keras_grow.convert_optimizer(model, compaction), "mse", run_eagerly=True)
    for each in (model, small):
        each.fit(x, y, batch_size=40, epochs=4, shuffle=False, verbose=0)
    if optimizer != "adafactor":  # Its steps depend on the size of a kernel.
        assert difference(small(x), model(x)) < 1e-5


def test_averages_of_weights_keep_the_constants_that_went_into_the_biases():
    model = _dense([[1, 0], [2, 0]], [[5, 0], [0, 3]], biases=[[0, 2], [1, 1]])
    optimizer = keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=1)
    model.compile(optimizer, "mse")
    x, y = inputs_of(model), np.zeros((16, 2))
    model.fit(x, y, epochs=2, verbose=0)
    compaction = compact(model)
    small = compaction.model
    small.compile(keras_grow.convert_optimizer(model, compaction), "mse")
    small.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_allclose(small.layers[-1].bias, [1, 1 + 3 * 2], rtol=1e-6)


def test_what_can_not_be_compacted_is_refused():
    with pytest.raises(ValueError, match="no layer whose units could be removed"):
        compact(keras.Sequential([keras.Input((3,)), _layers.ReLU()]))
    broken = _dense([[1.0]], [[1.0]])
    broken.layers[0].kernel.assign([[np.nan]])
    with pytest.raises(ValueError, match="NaN or infinite"):
        compact(broken)
    with pytest.raises(ValueError, match="built"):
        compact(keras.Sequential([GrowableDense(3)]))
    with pytest.raises(TypeError, match="expected a `keras.Model`"):
        compact("model")
    other = _dense([[1.0, 2.0]], [[1.0], [1.0]])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have been made from `model`"):
        keras_grow.convert_optimizer(other, compact(_dense([[1.0]], [[1.0]])))


def test_where_nothing_can_go_the_layers_in_the_way_are_named():
    layers = [
        keras_grow.GrowableDense(6, name="first"),
        keras.layers.LayerNormalization(name="mixes"),
        keras_grow.GrowableDense(2, name="last"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    keras_grow.prune(model, count=2, layers=["last"])
    reasons = keras_grow.compact(model).reasons
    assert reasons == {
        "mixes": "all units it reads and makes stay, since its mean and variance run over them"
    }


def test_weights_that_all_units_share_are_left_as_they_are():
    shared = keras.layers.PReLU(shared_axes=[1, 2, 3], name="shared")
    layers = [GrowableConv2D(5, 3, name="first"), shared, GrowableConv2D(2, 3, name="last")]
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers])
    shared.alpha.assign([[[0.3]]])
    keras_grow.prune_neurons(model, count=2, layers=["first"], data=(inputs_of(model),))
    compaction = _check_equal(model)
    assert len(compaction.layers[0].units) == 3
    assert compaction.model.get_layer("shared").alpha.shape == (1, 1, 1)
    wider = keras_grow.widen(model, "first", 7)
    assert difference(wider(inputs_of(model)), model(inputs_of(model))) < 1e-6
