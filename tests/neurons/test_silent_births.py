"""Units that are born silent, in whatever layers: the function stays, and they learn."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import GradientMeter, grow_feature_maps, growth_gradients, make_growable, widen
from keras_grow.optimizer_slots import slots

_layers = keras.layers
_ADDED = 2


def _conv(maps, size, name, **arguments):
    return _layers.Conv2D(maps, size, padding="same", name=name, **arguments)


def _residual(x):
    x = _layers.ReLU()(_layers.BatchNormalization()(_conv(4, 3, "stem", use_bias=False)(x)))
    y = _layers.ReLU()(_layers.BatchNormalization()(_conv(5, 3, "inner")(x)))
    return _layers.ReLU()(x + _layers.BatchNormalization()(_conv(4, 3, "end")(y)))


def _inverted(x):
    x = _conv(4, 1, "stem")(x)
    y = _layers.BatchNormalization()(_conv(6, 1, "expansion", use_bias=False)(x))
    y = _layers.DepthwiseConv2D(3, padding="same", name="depthwise")(_layers.ReLU(6.0)(y))
    y = _layers.ReLU(6.0)(_layers.BatchNormalization()(y))
    return x + _layers.BatchNormalization()(_conv(4, 1, "projection")(y))


def _multiplied(x):
    x = _conv(3, 3, "stem", activation="relu")(x)
    x = _layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise")(x)
    return _conv(4, 1, "end", activation="relu")(x)


def _concatenated(x):
    for name in ("first", "second"):
        y = _conv(3, 3, name)(_layers.ReLU()(_layers.BatchNormalization()(x)))
        x = _layers.Concatenate()([x, y])
    return x


def _excited(x):
    x = _conv(4, 3, "stem", activation="relu")(x)
    y = _layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = _conv(4, 1, "excitation", activation="sigmoid")(_conv(3, 1, "squeeze")(y))
    return _layers.Multiply()([x, y])


def _separable(x):
    x = _conv(4, 1, "stem", activation="relu")(x)
    return _layers.SeparableConv2D(5, 3, activation="relu", name="separable")(x)


def _recurrent(x):
    x, again = _conv(4, 3, "stem")(x), _conv(4, 3, "again")
    return x + again(x)


# Each network, and the layers after which groups of it are called that can grow.
NETWORKS = [
    (_residual, "stem"),
    (_residual, "inner"),
    (_inverted, "stem"),
    (_inverted, "expansion"),
    (_multiplied, "stem"),
    (_concatenated, "first"),
    (_concatenated, "second"),
    (_excited, "stem"),
    (_excited, "squeeze"),
    (_separable, "stem"),
    (_recurrent, "stem"),
]


def _compiled(model):
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _network(body, layers=None):
    """A trained network, growable."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 3))
    x = _layers.GlobalAveragePooling2D()(body(inputs))
    model = keras.Model(inputs, _layers.Dense(3, name="classes")(x))
    growable = _compiled(make_growable(model, layers, verify=False))
    growable.fit(*_data(), epochs=2, verbose=0)
    return growable


def _data():
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = random.normal(size=(48, 6, 6, 3)) + random.normal(size=(3, 6, 6, 3))[labels]
    return images.astype("float32"), labels


def _wider(model, layer):
    count = model.get_layer(layer).axes.num_units
    wider = widen(model, layer, count + _ADDED, verify=False)
    return _compiled(wider), np.arange(count, count + _ADDED)


def _group(model, layer):
    (group,) = [
        group for group in keras_grow.groups(model) if layer in [e.path for e in group.made_by]
    ]
    return group


def _outgoing(model, layer, newborn):
    """Bool arrays: which connections of each reader lead out of newborns."""
    found = {}
    for end in _group(model, layer).read_by:
        axes = end.layer.axes
        inputs = axes.inputs_of(np.arange(axes.size))
        found[end.layer] = np.isin(inputs, end.indices[newborn]).reshape(axes.shape)
    return found


def _kernel(layer):
    return layer.kernel_variables[0]


@pytest.mark.parametrize(("body", "layer"), NETWORKS)
def test_silent_maps_leave_the_function_and_learn_in_every_layer(body, layer):
    model, newborn = _wider(_network(body), layer)
    data = _data()
    before = model(data[0]).numpy()
    record = grow_feature_maps(model, data, layer, count=_ADDED, candidates=3, is_silent=True)
    np.testing.assert_allclose(model(data[0]), before, rtol=0, atol=1e-6 * np.abs(before).max())
    assert record.losses == ()
    np.testing.assert_allclose(record.loss, record.loss_before, rtol=1e-5)
    assert np.min(record.promises) > 0
    # Once something leads out of them, what leads into them learns too, filters among it.
    outgoing = _outgoing(model, layer, newborn)
    for reader, leads_out in outgoing.items():
        kernel = _kernel(reader)
        assert not kernel.numpy()[leads_out].any()
        values = np.random.default_rng(1).normal(0, 0.1, kernel.shape)
        kernel.assign(np.where(leads_out, values, kernel.numpy()))
    group = _group(model, layer)
    gradients = growth_gradients(model, data)
    for end in (*group.made_by, *group.passed):
        for kernel in getattr(end.layer, "masked_kernels", [end.layer]):
            if kernel not in gradients:
                continue
            axes = kernel.axes
            units = axes.units_of(np.arange(axes.size)).reshape(axes.shape)
            for unit in newborn:
                into = np.isin(units, end.indices[unit])
                assert np.abs(gradients[kernel].numpy()[into]).max() > 0
                assert np.abs(_kernel(kernel).numpy()[into]).max() > 0


def _gated(x):
    return _layers.Dense(5, "silu", name="gated")(x) * _layers.Dense(5, name="gate")(x)


def _attending(x, layer):
    x = _layers.Dense(4)(x)
    return layer(x, x)


_MHA, _GQA = _layers.MultiHeadAttention, _layers.GroupQueryAttention
# Layers between 5 steps of 4 numbers and a mean over these, and what `groups` calls units of them.
UNITS = {
    "LSTM": ("x", lambda x: _layers.LSTM(3, return_sequences=True, name="x")(x)),
    "GRU": ("x", lambda x: _layers.GRU(3, return_sequences=True, name="x")(x)),
    "both ways": (
        "x/forward",
        lambda x: _layers.Bidirectional(_layers.GRU(3, return_sequences=True), name="x")(x),
    ),
    "heads": ("x/heads", lambda x: _attending(x, _MHA(2, 3, name="x"))),
    "sizes of values": ("x/value_size", lambda x: _attending(x, _MHA(2, 3, name="x"))),
    "heads of groups": ("x/heads", lambda x: _attending(x, _GQA(3, 4, 2, name="x"))),
    "gated": ("gated", _gated),
    "einsum": ("x", lambda x: _layers.EinsumDense("abc,cd->abd", (5, 4), name="x")(x)),
    "transposed": ("x", lambda x: _layers.Conv1DTranspose(4, 2, activation="relu", name="x")(x)),
    "separable": ("x", lambda x: _layers.SeparableConv1D(4, 2, name="x")(x)),
}


@pytest.mark.parametrize("kind", UNITS)
def test_units_of_whatever_layer_are_born_silent_beside_others(kind):
    keras.utils.set_random_seed(3)
    name, body = UNITS[kind]
    inputs = keras.Input((5, 4))
    outputs = _layers.Dense(3)(_layers.GlobalAveragePooling1D()(body(inputs)))
    model = make_growable(keras.Model(inputs, outputs), verify=False)
    (group,) = [g for g in keras_grow.groups(model) if name in [e.units for e in g.made_by]]
    wider = _compiled(widen(model, name, group.count + _ADDED, verify=False))
    random = np.random.default_rng(0)
    data = random.normal(size=(12, 5, 4)).astype("float32"), np.arange(12) % 3
    before = wider(data[0]).numpy()
    scale = np.abs(before).max()
    record = grow_feature_maps(wider, data, name, candidates=3, is_silent=True)
    np.testing.assert_allclose(wider(data[0]), before, rtol=0, atol=1e-6 * scale)
    assert np.min(record.promises) > 0
    assert record.layer.num_connected == group.count + 1
    record = grow_feature_maps(wider, data, name, candidates=3)
    assert np.abs(wider(data[0]).numpy() - before).max() > 1e-4 * scale
    np.testing.assert_allclose(wider.evaluate(*data, verbose=0), record.loss, rtol=1e-5)
    assert record.layer.num_connected == group.count + 2


def _attention(layer, name):
    inputs = keras.Input((5, 4))
    outputs = _layers.Dense(3)(_layers.GlobalAveragePooling1D()(layer(inputs, inputs)))
    model = make_growable(keras.Model(inputs, outputs), verify=False)
    (group,) = [g for g in keras_grow.groups(model) if name in [e.units for e in g.made_by]]
    return _compiled(widen(model, name, group.count + 1, verify=False))


@pytest.mark.parametrize(
    ("layer", "name", "words"),
    [
        (_MHA(2, 3, name="x"), "x/key_size", "others out of it. Received: layer 'x/key_size'"),
        # What is a dimension of keys and of values acts through the softmax too.
        (_GQA(3, 4, 2, name="x"), "x/size", "can't be born silent. Received: layer 'x/size'"),
    ],
)
def test_units_that_would_change_the_function_are_not_born_silent(layer, name, words):
    model = _attention(layer, name)
    data = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32"), np.arange(6) % 3
    before = model.get_weights()
    with pytest.raises(ValueError, match=words):
        grow_feature_maps(model, data, name, is_silent=True)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert grow_feature_maps(model, data, name, candidates=2).count == 1


def test_the_slots_of_silent_maps_start_afresh_and_candidates_are_those_of_the_seed():
    records = []
    for seed in (0, 0, 1):
        model, newborn = _wider(_network(_residual), "inner")
        model.fit(*_data(), verbose=0)
        for slot in slots(model.optimizer, model.get_layer("inner").kernel).values():
            slot.assign(np.ones(slot.shape))
        options = {"candidates": 2, "is_silent": True, "seed": seed}
        records.append(grow_feature_maps(model, _data(), "inner", **options))
        for slot in slots(model.optimizer, model.get_layer("inner").kernel).values():
            assert not slot.numpy()[..., newborn[0]].any()
            assert slot.numpy()[..., newborn[1]].all()
    first, again, other = records
    assert first.promises == again.promises
    assert first.promises != other.promises


def test_the_promise_of_a_map_is_how_fast_the_loss_falls_along_its_outgoing_weights():
    keras.config.set_dtype_policy("float64")
    try:
        model, newborn = _wider(_network(_residual), "inner")
    finally:
        keras.config.set_dtype_policy("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    data, meter = _data(), GradientMeter(loss, training=False)
    options = {"count": _ADDED, "candidates": 4, "is_silent": True, "meter": meter}
    record = grow_feature_maps(model, data, "inner", **options)
    gradients = meter.measure(model, data).gradients
    for unit, promises in zip(newborn, record.promises, strict=True):
        ((reader, leads_out),) = _outgoing(model, "inner", [unit]).items()
        slope = np.where(leads_out, gradients[reader].numpy(), 0)
        step = 1e-5 * slope / np.linalg.norm(slope)
        kernel, losses = _kernel(reader), []
        for sign in (1, -2):
            kernel.assign_add(sign * step)
            losses.append(meter.mean_loss(model, data))
        kernel.assign_add(step)
        np.testing.assert_allclose((losses[0] - losses[1]) / 2e-5, max(promises), rtol=1e-4)


def test_where_silent_births_fail_all_stays_as_it_was():
    model, newborn = _wider(_network(_inverted), "expansion")
    model.fit(*_data(), verbose=0)
    (filters,) = model.get_layer("depthwise").masked_kernels
    filters.kernel.assign(np.where(np.arange(8)[:, None] == newborn[0], 0, filters.kernel.numpy()))
    before = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    images, labels = _data()
    images[40] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        grow_feature_maps(model, (images, labels), "expansion", is_silent=True)
    for a, v in zip(before, (*model.variables, *model.optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, v.numpy())
