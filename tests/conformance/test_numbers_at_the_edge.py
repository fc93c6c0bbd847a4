"""Every verb on numbers and sizes at the edge: huge, tiny, equal, not finite, one of each.

Data are small integers and scales powers of two, so that what is computed is exact, and the choice
does not hang on rounding.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import neuron_initializers, neuron_scores, scores, sparse_training, start_values

_LAYERS = {
    "dense": (keras_grow.GrowableDense, {}),
    "weight_norm": (keras_grow.WeightNormDense, {}),
    "sparse": (keras_grow.SparseDense, {"capacity": 1.0}),
    "convolution": (keras_grow.GrowableConv2D, {"kernel_size": 1}),
}
_HUGE, _TINY = 2.0**100, 2.0**-100  # 1.3e30 and 7.9e-31.
_SCALES = pytest.mark.parametrize("scale", [_HUGE, pytest.param(_TINY, marks=pytest.mark.slow)])
_BAD = pytest.mark.parametrize("bad", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])


def _network(kind, sizes=(4, 6, 3), density=0.5, dtype=None):
    """Linear layers of the given sizes whose weights are small integers, exact in half precision.

    A convolution sees an image of a single place.
    """
    layer_class, arguments = _LAYERS[kind]
    layers = [keras.Input((sizes[0],))]
    if kind == "convolution":
        layers.append(keras.layers.Reshape((1, 1, sizes[0])))
    for number, size in enumerate(sizes[1:]):
        layers.append(
            layer_class(
                size,
                initial_density=density,
                seed=number,
                name=f"layer_{number}",
                dtype=dtype,
                **arguments,
            )
        )
    if kind == "convolution":
        layers.append(keras.layers.Flatten())
    model = keras.Sequential(layers)
    for number, layer in enumerate(keras_grow.growable_layers(model)):
        indices, _ = layer.active_connections()
        # Numbers of one layer are all different.
        values = np.array([(-1) ** i * (1 + (5 * i + number) % 24) for i in indices.numpy()])
        layer.prune_connections(indices)
        layer.grow_connections(indices, tf.constant(values, "float32"))
    model.compile("sgd", _linear)
    return model


def _linear(y, outputs):
    """Its gradient is y, whatever the outputs are."""
    return tf.reduce_mean(tf.reduce_sum(y * tf.cast(outputs, y.dtype), axis=-1))


def _scaled(scale):
    return lambda y, outputs: _linear(y * scale, outputs)


def _data(num_inputs=4, num_outputs=3, num_samples=None):
    """Samples of a single 1, and targets that are all different numbers."""
    num_samples = num_inputs if num_samples is None else num_samples
    number = np.arange(num_samples)
    x = np.eye(num_inputs, dtype="float32")[number % num_inputs]
    targets = np.arange(num_samples * num_outputs) * 7 % 101 - 40.0
    return x, targets.reshape(num_samples, num_outputs).astype("float32")


def _active(model):
    return [layer.active_connections()[0].numpy() for layer in keras_grow.growable_layers(model)]


def _scale_weights(layer, scale):
    variable = layer.g if hasattr(layer, "g") else layer.kernel_variables[0]
    variable.assign(variable * scale)


def _with_dormant_units(model, count=2):
    keras_grow.prune_neurons(
        model, count=count, data=_data()[:1], score=_Equal(), layers=["layer_0"]
    )


class _Same(scores.Score):
    """One value for all connections but those of odd index, which get another."""

    def __init__(self, value=1.0, odd=None):
        self.value, self.odd = value, value if odd is None else odd

    def __call__(self, connections):
        shape = tf.shape(connections.weight)
        index = tf.reshape(tf.range(tf.size(connections.weight)), shape)
        return tf.where(index % 2 == 1, self.odd, self.value) * tf.ones(shape)


class _Equal(neuron_scores.NeuronScore):
    def __init__(self, value=1.0):
        self.value = value

    def __call__(self, outputs):
        return self.value * tf.ones_like(outputs.rms)


class _Start(start_values.StartValue):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def __call__(self, connections):
        return tf.fill(tf.shape(connections.weight), tf.cast(self.value, tf.float32))


_VERBS = {
    "grow": lambda model, data, **k: keras_grow.grow(model, data, count=5, **k),
    "prune": lambda model, data, **k: keras_grow.prune(model, count=5, data=data, **k),
    "drop_and_grow": lambda model, data, **k: keras_grow.drop_and_grow(model, data, **k),
    "prune_neurons": lambda model, data, **k: keras_grow.prune_neurons(
        model, count=2, data=data, **k
    ),
    "grow_neurons": lambda model, data, **k: keras_grow.grow_neurons(
        model, data, "layer_0", count=2, **k
    ),
}


def _verbs_of(kind):
    # Maps of convolutions are born by `grow_feature_maps`, which draws them at random.
    return {v: act for v, act in _VERBS.items() if (kind, v) != ("convolution", "grow_neurons")}


_EACH_VERB = pytest.mark.parametrize(
    ("kind", "verb"), [(kind, verb) for kind in _LAYERS for verb in _verbs_of(kind)]
)
_EACH_KIND = pytest.mark.parametrize("kind", _LAYERS)


@_EACH_KIND
def test_among_equals_the_lowest_index_of_the_earliest_layer_changes(kind):
    model = _network(kind)
    first, second = _active(model)
    dormant = np.setdiff1d(np.arange(24), first)
    keras_grow.grow(model, count=15, score=_Same())
    now = _active(model)
    assert len(dormant) == 12
    np.testing.assert_array_equal(now[0], np.arange(24))
    np.testing.assert_array_equal(np.setdiff1d(now[1], second), np.setdiff1d(range(18), second)[:3])
    keras_grow.prune(model, count=5, score=_Same())
    np.testing.assert_array_equal(_active(model)[0], np.arange(5, 24))
    # Six of 19 go, five of those that are dormant then come: the lowest again.
    keras_grow.drop_and_grow(
        model, fraction=0.35, method=sparse_training.Method(_Same(), _Same()), layers=["layer_0"]
    )
    np.testing.assert_array_equal(_active(model)[0], np.delete(np.arange(24), range(6, 11)))
    record = keras_grow.prune_neurons(model, count=2, data=_data()[:1], score=_Equal())
    (change,) = record.layers
    assert list(change.units) == [0, 1]


def test_among_equal_pairs_a_newborn_bridges_the_first():
    bridge = neuron_initializers.Bridge(tf.ones((4, 3)), tf.ones(4), 2, 1.0, 1.0, 0)
    birth = neuron_initializers.BridgingGradient(growth_ratio=0.25)(bridge)
    # Three pairs each: the first input with all units, then the second.
    np.testing.assert_array_equal(birth.wakes_incoming, np.eye(4, 2, dtype=bool))
    assert birth.wakes_outgoing.numpy().all()


@_EACH_VERB
@_BAD
def test_a_score_that_is_not_finite_is_refused_and_nothing_changes(kind, verb, bad, snapshot):
    model = _network(kind)
    model.compile(keras.optimizers.Adam(), _linear)
    model.optimizer.build(model.trainable_variables)
    if verb == "grow_neurons":
        _with_dormant_units(model)

        class Bad(neuron_initializers.RandomWeights):
            def __call__(self, bridge):
                birth = super().__call__(bridge)
                return keras_grow.neuron_initializers.Birth(
                    birth.incoming * bad,
                    birth.outgoing,
                    birth.wakes_incoming,
                    birth.wakes_outgoing,
                )

        arguments = {"initializer": Bad()}
    elif verb == "prune_neurons":
        arguments = {"score": _Equal(bad)}
    elif verb == "drop_and_grow":
        arguments = {"method": sparse_training.Method(_Same(), _Same(odd=bad))}
    else:
        arguments = {"score": _Same(odd=bad)}
    before = snapshot(model)
    with pytest.raises(ValueError, match="finite"):
        _VERBS[verb](model, _data(), **arguments)
    snapshot.assert_same(model, before)


@_EACH_VERB
@_BAD
def test_data_that_are_not_finite_are_refused_and_nothing_changes(kind, verb, bad, snapshot):
    if verb == "prune":
        pytest.skip("by magnitude, no data are looked at")
    model = _network(kind)
    if verb == "grow_neurons":
        _with_dormant_units(model)
    x, y = _data()
    x[2, 1] = bad
    before = snapshot(model)
    with pytest.raises(ValueError, match="finite"):
        _VERBS[verb](model, (x, y))
    snapshot.assert_same(model, before)


@_EACH_VERB
@_SCALES
def test_huge_and_tiny_gradients_choose_what_others_do(kind, verb, scale):
    chosen = []
    for factor in (1.0, scale):
        model = _network(kind)
        if verb == "grow_neurons":
            _with_dormant_units(model)
        model.compile("sgd", _scaled(factor))
        before = _active(model)
        arguments = {"score": neuron_scores.Taylor()} if verb == "prune_neurons" else {}
        if verb == "prune":
            arguments = {"score": scores.GradientMagnitude()}
        _VERBS[verb](model, _data(), **arguments)
        chosen.append(_active(model))
        assert not all(map(np.array_equal, before, chosen[-1]))
        assert all(np.isfinite(weights).all() for weights in model.get_weights())
    for one, other in zip(*chosen, strict=True):
        np.testing.assert_array_equal(one, other)


@_EACH_VERB
@_SCALES
def test_huge_and_tiny_weights_choose_what_others_do(kind, verb, scale):
    chosen = []
    for factor in (1.0, scale):
        model = _network(kind)
        if verb == "grow_neurons":
            _with_dormant_units(model)
        first, second = keras_grow.growable_layers(model)
        _scale_weights(first, factor)
        if verb in ("prune", "grow_neurons"):
            _scale_weights(second, factor)  # Gradients through both would overflow.
        _VERBS[verb](model, _data(), **({"per_layer": True} if verb == "grow" else {}))
        chosen.append(_active(model))
        for layer in (first, second):
            assert np.isfinite(layer.active_connections()[1].numpy()).all()
    for one, other in zip(*chosen, strict=True):
        np.testing.assert_array_equal(one, other)


@_EACH_KIND
@pytest.mark.parametrize("value", [_HUGE, _TINY])
def test_a_weight_of_any_size_wakes_and_stays_when_others_go(kind, value):
    model = _network(kind, sizes=(4, 6), density=0.5)
    (layer,) = keras_grow.growable_layers(model)
    record = keras_grow.grow(model, _data(4, 6), count=4, start_value=_Start(value))
    grown = record.layers[0].indices
    indices, weights = layer.active_connections()
    weights = weights.numpy()[np.isin(indices, grown)]
    np.testing.assert_allclose(weights, np.full(4, value), rtol=1e-6)
    others = np.setdiff1d(indices, grown)
    layer.prune_connections(others)
    _, left = layer.active_connections()
    np.testing.assert_allclose(left, np.full(4, value), rtol=1e-5)


@_EACH_KIND
@pytest.mark.parametrize(("num_inputs", "num_units"), [(1, 5), (5, 1), (1, 1)])
def test_layers_of_one_input_or_unit_change_like_others(kind, num_inputs, num_units):
    count = num_inputs * num_units
    model = _network(kind, sizes=(num_inputs, num_units), density=1.0)
    (layer,) = keras_grow.growable_layers(model)
    layer.prune_connections(np.arange(count)[1:])
    x, y = _data(num_inputs, num_units)
    if count > 1:
        promise = np.abs(x.T @ y).reshape(-1)[1:]
        keras_grow.grow(model, (x, y), count=1)
        assert _active(model)[0].tolist() == [0, 1 + int(np.argmax(promise))]
        keras_grow.prune(model, count=1)  # What grew is 0.
    assert _active(model)[0].tolist() == [0]
    before = model.get_weights()
    with pytest.raises(ValueError, match="leave"):
        keras_grow.prune(model, count=1)
    # A half of one connection is none.
    with pytest.raises(ValueError, match="nothing to drop and grow"):
        keras_grow.drop_and_grow(model, (x, y), fraction=0.5)
    for array, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)


@_EACH_KIND
def test_the_only_unit_of_a_layer_never_goes_and_can_be_born(kind):
    model = _network(kind, sizes=(1, 1, 1), density=1.0)
    before = model.get_weights()
    with pytest.raises(ValueError, match="1"):
        keras_grow.prune_neurons(model, count=1, data=_data(1, 1)[:1])
    for array, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)
    if kind == "convolution":
        return
    for layer in keras_grow.growable_layers(model):
        layer.prune_connections([0])
    record = keras_grow.grow_neurons(model, _data(1, 1), "layer_0", count=1)
    assert list(record.layers[0].units) == [0]
    assert [len(each) for each in _active(model)] == [1, 1]


@_EACH_KIND
def test_one_sample_is_data_enough(kind):
    for verb, act in _verbs_of(kind).items():
        model = _network(kind)
        if verb == "grow_neurons":
            _with_dormant_units(model)
        before = _active(model)
        act(model, (np.array([[1, 2, 3, 4]], "float32"), np.array([[5, -3, 2]], "float32")))
        assert not all(map(np.array_equal, before, _active(model))), verb


@_EACH_KIND
def test_a_last_batch_of_one_weighs_as_one_sample(kind):
    x, y = _data(num_samples=9)
    x[8], y[8] = [0, 0, 0, 1], [90, 0, 0]
    promise = np.abs(x.T @ y).reshape(-1)
    for data, batch_size in (
        ((x, y), 8),
        (tf.data.Dataset.from_tensor_slices((x, y)).batch(8), 32),
        ((x, y), 1),
    ):
        model = _network(kind, sizes=(4, 3))
        dormant = np.setdiff1d(np.arange(12), _active(model)[0])
        best = dormant[np.argsort(-promise[dormant])]
        # Whole numbers, apart by more than rounding.
        assert promise[best[2]] > promise[best[3]] + 0.5
        meter = keras_grow.GradientMeter(batch_size=batch_size)
        record = keras_grow.grow(model, data, count=3, meter=meter)
        np.testing.assert_array_equal(record.layers[0].indices, np.sort(best[:3]))


@_EACH_VERB
def test_under_mixed_float16_an_overflowing_loss_scale_changes_no_choice(kind, verb):
    chosen = []
    for policy in ("float32", "mixed_float16"):
        model = _network(kind, dtype=policy)
        if verb == "grow_neurons":
            _with_dormant_units(model)
        # Under this scale all gradients overflow at first.
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(), initial_scale=2.0**40
        )
        model.compile(optimizer, _linear)
        optimizer.build(model.trainable_variables)
        arguments = {}
        if verb == "prune":
            arguments = {"score": scores.GradientMagnitude()}
        _VERBS[verb](model, _data(), **arguments)
        assert float(optimizer.dynamic_scale) == 2.0**40
        chosen.append(_active(model))
    for one, other in zip(*chosen, strict=True):
        np.testing.assert_array_equal(one, other)


@_EACH_VERB
def test_under_mixed_float16_outputs_that_overflow_are_refused_and_nothing_changes(
    kind, verb, snapshot
):
    if verb == "prune":
        pytest.skip("by magnitude, no data are looked at")
    model = _network(kind, dtype="mixed_float16")
    if verb == "grow_neurons":
        _with_dormant_units(model)
    x, y = _data()
    before = snapshot(model)
    with pytest.raises(ValueError, match="finite"):
        _VERBS[verb](model, (6e4 * x, 6e4 * y))
    snapshot.assert_same(model, before)


def test_a_birth_that_one_layer_can_not_store_leaves_the_other_as_it_was(snapshot):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras_grow.GrowableDense(6, initial_density=0.5, seed=0, name="layer_0"),
            keras_grow.GrowableDense(3, initial_density=0.5, seed=1, dtype="float16"),
        ]
    )
    model.compile("sgd", _linear)
    _with_dormant_units(model)
    before = snapshot(model)
    strong = neuron_initializers.BridgingGradient(birth_strength=1e6)
    with pytest.raises(ValueError, match="infinite"):
        keras_grow.grow_neurons(model, _data(), "layer_0", count=2, initializer=strong)
    snapshot.assert_same(model, before)


@pytest.mark.parametrize("verb", ["grow", "prune", "drop_and_grow", "prune_neurons"])
def test_directions_too_long_to_be_squared_are_refused_and_nothing_changes(verb, snapshot):
    model = _network("weight_norm")
    first, _ = keras_grow.growable_layers(model)
    first.v.assign(first.v * _HUGE)
    before = snapshot(model)
    with pytest.raises(ValueError, match="directions `v` too long"):
        _VERBS[verb](model, _data())
    snapshot.assert_same(model, before)


def test_directions_too_short_to_be_squared_keep_their_weights(snapshot):
    layer = keras_grow.WeightNormDense(3, kernel_initializer=keras.initializers.Constant(_TINY))
    layer.build((None, 4))
    np.testing.assert_array_equal(layer.effective_kernel(), np.full((4, 3), _TINY, "float32"))
    layer.prune_connections([0, 3, 6, 9, 4])
    _, weights = layer.active_connections()
    np.testing.assert_array_equal(weights, np.full(7, _TINY, "float32"))


def test_a_length_beyond_all_numbers_is_refused_and_nothing_changes(snapshot):
    model = _network("weight_norm")
    before = snapshot(model)
    with pytest.raises(ValueError, match="keeps the length"):
        keras_grow.grow(model, _data(), count=2, start_value=_Start(3e38))
    snapshot.assert_same(model, before)
