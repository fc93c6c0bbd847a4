"""Connections that go and come in a pattern, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import drop_and_grow, grow, patterns, prune, scores, sparse_training
from keras_grow.errors import NothingToChange
from keras_grow.search.in_pattern import InPattern

_KINDS = [keras_grow.GrowableDense, keras_grow.WeightNormDense, keras_grow.SparseDense]


def _network(kind, **arguments):
    if kind is keras_grow.SparseDense:
        arguments["capacity"] = 1.0
    layers = [
        kind(8, activation="tanh", name="a", seed=1, **arguments),
        kind(4, name="b", seed=2, **arguments),
    ]
    model = keras.Sequential([keras.Input((12,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def _in_pattern(model, pattern):
    """Whether the active connections of each layer lie in a pattern, whole atoms of it."""
    placed = [(InPattern(pattern, layer.axes), _active(layer)) for layer in model.layers]
    return all(each.has_room_for(x) and each.are_whole(x) for each, x in placed)


def _active(layer):
    return layer.active_connections()[0].numpy()


def _gradients(model, data):
    """dL/dW of both kernels, in float64."""
    kernels = [tf.cast(layer.effective_kernel(), tf.float64) for layer in model.layers]
    biases = [tf.cast(layer.bias.value, tf.float64) for layer in model.layers]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        hidden = tf.tanh(tf.cast(data[0], tf.float64) @ kernels[0] + biases[0])
        errors = hidden @ kernels[1] + biases[1] - data[1]
        loss = tf.reduce_mean(tf.square(errors))
    return tape.gradient(loss, kernels)


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 12)).astype("float32")
    return x, random.normal(size=(60, 4)).astype("float32")


@pytest.mark.parametrize("kind", _KINDS)
def test_a_network_is_pruned_to_a_pattern_and_not_twice(kind):
    model = _network(kind, initial_density=1.0)
    record = prune(model, pattern=patterns.NM(2, 4))
    assert [layer.density for layer in model.layers] == [0.5, 0.5]
    assert record.count == (12 * 8 + 8 * 4) // 2
    assert _in_pattern(model, patterns.NM(2, 4))
    with pytest.raises(NothingToChange, match="lie in the pattern"):
        prune(model, pattern=patterns.NM(2, 4))


def test_a_score_says_what_stays_in_a_pattern(blobs, classifier):
    prune(classifier, pattern=patterns.NM(1, 2), score=scores.ActivationMagnitude(), data=blobs)
    assert _in_pattern(classifier, patterns.NM(1, 2))


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "pattern",
    [patterns.NM(2, 4), patterns.ConstantFanIn(5), patterns.Blocks(2, 2, 0.7)],
    ids=repr,
)
def test_growth_in_a_pattern_takes_the_best_that_have_room(kind, pattern, data):
    model = _network(kind, initial_density=1.0)
    seed = {"NM": patterns.NM(1, 4), "ConstantFanIn": patterns.ConstantFanIn(2)}
    seed = seed.get(type(pattern).__name__, patterns.Blocks(2, 2, 0.2))
    prune(model, pattern=seed)
    gradients = _gradients(model, data)
    before = [_active(layer) for layer in model.layers]
    count = 14
    record = grow(model, data, count=count, pattern=pattern)
    # One atom after the other, of both layers, in plain Python.
    candidates, room, taken_by = [], {}, [[], []]
    for number, (layer, gradient) in enumerate(zip(model.layers, gradients, strict=True)):
        every = np.arange(layer.num_connections)
        atoms, groups = pattern.atoms(layer.axes, every), pattern.groups(layer.axes, every)
        for group in set(groups):
            there = len(set(atoms[before[number]][groups[before[number]] == group]))
            room[number, group] = pattern.most(layer.axes) - there
        for atom in set(atoms):
            members = every[atoms == atom]
            if members[0] not in before[number]:
                norm = np.sqrt(np.mean(np.square(np.ravel(gradient)[members])))
                candidates.append((-norm, number, groups[members[0]], members.tolist()))
    left = count
    for _, number, group, members in sorted(candidates):
        if room[number, group] and len(members) <= left:
            room[number, group] -= 1
            left -= len(members)
            taken_by[number] += members
    assert [sorted(x) for x in taken_by] == [x.indices.numpy().tolist() for x in record.layers]
    assert record.num_rounded == left
    assert _in_pattern(model, pattern)
    # Alone, a pattern is filled up, and then holds no more.
    record = grow(model, data, pattern=pattern)
    assert record.num_rounded == 0
    assert _in_pattern(model, pattern)
    with pytest.raises(NothingToChange, match="room for no more"):
        grow(model, data, pattern=pattern)


def test_growth_in_a_pattern_looks_further_where_the_best_have_no_room(data):
    layer = keras_grow.SparseDense(8, initial_density=0.0, capacity=1.0)
    model = keras.Sequential([keras.Input((12,)), layer])
    model.compile("sgd", "mse")
    # Into all units but the last two lead two connections, and the largest gradients.
    layer.grow_connections(tf.constant([8 * i + unit for i in (0, 1) for unit in range(6)]))
    y = np.random.default_rng(1).normal(size=(60, 8)) * ([100] * 6 + [1] * 2)
    record = grow(model, (data[0], y), count=6, pattern=patterns.ConstantFanIn(2))
    grown = record.layers[0].indices.numpy()
    assert sorted(grown % 8) == [6, 6, 7, 7]
    assert record.num_rounded == 2


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "pattern",
    [patterns.NM(2, 4), patterns.ConstantFanIn(3), patterns.Blocks(2, 4, 0.4)],
    ids=repr,
)
def test_what_comes_for_what_goes_lies_in_the_pattern(kind, pattern, data):
    model = _network(kind, initial_density=1.0)
    prune(model, pattern=pattern)
    model.fit(*data, epochs=2, verbose=0)
    counts = [layer.num_active for layer in model.layers]
    changed = 0
    for method in (sparse_training.RigL(), sparse_training.SET(seed=3), sparse_training.RigL()):
        changed += drop_and_grow(model, data, fraction=0.5, pattern=pattern, method=method).count
        assert [layer.num_active for layer in model.layers] == counts
        assert _in_pattern(model, pattern)
        model.fit(*data, epochs=1, verbose=0)
    assert changed > 0


def test_a_step_of_srigl(data):
    """Of each layer the smallest go; those of largest gradient come whose unit has room."""
    pattern = patterns.ConstantFanIn(3)
    model = _network(keras_grow.GrowableDense, initial_density=1.0)
    prune(model, pattern=pattern)
    model.fit(*data, epochs=2, verbose=0)
    gradients = _gradients(model, data)
    expected = []
    for layer, gradient in zip(model.layers, gradients, strict=True):
        active, weights = (x.numpy() for x in layer.active_connections())
        num_dropped = int(0.4 * len(active))
        order = np.lexsort((active, np.abs(weights)))
        stays = set(active[order[num_dropped:]].tolist())
        fan_in = np.bincount([c % layer.units for c in stays], minlength=layer.units)
        size = np.abs(np.ravel(gradient))
        for connection in sorted(range(size.size), key=lambda c: (-size[c], c)):
            if len(stays) == len(active):
                break
            if connection not in stays and fan_in[connection % layer.units] < 3:
                fan_in[connection % layer.units] += 1
                stays.add(connection)
        assert set(fan_in) == {3}
        expected.append(sorted(stays))
    drop_and_grow(model, data, fraction=0.4, pattern=pattern)
    assert [_active(layer).tolist() for layer in model.layers] == expected


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "pattern", [patterns.NM(2, 4), patterns.ConstantFanIn(3), patterns.Blocks(2, 4, 0.4)], ids=repr
)
def test_where_a_search_finds_too_little_what_was_dropped_stays(kind, pattern, data, monkeypatch):
    whole = keras_grow.connections.drop_and_grow.growth_candidates

    def half(*arguments):
        found = whole(*arguments)
        few = len(found.indices) // 2
        return found._replace(
            scores=found.scores[:few], indices=found.indices[:few], is_complete=False
        )

    monkeypatch.setattr("keras_grow.connections.drop_and_grow.growth_candidates", half)
    model = _network(kind, initial_density=1.0)
    prune(model, pattern=pattern)
    counts = [layer.num_active for layer in model.layers]
    record = drop_and_grow(model, data, fraction=0.9, pattern=pattern)
    assert not record.is_complete
    assert [layer.num_active for layer in model.layers] == counts
    assert _in_pattern(model, pattern)


def test_of_a_sample_those_come_that_have_room_and_of_what_was_dropped_the_rest(data):
    model = _network(keras_grow.SparseDense, initial_density=1.0)
    pattern = patterns.ConstantFanIn(1)
    prune(model, pattern=pattern)
    search = keras_grow.SampledSearch(ratio=2.0, seed=3)
    record = drop_and_grow(model, data, fraction=0.5, pattern=pattern, search=search)
    assert not record.is_complete
    assert [layer.num_active for layer in model.layers] == [8, 4]
    assert _in_pattern(model, pattern)


def test_a_network_is_pruned_within_a_pattern_as_it_changes(data):
    model = _network(keras_grow.GrowableDense, initial_density=1.0)
    pattern = patterns.Blocks(2, 2, 0.75)
    prune(model, pattern=pattern)
    drop_and_grow(model, data, density=0.5, pattern=pattern, per_layer=True)
    assert [layer.density for layer in model.layers] == [0.5, 0.5]
    assert _in_pattern(model, pattern)


def test_a_convolution_keeps_its_pattern():
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 6, 6, 4)).astype("float32")
    y = random.normal(size=(20, 4, 4, 8)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), keras_grow.GrowableConv2D(8, 3, initial_density=1.0)]
    )
    model.compile("sgd", "mse")
    pattern = patterns.NM(2, 4)
    prune(model, pattern=patterns.NM(1, 4))
    grow(model, (x, y), count=50, pattern=pattern)
    drop_and_grow(model, (x, y), pattern=pattern)
    kernel = model.layers[0].effective_kernel().numpy() != 0
    assert int(kernel.sum(axis=2).max()) <= 2
    assert model.layers[0].num_active == 72 + 50


def test_callbacks_keep_a_pattern(data):
    model = _network(keras_grow.GrowableDense, initial_density=1.0)
    pattern = patterns.NM(2, 4)
    history = model.fit(
        *data,
        epochs=6,
        verbose=0,
        callbacks=[
            keras_grow.PruningCallback(
                pattern=patterns.NM(1, 4), when=keras_grow.Epochs(start=1, stop=2)
            ),
            keras_grow.GrowthCallback(
                data, count=8, pattern=pattern, when=keras_grow.Epochs(start=2, stop=3)
            ),
            keras_grow.GrowthCallback(
                data, pattern=pattern, when=keras_grow.Epochs(start=3, stop=4)
            ),
            keras_grow.DropAndGrowCallback(data, pattern=pattern, when=keras_grow.Epochs(start=4)),
        ],
    ).history
    assert history["density"] == [1.0, 0.25, 0.3125, 0.5, 0.5, 0.5]
    assert history["exchanged_connections"][4] > 0
    assert _in_pattern(model, pattern)


def test_what_has_no_place_in_a_pattern_is_refused(data):
    model = _network(keras_grow.GrowableDense, initial_density=1.0)
    for verb in (lambda **k: grow(model, data, **k), lambda **k: drop_and_grow(model, data, **k)):
        with pytest.raises(ValueError, match=r"Prune to it first"):
            verb(pattern=patterns.NM(2, 4))
        with pytest.raises(TypeError, match="pattern"):
            verb(pattern="2:4")
        with pytest.raises(ValueError, match="judges no whole block"):
            verb(pattern=patterns.Blocks(2, 2, 1.0), search=keras_grow.SampledSearch())
    with pytest.raises(ValueError, match="of the same size"):
        drop_and_grow(model, data, pattern=patterns.Blocks(5, 2, 1.0))
    prune(model, count=3)
    with pytest.raises(ValueError, match="completes what is active in part"):
        drop_and_grow(model, data, pattern=patterns.Blocks(2, 2, 1.0))
    grow(model, data, pattern=patterns.Blocks(2, 2, 1.0))
    assert model.layers[0].density == model.layers[1].density == 1.0
    prune(model, pattern=patterns.NM(2, 4))
    with pytest.raises(ValueError, match="shares them among layers"):
        drop_and_grow(model, data, pattern=patterns.NM(2, 4), method=sparse_training.SNFS())


def test_what_is_no_pattern_is_refused(classifier):
    for wrong in ((2, 2), (0, 4), (3, 2)):
        with pytest.raises(ValueError, match="`n` must be"):
            patterns.NM(*wrong)
    with pytest.raises(ValueError, match="count"):
        patterns.ConstantFanIn(0)
    with pytest.raises(ValueError, match="leaves no block"):
        patterns.Blocks(2, 2, 0.0)
    with pytest.raises(TypeError, match="pattern"):
        prune(classifier, pattern="2:4")
    with pytest.raises(ValueError, match="exactly one"):
        prune(classifier, pattern=patterns.NM(2, 4), density=0.1)
    shared = keras_grow.SparseDense(8, initial_density=0.5, group_size=4)
    model = keras.Sequential([keras.Input((4,)), shared])
    for verb in (prune, lambda model, **k: grow(model, **k)):
        with pytest.raises(ValueError, match="come and go in groups"):
            verb(model, pattern=patterns.NM(2, 4))
