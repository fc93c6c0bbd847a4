"""Which layers read a layer's units: held by values, with one unit of the layer nudged at a time.

`keras_grow.structure.calls` relies on names that Keras does not make public. It was run on Keras
3.10.0, 3.13.0 and 3.15.1.
"""

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, SparseDense
from keras_grow.structure.calls import UnitsNotFollowed
from keras_grow.structure.passing import keeps_units_apart
from keras_grow.structure.topology import consumers

_layers = keras.layers


def _by_values(model, layer, consumer):
    """For each unit of `layer`, the inputs of `consumer` that move when only that unit does."""
    tail = keras.Model(layer.output, _layers.Identity()(consumer.inputs))
    random = np.random.default_rng(0)
    x = random.uniform(0.5, 1.5, size=(2, *layer.output.shape[1:])).astype("float32")
    moved = []
    for unit in range(x.shape[-1]):
        nudge = np.zeros_like(x)
        nudge[..., unit] = 10.0
        change = np.abs(np.asarray(tail(x + nudge)) - np.asarray(tail(x)))
        moved.append(np.flatnonzero(change.reshape(-1, change.shape[-1]).max(0) > 1e-3).tolist())
    return moved


def _convolution(*between):
    return [keras.Input((6, 6, 2)), _layers.Conv2D(3, 3, activation="relu"), *between]


_CASES = {
    "dense to dense": lambda: [keras.Input((4,)), GrowableDense(5, "tanh"), _layers.Dense(2)],
    "dense to sparse": lambda: [
        keras.Input((4,)),
        GrowableDense(5),
        _layers.ReLU(),
        SparseDense(2, capacity=3),
    ],
    "dense in between": lambda: [
        keras.Input((4,)),
        _layers.Dense(5),
        _layers.BatchNormalization(),
        _layers.Activation("relu"),
        _layers.Dropout(0.5),
        _layers.Flatten(),
        GrowableDense(2),
    ],
    "over time": lambda: [keras.Input((3, 4)), GrowableDense(5), _layers.Dense(2)],
    "over time, flattened": lambda: [
        keras.Input((3, 4)),
        GrowableDense(5),
        _layers.Flatten(),
        GrowableDense(2),
    ],
    "flattened maps": lambda: [*_convolution(_layers.Flatten()), GrowableDense(2)],
    "pooled, normalised, flattened maps": lambda: [
        *_convolution(
            _layers.MaxPooling2D(),
            _layers.SpatialDropout2D(0.1),
            _layers.BatchNormalization(axis=3),
            _layers.Flatten(),
            _layers.BatchNormalization(),
        ),
        GrowableDense(2),
    ],
    "averaged maps": lambda: [*_convolution(_layers.GlobalAveragePooling2D()), GrowableDense(2)],
    "resized maps, flattened": lambda: [
        *_convolution(
            _layers.UpSampling2D(2),
            _layers.Cropping2D(1),
            _layers.Flatten(),
        ),
        GrowableDense(2),
    ],
    "repeated units": lambda: [
        keras.Input((4,)),
        GrowableDense(5),
        _layers.RepeatVector(3),
        _layers.Dense(2),
    ],
    "maps to maps": lambda: [
        *_convolution(_layers.AveragePooling2D(2)),
        _layers.Conv2D(2, 2, name="reader"),
    ],
}


@pytest.mark.parametrize("is_functional", [False, True])
@pytest.mark.parametrize("case", _CASES)
def test_the_inputs_of_each_unit_are_those_that_move_with_it(case, is_functional):
    layers = _CASES[case]()
    model = keras.Sequential(layers)
    if is_functional:
        model = keras.Model(model.inputs, model.outputs)
    layer = layers[1]
    (consumer,) = consumers(model, layer)
    assert consumer.layer is layers[-1]
    assert [place.layer for place in consumer.passed] == layers[2:-1]
    assert [sorted(unit) for unit in consumer.indices.tolist()] == _by_values(
        model, layer, consumer
    )
    is_unit_by_unit = not any(
        word in case for word in ("flattened", "averaged", "maps to maps", "repeated")
    )
    assert consumer.is_unit_by_unit == is_unit_by_unit


def test_places_on_the_way_are_given_for_each_layer():
    layers = _CASES["pooled, normalised, flattened maps"]()
    (consumer,) = consumers(keras.Sequential(layers), layers[1])
    copies = [place.indices.shape for place in consumer.passed]
    assert copies == [(3, 1), (3, 1), (3, 1), (3, 1), (3, 4)]
    np.testing.assert_array_equal(consumer.indices[1], [1, 4, 7, 10])


def test_a_model_built_layer_by_layer_and_used_in_another_is_followed_as_it_is_now():
    model = keras.Sequential()
    for layer in (keras.Input((4,)), _layers.Dense(3), _layers.Dense(2), GrowableDense(1)):
        model.add(layer)
    hidden, reader, _ = model.layers
    # Another model that reads the same layer is not this model's business.
    keras.Model(model.inputs, _layers.Dense(7)(hidden.output))
    (consumer,) = consumers(model, hidden)
    assert consumer.layer is reader


def test_two_layers_may_read_the_units():
    x = keras.Input((4,))
    hidden = GrowableDense(5, "relu")
    h = hidden(x)
    a, b = (
        _layers.Dense(2, name="a")(h),
        GrowableDense(3, name="b")(_layers.BatchNormalization()(h)),
    )
    model = keras.Model(x, [a, b])
    assert [consumer.layer.name for consumer in consumers(model, hidden)] == ["a", "b"]


def _twice(h):
    shared = _layers.Dense(4, name="shared")
    return shared(shared(h))


def _nested(h):
    return keras.Sequential([keras.Input((4,)), _layers.Dense(2)], name="nested")(h)


_REFUSED = {
    "output of the model": lambda h, x: h,
    "'sum' \\(Add\\)": lambda h, x: _layers.Add(name="sum")([h, x]),
    "'both' \\(Concatenate\\)": lambda h, x: _layers.Concatenate(name="both")([h, x]),
    "Reshape\\) in the way": lambda h, x: _layers.Reshape((2, 2))(h),
    "Lambda\\) in the way": lambda h, x: _layers.Lambda(lambda t: t)(h),
    "PReLU\\) in the way": lambda h, x: _layers.PReLU()(h),
    "Softmax\\) in the way": lambda h, x: _layers.Softmax()(h),
    "LayerNormalization\\) in the way": lambda h, x: _layers.LayerNormalization()(h),
    "its activation mixes units": lambda h, x: _layers.Activation("softmax")(h),
    "'shared' \\(Dense\\) in the way: it is called more than once": lambda h, x: _twice(h),
    "'nested' \\(Sequential\\) in the way": lambda h, x: _nested(h),
    "Multiply\\) in the way": lambda h, x: h * 2.0,
}


@pytest.mark.parametrize("message", _REFUSED)
def test_what_is_in_the_way_is_named(message):
    x = keras.Input((4,), name="x")
    hidden = GrowableDense(4, "relu", name="hidden")
    tail = _REFUSED[message](hidden(x), x)
    outputs = tail if "output" in message else _layers.Dense(2)(tail)
    with pytest.raises(UnitsNotFollowed, match=message):
        consumers(keras.Model(x, outputs), hidden)


def test_layers_that_have_no_units_of_their_own_are_refused():
    shared = GrowableDense(4, name="shared")
    x = keras.Input((4,))
    wrapped = GrowableDense(2, name="wrapped")
    y = _layers.Flatten()(_layers.TimeDistributed(wrapped)(_layers.Reshape((2, 2))(shared(x))))
    model = keras.Model(x, _layers.Dense(1)(shared(y)))
    with pytest.raises(UnitsNotFollowed, match="'shared', which is called more than once"):
        consumers(model, shared)
    with pytest.raises(UnitsNotFollowed, match="'wrapped', which is no layer of the model"):
        consumers(model, wrapped)
    softmax = GrowableDense(4, "softmax", name="mixing")
    with pytest.raises(UnitsNotFollowed, match="'mixing' .* its activation mixes its units"):
        consumers(keras.Sequential([keras.Input((4,)), softmax, _layers.Dense(1)]), softmax)
    with pytest.raises(UnitsNotFollowed, match="subclassed or unbuilt model"):
        consumers(keras.Sequential([softmax]), softmax)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", True), ("gelu", True), ("linear", True), ("softmax", False), ("log_softmax", False)],
)
def test_activations_that_mix_units_are_told_by_what_they_do(activation, expected):
    assert keeps_units_apart(keras.activations.get(activation)) == expected
