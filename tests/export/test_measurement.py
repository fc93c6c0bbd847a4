"""measure(): what each form costs, in one run, as a table and as data."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, SparseDense, formats, measure, prune
from keras_grow.export.measurement import KERAS_MODEL
from keras_grow.export.turns import interleaved_seconds

X = np.random.default_rng(0).normal(size=(70, 12)).astype("float32")


def _model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,), name="rows"),
            GrowableDense(40, "relu", name="a"),
            keras.layers.BatchNormalization(),
            GrowableDense(30, "relu", name="b"),
            GrowableDense(3, "softmax", name="c"),
        ]
    )
    prune(model, density=0.1)
    return model


def test_every_form_is_measured_and_computes_what_the_model_does():
    model = _model()
    classes = np.argmax(model(X), axis=-1)
    every = [form() for form in formats.FORMATS]
    every += [formats.LiteRT("float16"), formats.LiteRT("int8", calibration_data=X)]
    measured = measure(
        model,
        (X, classes),
        dense=_dense_original(),
        formats=every,
        seconds=0.1,
        batch_sizes=(1, 8),
    )
    assert not measured.left_out
    labels = [form.label for form in every]
    names = [form.form for form in measured.forms]
    assert names == [KERAS_MODEL, *labels, *(f"dense {label}" for label in labels)]
    assert {"SavedModel", "LiteRT", "ONNX", "LiteRT float16", "LiteRT int8, calibrated"} <= {*names}
    for form in measured.forms:
        assert form.disk_bytes > 0
        assert [latency.batch_size for latency in form.latencies] == [1, 8]
        for latency in form.latencies:
            assert 0 < latency.lower <= latency.median <= latency.upper
            assert latency.rounds >= 5
        assert form.agreement == form.accuracy
        if form.form.startswith("dense"):
            assert form.error is None
        else:
            is_integer = "int8" in form.form
            assert form.error < (0.2 if is_integer else 1e-3 if "float16" in form.form else 1e-5)
            assert form.accuracy > 0.9
            assert is_integer or form.accuracy == 1
    assert measured["LiteRT"].disk_bytes < measured["dense LiteRT"].disk_bytes
    assert measured["LiteRT float16"].disk_bytes < measured["LiteRT"].disk_bytes
    table = str(measured).splitlines()
    assert len(table) == 2 + len(names)
    assert table[0].startswith("| form | disk, kB | batch 1, ms | batch 8, ms | error | agreement")
    data = json.loads(json.dumps(dataclasses.asdict(measured)))
    assert data["forms"][0]["form"] == KERAS_MODEL


def test_by_default_one_of_each_format_is_measured():
    measured = measure(_model(), seconds=0.01, batch_sizes=(1,))
    assert not measured.left_out
    names = [form.form for form in measured.forms]
    assert names == [KERAS_MODEL, *(form.name for form in formats.FORMATS)]
    assert all(form.accuracy is None for form in measured.forms)


def _dense_original():
    keras.utils.set_random_seed(1)
    layers = [(40, "relu"), (30, "relu"), (3, "softmax")]
    return keras.Sequential([keras.Input((12,)), *(keras.layers.Dense(*each) for each in layers)])


def test_a_dense_original_of_its_own_is_judged_by_its_own_classes():
    model = _model()
    dense = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, name="d")])
    classes = np.argmax(dense(X), axis=-1)
    measured = measure(
        model, (X, classes), dense=dense, formats=[formats.SavedModel()], seconds=0.01
    )
    assert measured["dense SavedModel"].accuracy == 1
    expected = np.mean(np.argmax(model(X), axis=-1) == classes)
    assert measured["SavedModel"].accuracy == pytest.approx(expected)
    assert measured["dense SavedModel"].agreement == pytest.approx(expected)


def test_several_inputs_and_outputs_are_kept_apart_by_their_names():
    a, b = keras.Input((4,), name="zebra"), keras.Input((5,), name="ant")
    h = keras.layers.Concatenate()([GrowableDense(6, "relu")(a), GrowableDense(6, "relu")(b)])
    model = keras.Model(
        {"zebra": a, "ant": b},
        [GrowableDense(2, name="second")(h), GrowableDense(3, name="first")(h)],
    )
    prune(model, density=0.6)
    measured = measure(model, dense=model, seconds=0.01, batch_sizes=(4,))
    assert not measured.left_out
    assert all(form.error < 1e-5 for form in measured.forms if form.error is not None)
    assert all(form.agreement == 1 for form in measured.forms)


def test_what_can_not_be_made_is_named_with_its_reason():
    model = keras.Sequential(
        [keras.Input((5, 12)), keras.layers.LSTM(4), SparseDense(2, capacity=4, name="s")]
    )
    measured = measure(model, formats=[formats.SavedModel(), formats.LiteRT()], seconds=0.01)
    assert [form.form for form in measured.forms] == [KERAS_MODEL, "SavedModel"]
    assert "unroll" in measured.left_out["LiteRT"]
    assert "LiteRT: " in str(measured)
    with pytest.raises(KeyError, match="There is no measurement of"):
        measured["LiteRT"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["TensorRT"]}, "`formats` must be objects such as"),
        ({"formats": [formats.LiteRT]}, "`formats` must be objects such as"),
        ({"batch_sizes": (0,)}, "`batch_sizes` must be"),
        ({"data": (X, np.zeros(3))}, "one class for each sample"),
        ({"data": [X, X]}, "Received: 2 arrays, expected 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        measure(_model(), **arguments)


def test_turns_are_as_long_for_fast_functions_as_for_slow_ones(clock):
    calls = {"fast": 0, "slow": 0}

    def call(name, seconds):
        def function():
            calls[name] += 1
            clock.spend(seconds)

        return function

    times = interleaved_seconds([call("fast", 0.00009), call("slow", 0.003)], 0.05)
    # 22 fast calls fit into two milliseconds; ten rounds of 5 ms end a little before the 50.
    assert len(times[0]) == len(times[1]) == 11
    assert calls == {"fast": 22 * 11 + 2, "slow": 11 + 2}
    np.testing.assert_allclose(times, [[0.00009] * 11, [0.003] * 11])
