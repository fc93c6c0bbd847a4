"""Maps and neurons that are born in all that their group stands in, and what they leave free."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow.neurons.units import followed
from keras_grow.optimizer_slots import slots
from keras_grow.structure.kernels import axes_of
from tests.random_models import inputs_of as inputs_of_random
from tests.random_models import random_model
from tests.structure.wired_models import MAKERS, inputs_of, made

_layers = keras.layers


def _convolution(x, filters, size, name, activation=True):
    x = _layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)(x)
    x = _layers.BatchNormalization(name=f"{name}_normalization")(x)
    return _layers.Activation("tanh")(x) if activation else x


def _mobile():
    """Two inverted residual blocks: a stream of four maps, depthwise filters inside."""
    x = images = keras.Input((6, 6, 2))
    x = _convolution(x, 4, 3, "stem", activation=False)
    for block in "ab":
        y = _convolution(x, 5, 1, f"expand_{block}")
        y = _layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name=f"filter_{block}")(
            y
        )
        y = _layers.Activation("tanh")(y)
        x = x + _convolution(y, 4, 1, f"project_{block}", activation=False)
    x = _layers.GlobalAveragePooling2D()(_convolution(x, 6, 1, "last"))
    return keras.Model(images, _layers.Dense(3, name="classes")(x))


def _separable():
    x = images = keras.Input((6, 6, 2))
    x = _layers.Conv2D(4, 3, activation="tanh", name="first")(x)
    x = _layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="tanh", name="second")(x)
    return keras.Model(
        images, _layers.Dense(3, name="classes")(_layers.GlobalAveragePooling2D()(x))
    )


def _compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(16, 6, 6, 2)).astype("float32"), np.arange(16) % 3


def _units(model):
    units, _ = followed(model, keras_grow.growable_layers(model))
    return {each.path: each for each in units}


def _free_units(model):
    """How many units of each group are dormant."""
    return {path: each.count - each.connected().sum() for path, each in _units(model).items()}


def _function_without(model, unit_of, unit, x):
    """What a model computes once nothing leads out of a unit."""
    before = model.get_weights()
    unit_of.cut_outgoing(np.array([unit]), None)
    outputs = model(x).numpy()
    model.set_weights(before)
    return outputs


def test_maps_can_be_born_all_over_a_network_in_any_order(data):
    names = {"stem": 4, "expand_a": 5, "expand_b": 5, "last": 6}
    for order in (list(names), list(names)[::-1]):
        model = keras_grow.make_growable(_mobile())
        for name, count in names.items():
            model = keras_grow.widen(model, name, count + 2, verify=False)
        _compiled(model)
        for name in order:
            free = _free_units(model)
            assert free[name] == 2
            keras_grow.grow_feature_maps(model, data, name, count=2, candidates=1)
            assert _free_units(model) == {**free, name: 0}
        # Then each of them is connected with each of the others, as if it had stood there always.
        assert keras_grow.report(model).density == 1


def test_a_map_of_a_residual_stream_is_born_in_all_that_make_and_read_it(data):
    model = _compiled(keras_grow.widen(keras_grow.make_growable(_mobile()), "project_a", 5))
    record = keras_grow.grow_feature_maps(model, data, "project_a", candidates=3)
    assert record.layer.tied == ("stem", "project_b")
    # 3 x 3 x 2 into the stem, 10 into each projection; out to 5, 5 and 6 maps.
    assert (record.layer.num_incoming, record.layer.num_outgoing) == (18 + 20, 16)
    np.testing.assert_allclose(model.evaluate(*data, verbose=0), record.loss, rtol=1e-5)
    assert keras_grow.report(model).density == 1


@pytest.mark.parametrize(
    ("make", "is_growable"), [(_mobile, True), (_mobile, False), (_separable, True)]
)
def test_a_newborn_gets_a_filter_of_its_own_where_its_dead_predecessor_left_zeros(
    data, make, is_growable
):
    maker, filtering, kernel = {
        _mobile: ("expand_a", "filter_a", "kernel"),
        _separable: ("first", "second", "depthwise_kernel"),
    }[make]
    model = make()
    layers = [each for each in model.layers if type(each) is _layers.Conv2D]
    model = keras_grow.make_growable(model, None if is_growable else layers)
    _compiled(model).fit(*data, verbose=0)
    units = _units(model)[maker]
    gone = np.array([2])
    units.cut_incoming(gone, model.optimizer)
    units.cut_outgoing(gone, model.optimizer)
    layer = model.get_layer(filtering)
    inner = layer.layer if is_growable else layer
    variable = getattr(inner, kernel)
    if is_growable:
        (masked,) = [x for x in layer.masked_kernels if x.inner.attribute == kernel]
        connections = masked.axes.connections_between(gone, np.arange(masked.axes.num_units))
        masked.prune_connections(connections)
    else:
        values = variable.numpy()
        values[:, :, 2] = 0
        variable.assign(values)
    if make is _mobile:
        inner.bias.assign(np.full(inner.bias.shape, 0.4))
    before = variable.numpy()
    for slot in slots(model.optimizer, variable).values():
        slot.assign(np.full(slot.shape, 0.5))
    record = keras_grow.grow_feature_maps(model, data, maker, candidates=3)
    assert list(record.layer.units) == [2]
    now = variable.numpy()
    assert np.all(now[:, :, 2] != 0)
    np.testing.assert_array_equal(np.delete(now, 2, 2), np.delete(before, 2, 2))
    for slot in slots(model.optimizer, variable).values():
        np.testing.assert_array_equal(slot.numpy()[:, :, 2], 0)
        np.testing.assert_array_equal(np.delete(slot.numpy(), 2, 2), 0.5)
    if make is _mobile:
        expected = np.full(10, 0.4, "float32")
        expected[4:6] = 0
        np.testing.assert_array_equal(inner.bias.numpy(), expected)
    np.testing.assert_allclose(model.evaluate(*data, verbose=0), record.loss, rtol=1e-5)
    # It is alive: without what leads out of it the model computes something else.
    without = _function_without(model, units, 2, data[0])
    assert np.abs(without - model(data[0])).max() > 1e-6


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_units_of_other_layers_are_born_by_trial_wherever_they_can_change(name):
    model = made(name, growable=True)
    x = inputs_of(model)
    y = np.random.default_rng(0).normal(size=model(x).shape)
    for group in keras_grow.groups(model):
        if group.why_fixed or not all(
            isinstance(end.layer, keras_grow.Growable) or end.layer.masked is not None
            for end in (*group.made_by, *group.read_by)
        ):
            continue
        called = group.made_by[0].units
        try:
            wider = keras_grow.widen(model, called, group.count + 1, verify=False)
        except ValueError:
            continue
        wider.compile("sgd", "mse")
        (born,) = [g for g in keras_grow.groups(wider) if called in [e.units for e in g.made_by]]
        record = keras_grow.grow_feature_maps(wider, (x, y), called, candidates=1)
        np.testing.assert_allclose(wider.evaluate(x, y, verbose=0), record.loss, rtol=1e-4)
        assert record.layer.num_incoming > 0
        # What only a product reads, as the dimensions of queries and keys, leads nowhere by itself.
        assert (record.layer.num_outgoing > 0) == bool(born.read_by)
        for ends in (born.made_by, born.read_by):
            for end in ends:
                size = axes_of(end.layer).size
                assert len(keras_grow.structure.kernels.connections_of(end.layer)[0]) == size


def _stream(between=()):
    """Two blocks of one layer each, which read the stream that they add to."""
    x = inputs = keras.Input((5,))
    x = keras_grow.GrowableDense(4, name="start")(x)
    for block in "ab":
        y = _layers.Activation("tanh")(x)
        for each in between:
            y = each()(y)
        x = x + keras_grow.GrowableDense(4, name=block)(y)
    hidden = keras_grow.GrowableDense(6, "tanh", name="hidden")(x)
    return keras.Model(inputs, keras_grow.GrowableDense(3, name="classes")(hidden))


def _vectors():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 5)).astype("float32"), np.arange(32) % 3


@pytest.mark.parametrize("name", ["start", "a", "b"])
def test_a_neuron_of_a_stream_is_born_in_all_its_blocks_and_the_function_stays(name):
    model, data = _compiled(keras_grow.widen(_stream(), "start", 6)), _vectors()
    before = model(data[0]).numpy()
    record = keras_grow.grow_neurons(
        model, data, name, initializer=keras_grow.neuron_initializers.SingularVectors()
    )
    np.testing.assert_allclose(model(data[0]), before, rtol=1e-4, atol=1e-6)
    # In from the input and the 4 units in each block; out to the 4 in each block and to 6.
    (change,) = record.layers
    assert (change.num_incoming, change.num_outgoing) == (5 + 4 + 4, 4 + 4 + 6)
    # A gradient reaches it: it is no dead unit.
    model.compile("sgd", model.loss)
    model.fit(*data, verbose=0)
    for block in "ab":
        mask = model.get_layer(block).kernel_mask.numpy()
        assert not mask[4, 4]
        assert np.all(model.get_layer(block).kernel.numpy()[4, :4] != 0)


def test_a_promise_to_keep_the_function_is_not_given_where_a_mean_runs_over_newborns():
    x = inputs = keras.Input((5,))
    x = keras_grow.GrowableDense(4, name="start")(x)
    x = _layers.RMSNormalization(name="mean_square")(x)
    model = keras.Model(inputs, keras_grow.GrowableDense(3, name="classes")(x))
    model, data = _compiled(keras_grow.widen(model, "start", 6)), _vectors()
    before = model.get_weights()
    with pytest.raises(ValueError, match="RandomWeights` promises .*pass 'mean_square'"):
        keras_grow.grow_neurons(
            model, data, "start", initializer=keras_grow.neuron_initializers.RandomWeights()
        )
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert keras_grow.grow_neurons(model, data, "start").count == 1


def test_neurons_can_be_born_all_over_a_network_in_any_order():
    data = _vectors()
    for order in (["start", "hidden"], ["hidden", "start"]):
        model = keras_grow.widen(keras_grow.widen(_stream(), "start", 6), "hidden", 8)
        _compiled(model)
        for name in order:
            initializer = keras_grow.neuron_initializers.RandomWeights()
            record = keras_grow.grow_neurons(model, data, name, 2, initializer=initializer)
            assert record.count == 2
        assert all(each.connected().all() for each in _units(model).values())


def test_an_initializer_sees_what_is_not_dormant_alone():
    class Seen(keras_grow.neuron_initializers.RandomWeights):
        def __call__(self, bridge):
            shapes.append((bridge.gradient.shape, bridge.mean_input.shape))
            return super().__call__(bridge)

    shapes = []
    model = keras_grow.widen(keras_grow.widen(_stream(), "start", 6), "hidden", 8)
    for name in ("start", "hidden"):
        keras_grow.grow_neurons(_compiled(model), _vectors(), name, initializer=Seen())
    # 5 + 4 + 4 inputs, 4 + 4 + 6 readers; then 5 units of the stream, and the classes.
    assert shapes == [((13, 14), (13,)), ((5, 3), (5,))]


def test_where_no_bridge_can_be_measured_it_is_said_what_serves(data):
    model = _compiled(keras_grow.widen(keras_grow.make_growable(_mobile()), "last", 7))
    with pytest.raises(ValueError, match="of class GrowableConv2D. `keras_grow.grow_feature_maps`"):
        keras_grow.grow_neurons(model, data, "last")
    x = keras.Input((4, 5))
    per_step = keras_grow.GrowableDense(3, name="per_step")(x)
    together = keras_grow.GrowableDense(3, name="together")(_layers.GlobalAveragePooling1D()(x))
    outputs = keras_grow.GrowableDense(2)(per_step + _layers.Reshape((1, 3))(together))
    model = _compiled(keras_grow.widen(keras.Model(x, outputs), "per_step", 4))
    series = np.ones((6, 4, 5), "float32"), np.zeros((6, 4))
    with pytest.raises(ValueError, match="pooled, repeated or flattened on the way"):
        keras_grow.grow_neurons(model, series, "together")
    # The other end stands at all steps, and is bridged by itself.
    record = keras_grow.grow_neurons(
        model, series, "per_step", initializer=keras_grow.neuron_initializers.RandomWeights()
    )
    assert (record.layers[0].num_incoming, record.layers[0].num_outgoing) == (5, 2)


@pytest.mark.parametrize(
    "seed",
    [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))],
)
def test_what_is_born_in_a_random_model_leaves_all_others_free_and_is_what_was_tried(seed):
    model = random_model(seed)
    x = inputs_of_random(model)
    outputs = keras.tree.flatten(model(x))
    y = [np.random.default_rng(0).normal(size=each.shape) for each in outputs]
    for group in keras_grow.groups(model):
        ends = (*group.made_by, *group.read_by)
        # Of a sparse layer, it is another test's what happens if it is full.
        if group.why_fixed or not all(
            isinstance(end.layer, keras_grow.Growable) and not end.layer.is_sparse for end in ends
        ):
            continue
        called = group.made_by[0].units
        try:
            wider = keras_grow.widen(model, called, group.count + 2, verify=False)
        except ValueError:
            continue
        wider.compile("sgd", ["mse"] * len(y))
        free = _free_units(wider)
        record = keras_grow.grow_feature_maps(wider, (x, y), called, candidates=2)
        loss = np.reshape(wider.evaluate(x, y, verbose=0), -1)[0]
        np.testing.assert_allclose(loss, record.loss, rtol=1e-4)
        assert _free_units(wider) == {**free, called: free[called] - 1}
