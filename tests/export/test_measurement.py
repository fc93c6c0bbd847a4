"""measure(): what each form costs, in one run, as a table and as data."""

import json

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, SparseDense, compact, measure, prune
from keras_grow.export import measurement
from keras_grow.export.side_by_side import interleaved_seconds

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
    measured = measure(model, (X, classes), seconds=0.1, batch_sizes=(1, 8), measures_memory=False)
    assert not measured.left_out
    forms = [form.form for form in measured.forms]
    assert forms == [*measurement.FORMS, measurement.DISPATCH]
    for form in measured.forms[:-1]:
        assert form.disk_bytes > 0
        assert [latency.batch_size for latency in form.latencies] == [1, 8]
        for latency in form.latencies:
            assert 0 < latency.lower <= latency.median <= latency.upper
            assert latency.rounds >= 5
        if form.form.startswith("dense"):
            assert form.error is None
            assert form.accuracy is None
        else:
            is_integer = form.form == "LiteRT int8"
            assert form.error < (0.2 if is_integer else 1e-3 if "float16" in form.form else 1e-5)
            assert form.accuracy > 0.9
            assert is_integer or form.accuracy == 1
    small = compact(model)
    widths = [len(layer.units) for layer in small.layers]
    dense_flops = 2 * (12 * 40 + 40 * 30 + 30 * 3)
    assert measured["dense LiteRT"].flops == measured["masked model"].flops == dense_flops
    compact_flops = 2 * (12 * widths[0] + widths[0] * widths[1] + widths[1] * 3)
    assert measured["compact model"].flops == compact_flops
    assert measured["LiteRT"].flops <= compact_flops
    assert measured["LiteRT"].disk_bytes < measured["dense LiteRT"].disk_bytes
    table = str(measured).splitlines()
    assert len(table) == 2 + len(forms)
    assert table[0].startswith("| form | disk, kB | memory, MB | FLOPs | batch 1, ms | batch 8, ms")
    assert json.loads(json.dumps(measured.as_dict()))["forms"][0]["form"] == "dense SavedModel"


def test_the_memory_of_an_export_is_measured_in_a_process_of_its_own():
    forms = ["masked model", "SavedModel", "LiteRT", "ONNX"]
    measured = measure(_model(), forms=forms, seconds=0.01, batch_sizes=(1,))
    assert measured["masked model"].memory_bytes is None
    assert all(measured[form].memory_bytes > 0 for form in forms[1:])
    assert measured["SavedModel"].memory_bytes != measured["LiteRT"].memory_bytes


def test_a_dense_original_of_its_own_is_judged_by_its_own_classes():
    model = _model()
    dense = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, name="d")])
    classes = np.argmax(dense(X), axis=-1)
    measured = measure(
        model,
        (X, classes),
        dense=dense,
        forms=["dense SavedModel", "masked model"],
        seconds=0.01,
        measures_memory=False,
    )
    assert measured["dense SavedModel"].accuracy == 1
    assert measured["dense SavedModel"].flops == 2 * 36
    assert measured["dense SavedModel"].memory_bytes is None
    expected = np.mean(np.argmax(model(X), axis=-1) == classes)
    assert measured["masked model"].accuracy == pytest.approx(expected)


def test_several_inputs_and_outputs_are_kept_apart_by_their_names():
    a, b = keras.Input((4,), name="zebra"), keras.Input((5,), name="ant")
    h = keras.layers.Concatenate()([GrowableDense(6, "relu")(a), GrowableDense(6, "relu")(b)])
    model = keras.Model(
        {"zebra": a, "ant": b},
        [GrowableDense(2, name="second")(h), GrowableDense(3, name="first")(h)],
    )
    prune(model, density=0.6)
    forms = ["masked model", "SavedModel", "LiteRT", "ONNX", "dense SavedModel"]
    measured = measure(model, forms=forms, seconds=0.01, batch_sizes=(4,), measures_memory=False)
    assert not measured.left_out
    assert all(measured[form].error < 1e-5 for form in forms[:-1])


def test_what_can_not_be_made_is_named_with_its_reason():
    model = keras.Sequential(
        [keras.Input((5, 12)), keras.layers.LSTM(4), SparseDense(2, capacity=4, name="s")]
    )
    measured = measure(model, forms=["SavedModel", "LiteRT"], seconds=0.01, measures_memory=False)
    assert [form.form for form in measured.forms] == ["SavedModel", measurement.DISPATCH]
    assert "unroll" in measured.left_out["LiteRT"]
    assert "LiteRT: " in str(measured)
    with pytest.raises(KeyError, match="There is no measurement of"):
        measured["LiteRT"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forms": ["TensorRT"]}, "`forms` must be some of"),
        ({"batch_sizes": (0,)}, "`batch_sizes` must be positive integers"),
        ({"data": (X, np.zeros(3))}, "one class for each sample"),
        ({"data": [X, X]}, "samples for the model's 1 inputs"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
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
