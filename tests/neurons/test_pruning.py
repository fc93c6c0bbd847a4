"""prune_neurons(): which units go, and all that goes with them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import (
    GrowableDense,
    SparseDense,
    WeightNormDense,
    grow_neurons,
    prune_neurons,
)
from keras_grow.errors import NothingToChange
from keras_grow.neurons.scores import Contribution, NeuronScore
from keras_grow.optimizer_slots import slots
from tests.neurons.connections import units_of

_layers = keras.layers


def _network(kind=GrowableDense, between=()):
    options = {"capacity": 1.0} if kind is SparseDense else {}
    layers = [
        kind(8, "relu", name="a", **options),
        *between,
        kind(6, "tanh", name="b", **options),
        kind(3, "softmax", name="c", **options),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    # Eagerly: a few steps are faster so than a trace.
    optimizer, loss = keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, run_eagerly=True)
    return model


def _read(model, name, x):
    """The inputs of a layer of the model, at inference."""
    hidden = tf.constant(x)
    for layer in model.layers:
        if layer.name == name:
            return hidden.numpy()
        hidden = layer(hidden)
    raise AssertionError(name)


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_exactly_the_units_of_smallest_mean_output_go(blobs, kind):
    model = _network(kind, [_layers.BatchNormalization()])
    model.fit(*blobs, epochs=2, verbose=0)
    outputs = [np.abs(_read(model, name, blobs[0])).mean(axis=0) for name in ("b", "c")]
    order = np.argsort(np.concatenate(outputs))[:5]
    expected = [order[order < 8], order[order >= 8] - 8]
    record = prune_neurons(model, count=5, data=blobs)
    assert record.count == 5
    for change, units in zip(record.layers, expected, strict=True):
        np.testing.assert_array_equal(change.units, np.sort(units))
    assert list(record.not_followed) == ["c"]
    assert "units of an output layer" in record.not_followed["c"]
    assert record.loss is None
    for name, units in zip(("a", "b"), expected):
        left = units_of(model, name)
        assert np.all(left.fan_in()[units] == 0)
        assert np.all(left.fan_out()[units] == 0)
        assert np.all(model.get_layer(name).bias.numpy()[units] == 0)
    first, second = record.layers
    assert (first.num_incoming, first.num_outgoing) == (8 * first.count, 6 * first.count)
    assert second.num_outgoing == 3 * second.count
    assert [change.num_connected for change in record.layers] == [8 - first.count, 6 - second.count]


def test_the_network_computes_what_it_does_without_these_units(blobs):
    model = _network()
    kernels = [layer.effective_kernel().numpy() for layer in model.layers]
    (first, second) = prune_neurons(model, count=4, data=blobs).layers
    kernels[0][:, first.units], kernels[1][:, second.units] = 0, 0
    a = np.maximum(blobs[0] @ kernels[0], 0)
    logits = np.tanh(a @ kernels[1]) @ kernels[2]
    np.testing.assert_allclose(model(blobs[0]), tf.nn.softmax(logits), atol=1e-6)


def test_a_threshold_takes_all_below_it_but_the_best_of_each_layer(blobs):
    model = _network()
    outputs = [np.abs(_read(model, name, blobs[0])).mean(axis=0) for name in ("b", "c")]
    threshold = np.sort(outputs[0])[3]
    record = prune_neurons(model, threshold=float(threshold) + 1e-6, data=blobs, layers=["a"])
    np.testing.assert_array_equal(record.layers[0].units, np.sort(np.argsort(outputs[0])[:4]))
    with pytest.raises(NothingToChange, match="No unit scores below"):
        prune_neurons(model, threshold=1e-9, data=blobs, layers=["b"])
    record = prune_neurons(model, threshold=1e9, data=blobs)
    assert [change.num_connected for change in record.layers] == [1, 1]
    np.testing.assert_array_equal(units_of(model, model.layers[1]).fan_out().nonzero()[0].size, 1)


def test_a_density_is_the_share_of_units_that_stay(blobs):
    model = _network()
    record = prune_neurons(model, density=0.5, data=blobs)
    assert record.count == 7
    with pytest.raises(NothingToChange, match="density=0.5, with 7 of 14 units connected"):
        prune_neurons(model, density=0.5, data=blobs)
    # Those that are gone count as gone.
    assert prune_neurons(model, density=0.36, data=blobs).count == 2
    assert (
        sum(
            change.num_connected for change in prune_neurons(model, density=0.01, data=blobs).layers
        )
        == 2
    )


def test_per_group_each_group_loses_its_share_by_itself(blobs):
    model = _network()
    outputs = [np.abs(_read(model, name, blobs[0])).mean(axis=0) for name in ("b", "c")]
    record = prune_neurons(model, density=0.5, per_group=True, data=blobs)
    for change, values, number in zip(record.layers, outputs, (4, 3), strict=True):
        np.testing.assert_array_equal(change.units, np.sort(np.argsort(values)[:number]))
    assert [
        change.count for change in prune_neurons(model, count=1, per_group=True, data=blobs).layers
    ] == [1, 1]
    with pytest.raises(NothingToChange, match="density=0.5"):
        prune_neurons(model, density=0.5, per_group=True, data=blobs)
    with pytest.raises(ValueError, match="count=2 of each group, with .2, 1. units to spare"):
        prune_neurons(model, count=2, per_group=True, data=blobs)


def test_a_contribution_weighs_the_output_by_the_outgoing_weights(blobs):
    model = _network()
    rms = np.sqrt(np.square(_read(model, "b", blobs[0])).mean(axis=0))
    norms = np.linalg.norm(model.layers[1].effective_kernel().numpy(), axis=1)
    record = prune_neurons(model, count=3, data=blobs, score=Contribution(), layers=["a"])
    np.testing.assert_array_equal(record.layers[0].units, np.sort(np.argsort(rms * norms)[:3]))


def test_flattened_positions_are_averaged_and_plain_weights_become_zero():
    hidden, reader = GrowableDense(4, name="hidden"), _layers.Dense(2)
    model = keras.Sequential([keras.Input((3, 5)), hidden, _layers.Flatten(), reader])
    x = np.random.default_rng(0).normal(size=(9, 3, 5)).astype("float32")
    size = np.abs(hidden(x)).mean(axis=(0, 1))
    record = prune_neurons(model, count=1, data=(x,))
    (unit,) = record.layers[0].units
    assert unit == np.argmin(size)
    assert record.layers[0].num_outgoing == 6
    kernel = reader.kernel.numpy().reshape(3, 4, 2)
    np.testing.assert_array_equal(np.any(kernel == 0, axis=(0, 2)), np.arange(4) == unit)


def test_named_inputs_and_two_readers_are_measured():
    x = keras.Input((5,), name="x")
    h = GrowableDense(4, "tanh", name="hidden")(x)
    readers = [_layers.Dense(2, name="p"), GrowableDense(3, name="q")]
    scaled = _layers.BatchNormalization(gamma_initializer=keras.initializers.Constant(10.0))(h)
    model = keras.Model({"x": x}, [readers[0](h), readers[1](scaled)])
    data = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")
    record = prune_neurons(model, count=2, data=({"x": data},))
    size = np.abs(model.get_layer("hidden")(data)).mean(axis=0)
    np.testing.assert_array_equal(record.layers[0].units, np.sort(np.argsort(size)[:2]))
    assert record.layers[0].num_outgoing == 2 * (2 + 3)


def test_slots_start_afresh_and_the_step_is_not_traced_again(blobs):
    model = _network()
    traces, step = [], model.train_step
    model.train_step = lambda data: traces.append(1) or step(data)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*blobs, batch_size=32, verbose=0)
    num_traces = len(traces)
    units = prune_neurons(model, count=2, data=blobs, layers=["a"]).layers[0].units
    for variable, axis in ((model.layers[0].kernel, 1), (model.layers[1].kernel, 0)):
        for slot in slots(model.optimizer, variable).values():
            assert np.all(np.take(slot.numpy(), units, axis) == 0)
    model.fit(*blobs, batch_size=32, verbose=0)
    assert len(traces) == num_traces > 0
    assert not np.any(units_of(model, model.layers[0]).fan_in()[units])


def test_neurons_are_born_where_others_were_pruned(blobs):
    model = _network()
    pruned = prune_neurons(model, count=2, data=blobs, layers=["a"]).layers[0].units
    np.testing.assert_array_equal(grow_neurons(model, blobs, "a", 2).layers[0].units, pruned)


class _NotFinite(NeuronScore):
    def __call__(self, outputs):
        return outputs.rms / 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of `count`"),
        ({"count": 1, "threshold": 0.1}, "exactly one of `count`"),
        ({"count": 0}, "positive integer. Received: count=0"),
        ({"count": 13}, "with 12 units to spare in \\['a', 'b'\\]"),
        ({"count": 1, "data": None}, "Received: data=None"),
        ({"count": 1, "layers": ["c"]}, "units of an output layer"),
        ({"count": 1, "score": _NotFinite()}, "one finite number per unit"),
        ({"count": 1, "data": (np.zeros((4, 5)),)}, "could not be run on the data"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(blobs, snapshot, arguments, message):
    model = _network()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        prune_neurons(model, **{"data": blobs, **arguments})
    snapshot.assert_same(model, before)


def test_a_model_without_hidden_units_and_a_score_by_name_are_refused(blobs):
    model = keras.Sequential([keras.Input((8,)), GrowableDense(3, name="only")])
    with pytest.raises(
        ValueError, match="no hidden growable layer .* only: .* units of an output layer"
    ):
        prune_neurons(model, count=1, data=blobs)
    with pytest.raises(TypeError, match="`score` must be an object of a subclass"):
        prune_neurons(_network(), count=1, data=blobs, score="magnitude")


def test_all_layers_are_measured_in_one_pass_and_one_trace(blobs):
    model = _network(between=[_layers.BatchNormalization()])
    traces, passes = [], []
    normalization = model.layers[1]
    call = normalization.call
    normalization.call = lambda *args, **options: traces.append(1) or call(*args, **options)

    def batches():
        passes.append(1)
        yield from ((blobs[0][start : start + 32],) for start in range(0, 96, 32))

    dataset = tf.data.Dataset.from_generator(
        batches, output_signature=(tf.TensorSpec((32, 8), tf.float32),)
    )
    prune_neurons(model, count=2, data=dataset)
    assert len(passes) == 1
    # TensorFlow traces a step; Keras calls layers symbolically once more to make a model of them.
    assert len(traces) <= 2


def test_where_no_layers_units_can_go_each_layer_in_the_way_is_named():
    layers = [
        keras_grow.GrowableDense(6, name="first"),
        keras.layers.LayerNormalization(name="mixes"),
        keras_grow.GrowableDense(2, name="last"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    data = (np.zeros((3, 4), "float32"),)
    with pytest.raises(ValueError, match="first: .*'mixes' .LayerNormalization. in the way"):
        keras_grow.prune_neurons(model, count=1, data=data)
