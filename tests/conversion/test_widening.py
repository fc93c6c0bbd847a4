"""widen(): more units, the same function, and a training that goes on as it would have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableDense,
    SparseDense,
    WeightNormDense,
    convert_optimizer,
    grow_neurons,
    make_growable,
    make_plain,
    make_sparse,
    widen,
)
from keras_grow.conversion.widening import carried_axes
from keras_grow.neurons.initializers import SingularVectors
from keras_grow.optimizer_slots import slots, steps_made
from keras_grow.structure.axes import axes_of, places
from tests.neurons.connections import units_of
from tests.random_models import difference

_layers = keras.layers
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(64, 6, 4)).astype("float32")
Y = _RANDOM.normal(size=(64, 3)).astype("float32")


def _dense(units, activation=None, name=None):
    return GrowableDense(units, activation, initial_density=0.5, name=name)


def _masked():
    return [_layers.Flatten(), _dense(8, "relu", "hidden"), _dense(5, "tanh"), _dense(3)]


def _weight_normalized():
    hidden = WeightNormDense(8, initial_density=0.5, name="hidden")
    reader = WeightNormDense(5, "tanh", initial_density=0.5)
    between = [_layers.BatchNormalization(), _layers.Activation("relu")]
    return [_layers.Flatten(), hidden, *between, reader, _layers.Dense(3)]


def _sparse():
    hidden = SparseDense(8, "relu", initial_density=0.4, capacity=0.6, name="hidden")
    reader = SparseDense(5, "tanh", initial_density=0.4, capacity=0.9)
    return [_layers.Flatten(), hidden, _layers.Dropout(0.0), reader, _dense(3)]


def _read_by_a_plain_layer():
    return [_layers.Flatten(), _dense(8, "relu", "hidden"), _layers.Dense(3)]


def _flattened():
    # Each unit is read at six places, as the maps of a convolution are.
    between = [_layers.MaxPooling1D(2), _layers.Flatten(), _layers.BatchNormalization()]
    return [_dense(8, "relu", "hidden"), *between, _dense(5, "tanh"), _layers.Dense(3)]


def _flattened_and_sparse():
    hidden = SparseDense(8, "relu", initial_density=0.5, name="hidden")
    return [hidden, _layers.Flatten(), SparseDense(3, initial_density=0.3, capacity=0.5)]


_CASES = {
    "masked": _masked,
    "weight normalized": _weight_normalized,
    "sparse": _sparse,
    "read by a plain layer": _read_by_a_plain_layer,
    "flattened": _flattened,
    "flattened and sparse": _flattened_and_sparse,
}


def _trained(case):
    """A model with a hidden layer of 8 units, trained for 4 steps."""
    model = keras.Sequential([keras.Input((6, 4)), *_CASES[case]()])
    # Eagerly, here and below: a few steps are faster so than a trace.
    model.compile(keras.optimizers.Adam(0.01, epsilon=1e-3), "mse", run_eagerly=True)
    for _ in range(4):
        model.train_on_batch(X, Y)
    return model


@pytest.fixture(params=_CASES)
def model(request):
    return _trained(request.param)


def _widened(model, units=13):
    wider = widen(model, "hidden", units)
    wider.compile(convert_optimizer(model, wider), "mse", run_eagerly=True)
    return wider


def _variable_pairs(model, wider):
    """Variables of both, and where the entries of the first stand in the second."""
    axes = carried_axes(model, wider)
    for old, new in zip(model.layers, wider.layers, strict=True):
        for a, b in zip(old.trainable_variables, new.trainable_variables, strict=True):
            is_list = isinstance(old, SparseDense) and len(a.shape) == 1 and a.name == "values"
            moved = {} if is_list else axes_of(old, a, axes.get(id(old), {}))
            sides = places(a.shape, b.shape, moved)
            yield a, b, *(side.numpy() for side in sides)


def test_the_function_is_the_same(model):
    wider = widen(model, "hidden", 13)
    assert type(wider) is type(model)
    assert not wider.compiled
    assert wider.get_layer("hidden").units == 13
    for training in (False, True):
        assert difference(wider(X, training=training), model(X, training=training)) < 1e-6


def test_new_units_are_dormant_and_all_others_as_they_were(model):
    wider = widen(model, "hidden", 13)
    old, new = (units_of(m, "hidden") for m in (model, wider))
    np.testing.assert_array_equal(new.fan_in(), [*old.fan_in(), *[0] * 5])
    np.testing.assert_array_equal(new.fan_out(), [*old.fan_out(), *[0] * 5])
    for a, b, at, to in _variable_pairs(model, wider):
        values = b.numpy().reshape(-1)
        np.testing.assert_array_equal(values[to], a.numpy().reshape(-1)[at])
        rest = np.delete(values, to)
        assert np.all(rest == (1 if a.name == "gamma" else 0))
    for layer in wider.layers:
        if isinstance(layer, _layers.BatchNormalization):
            fresh = layer.moving_variance.numpy() == 1
            assert fresh.sum() * 13 == len(fresh) * 5


def test_training_goes_on_with_the_same_numbers_and_the_new_units_stay_dormant(model):
    wider = _widened(model)
    assert steps_made(wider.optimizer) == steps_made(model.optimizer) == 4
    for a, b, at, to in _variable_pairs(model, wider):
        carried, fresh = slots(model.optimizer, a), slots(wider.optimizer, b)
        assert len(fresh) == 2
        for name, slot in fresh.items():
            flat = slot.numpy().reshape(-1)
            np.testing.assert_array_equal(flat[to], carried[name].numpy().reshape(-1)[at])
            np.testing.assert_array_equal(np.delete(flat, to), 0)
    for each in (model, wider):
        for _ in range(3):
            each.train_on_batch(X, Y)
    for a, b, at, to in _variable_pairs(model, wider):
        old, new = a.numpy().reshape(-1)[at], b.numpy().reshape(-1)[to]
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)
    units = units_of(wider, "hidden")
    assert not np.any(units.fan_in()[8:])
    if isinstance(wider.layers[-1], GrowableDense):
        assert not np.any(units.fan_out()[8:])


@pytest.mark.parametrize("case", ["masked", "weight normalized", "sparse"])
def test_neurons_grow_in_the_wider_model(case):
    model = _trained(case)
    wider = _widened(model)
    before = wider(X).numpy()
    record = grow_neurons(
        wider, (X, Y), "hidden", 3, initializer=SingularVectors(num_inputs=9, num_outputs=4)
    )
    np.testing.assert_array_equal(record.layers[0].units, [8, 9, 10])
    np.testing.assert_allclose(wider(X), before, rtol=0, atol=1e-6)


def test_widening_twice_and_in_two_layers_is_widening_once():
    model = keras.Sequential([keras.Input((6, 4)), *_masked()])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    in_turns = widen(widen(widen(model, "hidden", 9), "hidden", 12), model.layers[2].name, 7)
    at_once = widen(widen(model, model.layers[2].name, 7), "hidden", 12)
    for a, b in zip(in_turns.get_weights(), at_once.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    in_turns.compile(convert_optimizer(model, in_turns), "mse", run_eagerly=True)
    for each in (model, in_turns):
        each.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(in_turns(X), model(X), atol=1e-5)


def test_widening_and_converting_together_carry_the_optimizer_over():
    model = keras.Sequential([keras.Input((6, 4)), *_masked()])
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=64, verbose=0)
    sparse = widen(make_sparse(model), "hidden", 12)
    masked = make_growable(widen(make_sparse(model), "hidden", 12))
    plain = make_plain(widen(model, "hidden", 12))
    np.testing.assert_allclose(plain(X), model(X), atol=1e-6)
    kernel, optimizer = model.get_layer("hidden").kernel, convert_optimizer(model, plain)
    for name, slot in slots(optimizer, plain.get_layer("hidden").kernel).items():
        np.testing.assert_array_equal(slot[:, :8], slots(model.optimizer, kernel)[name])
    model_losses = None
    copies = [sparse, masked]
    for copy in copies:
        copy.compile(convert_optimizer(model, copy), "mse", run_eagerly=True)
    for each in (model, *copies):
        history = each.fit(X, Y, batch_size=64, epochs=4, shuffle=False, verbose=0).history
        losses = history["loss"]
        model_losses = model_losses or losses
        np.testing.assert_allclose(losses, model_losses, rtol=1e-5)


def test_a_functional_model_with_two_readers_is_widened():
    x = keras.Input((6,))
    h = GrowableDense(4, "relu", name="hidden")(x)
    a, b = _layers.Dense(2, name="a")(_layers.BatchNormalization()(h)), _dense(3, name="b")(h)
    model = keras.Model(x, [a, _layers.Concatenate()([a, b])])
    wider = widen(model, "hidden", 6)
    x = tf.constant(X[:, :, 0])
    for y, wide_y in zip(model(x), wider(x), strict=True):
        np.testing.assert_allclose(wide_y, y, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "units", "message"),
    [
        ("hidden", 8, "integer above the 8 that layer 'hidden' has. Received: units=8"),
        ("hidden", 9.5, "Received: units=9.5"),
        ("hidden", True, "Received: units=True"),
        ("absent", 9, "Received: 'absent', expected one of \\['hidden'"),
        ("last", 9, "units of an output layer"),
    ],
)
def test_what_cannot_be_widened_is_refused_in_words(layer, units, message):
    layers = [_layers.Flatten(), _dense(8, name="hidden"), _dense(3, name="last")]
    model = keras.Sequential([keras.Input((6, 4)), *layers])
    with pytest.raises(ValueError, match=message):
        widen(model, layer, units)


def test_a_narrower_model_was_not_made_from_a_wider_one():
    model = keras.Sequential([keras.Input((6, 4)), *_masked()])
    wider = widen(model, "hidden", 12)
    wider.compile("adam", "mse")
    with pytest.raises(ValueError, match="must have been made from `model`"):
        convert_optimizer(wider, model)
