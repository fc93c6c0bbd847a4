"""Every verb on units, on random models: additions, products, concatenations, shared, nested."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow.measuring.bridging import bridging_gradient
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.measuring.interception import intercepted
from keras_grow.neurons.units import followed
from keras_grow.structure.flow import Flow
from keras_grow.structure.kernels import axes_of
from keras_grow.structure.unit_graph import UnitGraph
from tests.random_models import difference, inputs_of, random_model

_layers = keras.layers
_SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))]


def _without_inputs(model, gone):
    """What a model computes where layers read 0 at some of their inputs."""

    def around(rows):
        def of_method(method):
            def call(inputs, *args, **kwargs):
                is_kept = ~np.isin(np.arange(inputs.shape[-1]), rows)
                return method(inputs * tf.cast(is_kept, inputs.dtype), *args, **kwargs)

            return call

        return of_method

    with contextlib.ExitStack() as stack:
        for layer, rows in gone.items():
            stack.enter_context(intercepted(layer, around(rows)))
        return model(inputs_of(model))


@pytest.mark.parametrize("seed", _SEEDS)
def test_a_wider_random_model_computes_the_same_in_whatever_is_tied_together(seed):
    model = random_model(seed)
    expected = model(inputs_of(model))
    for group in keras_grow.groups(model):
        layer = group.made_by[0].layer
        if not isinstance(layer, keras_grow.Growable):
            continue
        is_whole = all(
            end.indices[:, 0].tolist() == [*range(axes_of(end.layer).num_units)]
            for end in group.made_by
        )
        if group.why_fixed or not is_whole:
            with pytest.raises(ValueError, match="they can't change"):
                keras_grow.widen(model, layer, layer.kernel_shape[-1] + 3)
            continue
        wider = keras_grow.widen(model, layer, layer.kernel_shape[-1] + 3)
        assert difference(wider(inputs_of(model)), expected) < 1e-5
        (now,) = [
            each
            for each in keras_grow.groups(wider)
            if group.made_by[0].path in [end.path for end in each.made_by]
        ]
        assert now.count == group.count + 3
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        keras_grow.convert_optimizer(model, wider, optimizer)


@pytest.mark.parametrize("seed", _SEEDS)
def test_pruned_units_of_a_random_model_are_those_that_no_layer_reads_any_more(seed):
    model = random_model(seed)
    units, _ = followed(model, keras_grow.growable_layers(model))
    num_spare = sum(max(0, int(each.connected().sum()) - 1) for each in units)
    if num_spare < 2:
        pytest.skip("no unit to spare")
    data, before = (inputs_of(model),), model.get_weights()
    record = keras_grow.prune_neurons(model, count=num_spare // 2, data=data)
    assert [change.name for change in record.layers] == [each.path for each in units]
    gone = {}
    for each, change in zip(units, record.layers, strict=True):
        which = np.flatnonzero(np.isin(each.numbers, change.units))
        for end in each.group.read_by:
            gone.setdefault(end.layer, []).extend(end.indices[which].reshape(-1).tolist())
        for end in each.group.made_by:
            made = end.layer.active_connections()[0].numpy() % end.layer.kernel_shape[-1]
            assert not np.isin(end.indices[which].reshape(-1), made).any()
    outputs = model(data[0])
    model.set_weights(before)
    assert difference(outputs, _without_inputs(model, gone)) < 1e-5


@pytest.mark.parametrize("seed", _SEEDS)
def test_what_is_dead_in_a_random_model_goes_and_the_function_stays(seed):
    model = random_model(seed)
    before = model(inputs_of(model))
    keras_grow.remove_dead_neurons(model)
    assert difference(model(inputs_of(model)), before) < 1e-5
    graph = UnitGraph(model)
    units, _ = followed(model, keras_grow.growable_layers(model), graph)
    flow = Flow(graph, keeps_one=False)
    for each in units:
        assert not np.any(each.connected() & ~flow.is_needed(each.group.roots))
    assert keras_grow.remove_dead_neurons(model).count == 0


def _residual(width=6):
    """Two dense layers that are added, read by one behind a ReLU and by one beside the input."""
    x = keras.Input((4,))
    dense = keras_grow.GrowableDense
    a = dense(width, "tanh", name="a")(x)
    inner = keras.Sequential([keras.Input((4,)), dense(width, name="b")], name="nested")
    h = _layers.Add()([a, inner(x)])
    first = dense(3, "tanh", name="first")(_layers.ReLU()(h))
    second = dense(2, "tanh", name="second")(_layers.Concatenate()([x, h]))
    return keras.Model(x, dense(1, name="y")(_layers.Concatenate()([first, second])))


def _layer(model, name):
    (layer,) = [each for each in keras_grow.growable_layers(model) if each.name == name]
    return layer


def test_the_bridging_gradient_into_several_readers_is_that_of_connections_straight_into_them():
    model = _residual()
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 4)).astype("float32")
    y = random.normal(size=(32, 1)).astype("float32")
    readers = [_layer(model, "first"), _layer(model, "second")]
    a, b, meter = _layer(model, "a"), _layer(model, "b"), GradientMeter()
    measured = bridging_gradient(model, (x, y), [a], readers, meter, None)
    bridges = [tf.Variable(tf.zeros((4, reader.units))) for reader in readers]

    def around(reader, bridge):
        def of_method(method):
            def call(inputs):
                outputs = reader.kernel_shape and tf.matmul(inputs, reader.effective_kernel())
                return reader.activation(outputs + reader.bias + tf.matmul(x, bridge))

            return call

        return of_method

    with contextlib.ExitStack() as stack, tf.GradientTape() as tape:
        for reader, bridge in zip(readers, bridges, strict=True):
            stack.enter_context(intercepted(reader, around(reader, bridge)))
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
    expected = np.concatenate(tape.gradient(loss, bridges), axis=1)
    np.testing.assert_allclose(measured.gradient, expected, rtol=1e-4, atol=1e-6)
    # From several layers it is that from each, one below the other.
    of_b = bridging_gradient(model, (x, y), [b], readers, meter, None)
    of_both = bridging_gradient(model, (x, y), [a, b], readers, meter, None)
    for name in ("gradient", "mean_input"):
        both = np.concatenate([getattr(measured, name), getattr(of_b, name)])
        np.testing.assert_allclose(getattr(of_both, name), both, rtol=1e-4, atol=1e-6)


def test_a_neuron_is_born_into_what_its_layer_is_added_to():
    model = keras_grow.widen(_residual(), "a", 9)
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    data = random.normal(size=(64, 4)), random.normal(size=(64, 1))
    initializer = keras_grow.neuron_initializers.SingularVectors()
    before = model(data[0]).numpy()
    record = keras_grow.grow_neurons(model, data, "a", count=2, initializer=initializer)
    (change,) = record.layers
    assert (change.name, change.tied) == ("a", ("nested/b",))
    np.testing.assert_array_equal(change.units, [6, 7])
    # 4 inputs of each of the two layers; out to 3 units of the one reader, 2 of the other.
    assert (change.num_incoming, change.num_outgoing) == (2 * 8, 2 * 5)
    for name in ("a", "b"):
        mask = _layer(model, name).kernel_mask.numpy()
        assert mask[:, 6:8].all()
        assert not mask[:, 8].any()
        assert np.all(_layer(model, name).kernel.numpy()[:, 6:8] != 0)
    # Of what `second` reads, the input comes first.
    second = _layer(model, "second").kernel_mask.numpy()
    assert second[4 + 6 : 4 + 8].all()
    assert not second[4 + 8].any()
    np.testing.assert_allclose(model(data[0]), before, rtol=1e-5, atol=1e-6)


def test_a_feature_map_is_born_in_all_ends_of_an_addition():
    x = keras.Input((6, 6, 2))
    conv = keras_grow.GrowableConv2D
    h = _layers.Add()([conv(4, 3, name="a")(x), conv(4, 3, name="b")(x)])
    h = conv(3, 2, name="reader")(_layers.BatchNormalization()(h))
    model = keras.Model(x, keras_grow.GrowableDense(1)(_layers.GlobalAveragePooling2D()(h)))
    wider = keras_grow.widen(model, "b", 6)
    wider.compile("sgd", "mse")
    random = np.random.default_rng(0)
    data = random.normal(size=(16, 6, 6, 2)), random.normal(size=(16, 1))
    record = keras_grow.grow_feature_maps(wider, data, "b", count=1, candidates=3)
    assert record.layer.tied == ("a",)
    assert record.layer.num_incoming == 2 * 3 * 3 * 2
    assert record.layer.num_outgoing == 2 * 2 * 3
    for name in ("a", "b"):
        mask = wider.get_layer(name).kernel_mask.numpy()
        assert mask[..., 4].all()
        assert not mask[..., 5].any()
    assert wider.get_layer("reader").kernel_mask.numpy()[:, :, 4].all()


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (_layers.Multiply, "multiplied or compared with others"),
        (_layers.Maximum, "where a newborn would bring nothing"),
    ],
)
def test_neurons_are_not_born_where_they_would_be_multiplied(merge, message):
    x = keras.Input((4,))
    dense = keras_grow.GrowableDense
    h = merge()([dense(5, name="a")(x), dense(5)(x)])
    model = keras_grow.widen(keras.Model(x, dense(1)(h)), "a", 6)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=message):
        keras_grow.grow_neurons(model, (np.ones((4, 4)), np.ones((4, 1))), "a")


def test_a_layer_that_is_called_twice_grows_no_neurons_and_says_so():
    shared = keras_grow.GrowableDense(5, "relu", name="shared")
    x, y = keras.Input((4,)), keras.Input((4,))
    out = keras_grow.GrowableDense(2, name="out")
    model = keras.Model([x, y], _layers.Subtract()([out(shared(x)), out(shared(y))]))
    model = keras_grow.widen(model, "shared", 7)
    model.compile("sgd", "mse")
    data = ((np.ones((4, 4)), np.ones((4, 4))), np.ones((4, 2)))
    with pytest.raises(ValueError, match="'shared', which it calls 2 times"):
        keras_grow.grow_neurons(model, data, "shared")


def _inverted(name):
    """A block as MobileNetV2's, widened by dormant maps in its stream and inside it."""
    conv = keras_grow.GrowableConv2D
    inputs = keras.Input((6, 6, 2))
    x = conv(4, 3, padding="same", name="stem")(inputs)
    y = _layers.ReLU()(_layers.BatchNormalization()(conv(6, 1, name="wide")(x)))
    if name == "depthwise":
        y = keras_grow.GrowableKernels(_layers.DepthwiseConv2D(3, padding="same"))(y)
        y = conv(4, 1, name="narrow")(_layers.ReLU()(y))
    else:
        separable = _layers.SeparableConv2D(4, 3, padding="same")
        y = keras_grow.GrowableKernels(separable, name="narrow")(y)
    x = _layers.GlobalAveragePooling2D()(_layers.Add()([x, y]))
    model = keras.Model(inputs, keras_grow.GrowableDense(2, name="answer")(x))
    wider = keras_grow.widen(keras_grow.widen(model, "stem", 7), "wide", 9)
    wider.compile(keras.optimizers.SGD(0.1), "mse")
    return model, wider


@pytest.mark.parametrize("name", ["depthwise", "separable"])
def test_a_map_that_is_filtered_on_its_way_is_born_alive(name):
    model, wider = _inverted(name)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 6, 6, 2)).astype("float32"), random.normal(size=(16, 2))
    before = wider(x).numpy()
    np.testing.assert_allclose(before, model(x), rtol=1e-4, atol=1e-6)
    record = keras_grow.grow_feature_maps(wider, (x, y), "wide", count=2, candidates=3)
    assert record.layer.units.tolist() == [6, 7]
    after = wider(x).numpy()
    assert np.abs(after - before).max() > 1e-4
    # Each of the two matters: without its connections the answer is another.
    (units,) = [
        each
        for each in followed(wider, keras_grow.growable_layers(wider))[0]
        if each.path == "wide"
    ]
    weights = wider.get_weights()
    for unit in (6, 7):
        units.cut_outgoing(np.array([unit]), None)
        assert np.abs(wider(x) - after).max() > 1e-5
        wider.set_weights(weights)
    # Births into the stream find their dormant maps still without a connection.
    record = keras_grow.grow_feature_maps(wider, (x, y), "stem", count=3, candidates=2)
    assert record.layer.units.tolist() == [4, 5, 6]
    assert record.layer.num_connected == 7


@pytest.mark.parametrize("seed", _SEEDS)
def test_units_born_silent_anywhere_in_a_random_model_leave_its_function(seed):
    model, num_born, refused = random_model(seed), 0, []
    inputs = inputs_of(model)
    for group in keras_grow.groups(model):
        ends = (*group.made_by, *group.read_by)
        are_growable = all(isinstance(end.layer, keras_grow.Growable) for end in ends)
        if group.why_fixed or not group.read_by or not are_growable:
            continue
        name = group.made_by[0].units
        try:
            wider = keras_grow.widen(model, name, group.count + 2, verify=False)
        except ValueError as error:
            refused.append(str(error))
            continue
        wider.compile("sgd", "mse")
        expected = wider(inputs)
        targets = keras.tree.map_structure(lambda x: np.ones(x.shape, "float32"), expected)
        try:
            record = keras_grow.grow_feature_maps(
                wider, (inputs, targets), name, 2, candidates=2, is_silent=True
            )
        except keras_grow.errors.CapacityUsedUp:
            assert any(end.layer.is_sparse for end in ends)
        else:
            assert difference(wider(inputs), expected) < 1e-5
            assert np.shape(record.promises) == (2, 2)
            num_born += 1
    assert all("not all tied alike" in why for why in refused)
    if not num_born:
        pytest.skip("no unit can be born")
