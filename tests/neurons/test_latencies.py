"""Tables of latencies: which sizes are measured, how, and what becomes of the times."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_grow import (
    GrowableDense,
    SparseDense,
    budgets,
    make_growable,
    measure_latencies,
    prune_neurons,
)
from keras_grow.neurons import latencies


def _network():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1, strides=2, name="narrow")(x))
    return make_growable(keras.Model(inputs, layers.Dense(5, name="logits")(x)))


IMAGES = np.random.default_rng(0).normal(size=(4, 12, 10, 3)).astype("float32")


@pytest.fixture
def called(monkeypatch, clock):
    """What was measured: pairs of a layer (`None` for nothing) and shapes.

    A call takes a millisecond, and one for each thousand products.
    """
    calls = []

    def compiled(function, x):
        layer = function if isinstance(function, keras.Layer) else None
        calls.append((layer, tuple(x.shape)))
        size = 0 if layer is None else x.shape[-1] * int(np.prod(layer.kernel.shape[-1:]))
        return lambda: clock.spend(1e-3 + 1e-6 * size)

    monkeypatch.setattr(latencies, "compiled", compiled)
    return calls


def test_plain_layers_of_the_kind_are_called_at_the_sizes_that_the_model_gives(called):
    model = _network()
    table = measure_latencies(model, (IMAGES,), batch_size=2, shares=(1.0, 0.5), seconds=0)
    assert set(table) == {"conv", "depthwise", "narrow", "logits"}
    assert list(table["conv"]) == [(3, 8), (3, 16)]
    assert list(table["depthwise"]) == [(1, 8), (1, 16)]
    assert list(table["logits"]) == [(4, 5), (8, 5)]
    measured = [(type(layer), shape) for layer, shape in called if layer is not None]
    assert measured == [
        (layers.Conv2D, (2, 12, 10, 3)),
        (layers.Conv2D, (2, 12, 10, 3)),
        (layers.DepthwiseConv2D, (2, 12, 10, 8)),
        (layers.DepthwiseConv2D, (2, 12, 10, 16)),
        (layers.Conv2D, (2, 12, 10, 8)),
        (layers.Conv2D, (2, 12, 10, 16)),
        (layers.Dense, (2, 4)),
        (layers.Dense, (2, 8)),
    ]
    narrow = [layer for layer, shape in called if layer is not None][4]
    assert (narrow.filters, narrow.strides) == (4, (2, 2))


def test_milliseconds_are_those_beyond_a_call_of_nothing(called):
    table = measure_latencies(_network(), (IMAGES,), layers=["narrow"], seconds=0)
    assert list(table) == ["narrow"]
    expected = {(4, 2): 0.008, (8, 4): 0.032, (12, 6): 0.072, (16, 8): 0.128}
    assert table["narrow"] == pytest.approx(expected)
    assert table.batch_size == 1
    assert "narrow: 4 x 2: 0.008, 8 x 4: 0.032" in str(table)


def test_no_layer_is_faster_than_a_smaller_one(monkeypatch, clock):
    durations = iter([1e-3, 4e-3, 3e-3, 6e-3, 5e-3])

    def compiled(function, x):
        duration = next(durations)
        return lambda: clock.spend(duration)

    monkeypatch.setattr(latencies, "compiled", compiled)
    table = measure_latencies(_network(), (IMAGES,), layers=["narrow"], seconds=0)
    assert list(table["narrow"].values()) == pytest.approx([3, 3, 5, 5])


def test_a_table_is_saved_and_units_are_pruned_by_it(called, tmp_path):
    model = _network()
    table = measure_latencies(model, (IMAGES,), seconds=0)
    table.save(tmp_path / "table.json")
    again = budgets.LatencyTable.load(tmp_path / "table.json")
    assert dict(again) == dict(table)
    assert again.batch_size == table.batch_size
    record = prune_neurons(model, budget=budgets.Milliseconds(0.5, again), data=(IMAGES,))
    assert record.count > 0


def test_growable_and_sparse_layers_are_measured_as_dense_ones(called, snapshot):
    hidden = GrowableDense(8, "relu", initial_density=0.2, name="hidden")
    sparse = SparseDense(8, "relu", initial_density=0.2, name="sparse")
    model = keras.Sequential([keras.Input((6,)), hidden, sparse, layers.Dense(2)])
    before = snapshot(model)
    table = measure_latencies(model, shares=[1.0], seconds=0)
    snapshot.assert_same(model, before)
    assert table["sparse"].keys() == {(8, 8)}
    assert {type(layer) for layer, _ in called if layer} == {layers.Dense}


def test_a_compiled_call_returns_what_the_layer_makes():
    layer = layers.Dense(3)
    x = keras.ops.ones((2, 4))
    np.testing.assert_allclose(latencies.compiled(layer, x)(), layer(x), rtol=1e-5)
    table = measure_latencies(_network(), layers=["logits"], seconds=0.01)
    assert all(np.isfinite(t) and t >= 0 for t in table["logits"].values())


def test_what_can_not_be_measured_is_refused_in_words(called, tmp_path):
    model = _network()
    with pytest.raises(ValueError, match="`shares` must be numbers above 0"):
        measure_latencies(model, shares=(0.0, 1.0))
    with pytest.raises(ValueError, match="`batch_size` must be"):
        measure_latencies(model, batch_size=0)
    with pytest.raises(ValueError, match="Received: layers=\\['other'\\], expected some of"):
        measure_latencies(model, layers=["other"])
    with pytest.raises(ValueError, match="can't be run on this data"):
        measure_latencies(model, (np.zeros((2, 5)),))
    with pytest.raises(ValueError, match="no layer whose units could come and go"):
        measure_latencies(keras.Sequential([keras.Input((3,)), layers.ReLU()]))
    (tmp_path / "other.json").write_text('{"conv": 3}')
    with pytest.raises(ValueError, match="Received: .*other.json.*Measure and save it anew"):
        budgets.LatencyTable.load(tmp_path / "other.json")


def test_what_has_no_one_kernel_of_any_size_is_left_out():
    x = keras.Input((6, 8))
    y = keras.layers.Conv1D(8, 1, groups=4, name="grouped")(x)
    y = keras.layers.LSTM(5, name="lstm")(y)
    model = keras.Model(x, keras.layers.Dense(4, name="dense")(y))
    table = measure_latencies(model, seconds=0.01)
    assert [*table] == ["dense"]
