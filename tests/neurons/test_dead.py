"""remove_dead_neurons(): what is left without fan-in or fan-out goes, the function stays."""

import keras
import numpy as np
import pytest

from keras_grow import (
    GrowableDense,
    SparseDense,
    WeightNormDense,
    prune,
    remove_dead_neurons,
)
from keras_grow.optimizer_slots import slots
from tests.neurons.connections import units_of
from tests.random_models import difference

_layers = keras.layers
X = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")


def _bias():
    return keras.initializers.RandomNormal(seed=7)


def _dense(units, activation=None, name=None, kind=GrowableDense, **arguments):
    if kind is SparseDense:
        arguments["capacity"] = 1.0
    return kind(units, activation, name=name, bias_initializer=_bias(), **arguments)


def _model(*layers):
    model = keras.Sequential([keras.Input((6, 4)), *layers])
    for layer in model.layers:
        if isinstance(layer, _layers.BatchNormalization):
            random = np.random.default_rng(1)
            layer.set_weights([random.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    return model


def _prune_units(layer, fan_in=(), fan_out=()):
    """Cuts all connections into some units of a layer, and out of some inputs."""
    inputs, units = layer.kernel_shape
    flat = np.arange(inputs * units).reshape(inputs, units)
    chosen = np.union1d(flat[:, list(fan_in)], flat[list(fan_out)])
    active = layer.active_connections()[0].numpy()
    layer.prune_connections(np.intersect1d(chosen, active))


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_a_chain_of_dead_units_goes_from_both_ends(kind):
    a, b = _dense(5, "tanh", "a", kind), _dense(6, "sigmoid", "b", kind)
    c, d = _dense(4, "relu", "c", kind), _dense(3, None, "d", kind)
    model = _model(_layers.Flatten(), a, b, c, d)
    # Unit 1 of a is unfed, and all that feeds unit 2 of b; unit 0 of c is unread, and all that
    # reads unit 5 of b, which is all that reads unit 3 of a.
    _prune_units(a, fan_in=[1])
    flat = np.arange(30).reshape(5, 6)
    only = np.union1d(np.delete(flat[:, 2], 1), np.delete(flat[3], 5))
    b.prune_connections(only)
    c.prune_connections(np.delete(np.arange(24).reshape(6, 4)[5], 0))
    _prune_units(d, fan_out=[0])
    before = model(X).numpy()
    record = remove_dead_neurons(model)
    assert difference(model(X), before) < 1e-6
    assert [change.units.tolist() for change in record.layers] == [[1, 3], [2, 5], [0]]
    assert [change.num_connected for change in record.layers] == [3, 4, 3]
    assert list(record.not_followed) == ["d"]
    for name in "abc":
        units = units_of(model, name)
        np.testing.assert_array_equal(units.fan_in() > 0, units.fan_out() > 0)
    again = remove_dead_neurons(model)
    assert again.count == 0
    assert str(again).startswith(
        "0 neurons and 0 connections changed, 3 connected in 'a', 4 connected"
    )


_WAYS = {
    "straight": lambda: [_layers.Flatten(), _dense(5, "tanh", "hidden")],
    "through layers": lambda: [
        _layers.Flatten(),
        _dense(5, name="hidden"),
        _layers.BatchNormalization(),
        _layers.Activation("sigmoid"),
        _layers.Dropout(0.5),
    ],
    "over time": lambda: [_dense(5, "tanh", "hidden"), _layers.ReLU()],
    "pooled and flattened": lambda: [
        _dense(5, "tanh", "hidden"),
        _layers.AveragePooling1D(2),
        _layers.BatchNormalization(),
        _layers.Flatten(),
        _layers.BatchNormalization(),
    ],
    "repeated": lambda: [
        _layers.Flatten(),
        _dense(5, "tanh", "hidden"),
        _layers.RepeatVector(3),
        _layers.Flatten(),
    ],
    "without bias": lambda: [_dense(5, "sigmoid", "hidden", use_bias=False), _layers.Flatten()],
}


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("way", _WAYS)
def test_a_constant_is_folded_into_the_biases_behind_it(way, is_plain):
    reader = _layers.Dense(3) if is_plain else _dense(3)
    model = _model(*_WAYS[way](), reader)
    hidden = model.get_layer("hidden")
    _prune_units(hidden, fan_in=[1, 4])
    before = model(X).numpy()
    record = remove_dead_neurons(model)
    assert difference(model(X), before) < 1e-6
    np.testing.assert_array_equal(record.layers[0].units, [1, 4])
    units = units_of(model, hidden)
    np.testing.assert_array_equal(units.fan_out() > 0, [True, False, True, True, False])
    assert record.layers[0].num_outgoing == 2 * 3 * units.group.read_by[0].indices.shape[1]
    if hidden.bias is not None:
        assert np.all(hidden.bias.numpy()[[1, 4]] == 0)


def test_where_a_reader_has_no_bias_the_unit_stays_and_is_reported():
    hidden, reader = _dense(5, "tanh", "hidden"), _dense(3, use_bias=False)
    model = _model(_layers.Flatten(), hidden, reader)
    _prune_units(hidden, fan_in=[2])
    before = [weight.tobytes() for weight in model.get_weights()]
    record = remove_dead_neurons(model)
    assert record.count == 0
    np.testing.assert_array_equal(record.layers[0].left, [2])
    assert [weight.tobytes() for weight in model.get_weights()] == before


def test_a_constant_behind_zero_padding_stays():
    hidden = _dense(5, "tanh", "hidden")
    model = _model(hidden, _layers.ZeroPadding1D(1), _layers.Flatten(), _dense(3))
    _prune_units(hidden, fan_in=[2])
    before = model(X).numpy()
    assert remove_dead_neurons(model).layers[0].left.tolist() == [2]
    np.testing.assert_array_equal(model(X), before)


def test_a_unit_with_two_readers_is_folded_into_both():
    x = keras.Input((6,))
    hidden = _dense(4, "tanh", "hidden")
    h = hidden(x)
    model = keras.Model(x, [_dense(2)(h), _layers.Dense(3)(_layers.BatchNormalization()(h))])
    _prune_units(hidden, fan_in=[0])
    before = [y.numpy() for y in model(X[:, :, 0])]
    assert remove_dead_neurons(model).layers[0].num_outgoing == 5
    for y, expected in zip(model(X[:, :, 0]), before, strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


def test_after_random_pruning_the_function_stays_and_nothing_dead_is_left():
    model = _model(
        _layers.Flatten(), _dense(20, "relu", "a"), _dense(15, "tanh", "b"), _dense(3, name="c")
    )
    prune(model, density=0.04, per_layer=True)
    before, num_active = model(X).numpy(), sum(layer.num_active for layer in model.layers[1:])
    record = remove_dead_neurons(model)
    assert difference(model(X), before) < 1e-6
    removed = sum(change.num_incoming + change.num_outgoing for change in record.layers)
    assert removed > 0
    assert sum(layer.num_active for layer in model.layers[1:]) == num_active - removed
    for name in ("a", "b"):
        units = units_of(model, name)
        np.testing.assert_array_equal(units.fan_in() > 0, units.fan_out() > 0)


def test_averages_of_weights_follow_the_folded_biases_and_the_rest_of_their_slots_stays():
    hidden, reader = _dense(5, "tanh", "hidden"), _dense(3)
    model = _model(_layers.Flatten(), hidden, reader)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), "mse")
    model.fit(X, np.ones((32, 3)), verbose=0)
    _prune_units(hidden, fan_in=[2])

    def state():
        held = slots(model.optimizer, reader.bias).items()
        return {name: slot.numpy() for name, slot in held} | {"bias": reader.bias.numpy()}

    before = state()
    remove_dead_neurons(model)
    moved = {name: after - before[name] for name, after in state().items()}
    assert set(moved) == {"bias", "momentums", "_model_variables_moving_average"}
    assert np.all(moved["bias"] != 0)
    average = moved["_model_variables_moving_average"]
    np.testing.assert_allclose(average, moved["bias"], rtol=1e-4)
    np.testing.assert_array_equal(moved["momentums"], 0)
