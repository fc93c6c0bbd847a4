"""grow_neurons(): where neurons are born, with which weights, and what that does to the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GradientMeter,
    GrowableDense,
    SparseDense,
    WeightNormDense,
    grow_neurons,
)
from keras_grow.errors import CapacityUsedUp
from keras_grow.neurons.initializers import (
    Birth,
    BridgingGradient,
    NeuronInitializer,
    RandomWeights,
    SingularVectors,
)
from keras_grow.optimizer_slots import slots

_layers = keras.layers


def _network(connected=3, units=8, kind=GrowableDense, activation="relu", between=(), inputs=8):
    """A compiled network whose hidden layer has some connected units, the others dormant."""
    options = {"capacity": 1.0} if kind is SparseDense else {}
    hidden = kind(units, activation, name="hidden", **options)
    outputs = kind(3, "softmax", name="outputs", **options)
    model = keras.Sequential([keras.Input((inputs,)), hidden, *between, outputs])
    # Eagerly, a few steps are faster so than a trace; and a sparse layer is compiled for each size
    # of a batch, whence the whole of the data in one.
    optimizer, loss = keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, run_eagerly=True)
    _put_to_sleep(model, range(connected, units))
    return model


def _put_to_sleep(model, units):
    hidden, outputs = model.get_layer("hidden"), model.get_layer("outputs")
    units, (inputs, total) = np.array(units), hidden.kernel_shape
    hidden.prune_connections((np.arange(inputs)[:, None] * total + units).reshape(-1))
    outputs.prune_connections((units[:, None] * 3 + np.arange(3)).reshape(-1))
    hidden.bias.assign(np.where(np.isin(np.arange(total), units), 0.7, 0.1))


def _loss(model, data):
    x, y = (tf.convert_to_tensor(array) for array in data)
    return float(model.compute_loss(y=y, y_pred=model(x)))


def _interval(values):
    """The mean, and half of its 95% interval."""
    return np.mean(values), 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))


def test_one_pair_through_an_identity_makes_a_step_down_the_gradient(blobs):
    for seed in range(5):
        keras.utils.set_random_seed(seed)
        model = _network(activation=None)
        before = _loss(model, blobs)
        grow_neurons(
            model, blobs, "hidden", initializer=BridgingGradient(0.0, birth_strength=0.1, seed=seed)
        )
        weights = [layer.effective_kernel().numpy() for layer in model.layers]
        bridge = np.outer(weights[0][:, 3], weights[1][3])
        assert np.count_nonzero(bridge) == 1
        assert _loss(model, blobs) < before
        # The other way round the loss rises.
        model.layers[0].kernel.assign(np.where(np.arange(8) == 3, -weights[0], weights[0]))
        assert _loss(model, blobs) > before


def test_many_pairs_lower_the_loss_on_average_and_raise_it_with_the_sign_flipped(blobs):
    class Flipped(BridgingGradient):
        def __call__(self, bridge):
            birth = super().__call__(bridge)
            return Birth(
                -birth.incoming, birth.outgoing, birth.wakes_incoming, birth.wakes_outgoing
            )

    model, meter = _network(activation=None, inputs=8), GradientMeter()
    model.fit(*blobs, epochs=3, verbose=0)
    start, before = model.get_weights(), _loss(model, blobs)
    changes = {}
    for kind in (BridgingGradient, Flipped):
        for seed in range(50):
            initializer = kind(0.3, birth_strength=0.2, seed=seed)
            grow_neurons(model, blobs, "hidden", initializer=initializer, meter=meter)
            changes.setdefault(kind, []).append(_loss(model, blobs) - before)
            model.set_weights(start)
    mean, half = _interval(changes[BridgingGradient])
    assert mean + half < 0
    mean, half = _interval(changes[Flipped])
    assert mean - half > 0


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_born_silent_a_neuron_changes_no_output_and_then_learns(blobs, kind):
    model = _network(kind=kind)
    model.fit(*blobs, batch_size=96, verbose=0)
    outputs = model(blobs[0]).numpy()
    record = grow_neurons(model, blobs, "hidden", 2, initializer=SingularVectors())
    np.testing.assert_allclose(model(blobs[0]), outputs, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(record.layers[0].units, [3, 4])
    model.fit(*blobs, batch_size=96, epochs=6, verbose=0)
    outgoing = model.get_layer("outputs").effective_kernel().numpy()[3:5]
    assert np.all(outgoing != 0)


def test_singular_vectors_learn_faster_than_random_ones():
    random = np.random.default_rng(0)
    centers = random.normal(size=(8, 20))
    labels = np.arange(400) % 8
    data = (centers[labels] + random.normal(size=(400, 20))).astype("float32"), labels
    hidden = GrowableDense(12, "relu", name="hidden")
    model = keras.Sequential([keras.Input((20,)), hidden, GrowableDense(8, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    meter, full = GradientMeter(), [variable.numpy() for variable in model.variables]
    differences = []
    for seed in range(6):
        keras.utils.set_random_seed(seed)
        for variable, value in zip(model.variables, full):
            is_kernel = variable.name == "kernel"
            draw = 0.3 * np.random.normal(size=value.shape)
            variable.assign(draw if is_kernel else value)
        hidden.prune_connections(np.arange(240).reshape(20, 12)[:, 3:].reshape(-1))
        model.layers[-1].prune_connections(np.arange(96).reshape(12, 8)[3:].reshape(-1))
        model.fit(*data, epochs=2, verbose=0)
        start, losses = [v.numpy() for v in model.variables], []
        for initializer in (SingularVectors(), RandomWeights(seed=seed)):
            for variable, value in zip(model.variables, start):
                variable.assign(value)
            grow_neurons(model, data, hidden, 4, initializer=initializer, meter=meter)
            model.fit(*data, epochs=4, shuffle=False, verbose=0)
            losses.append(_loss(model, data))
        differences.append(losses[0] - losses[1])
    mean, half = _interval(differences)
    assert mean + half < 0


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_neurons_are_born_into_dormant_units_with_the_weights_of_the_initializer(blobs, kind):
    class Literal(NeuronInitializer):
        def __call__(self, bridge):
            assert bridge.gradient.shape == (8, 3)
            self.incoming = np.arange(1.0, 17.0).reshape(8, 2).astype("float32")
            self.outgoing = -np.arange(1.0, 7.0).reshape(2, 3).astype("float32")
            return Birth(
                tf.constant(self.incoming),
                tf.constant(self.outgoing),
                tf.constant(self.incoming > 4),
                tf.constant(self.outgoing < -1),
            )

    model = _network(kind=kind)
    model.fit(*blobs, batch_size=96, verbose=0)
    hidden, outputs = model.layers
    before = [layer.effective_kernel().numpy() for layer in model.layers]
    initializer = Literal()
    record = grow_neurons(model, blobs, hidden, 2, initializer=initializer)
    expected_in, expected_out = (kernel.copy() for kernel in before)
    expected_in[:, 3:5] = np.where(initializer.incoming > 4, initializer.incoming, 0)
    expected_out[3:5] = np.where(initializer.outgoing < -1, initializer.outgoing, 0)
    np.testing.assert_allclose(hidden.effective_kernel(), expected_in, rtol=1e-5)
    np.testing.assert_allclose(outputs.effective_kernel(), expected_out, rtol=1e-5)
    np.testing.assert_array_equal(hidden.bias.numpy()[3:5], 0)
    (change,) = record.layers
    assert (change.num_incoming, change.num_outgoing, change.num_connected) == (12, 5, 5)
    assert str(record).startswith(
        "2 neurons and 17 connections changed, 5 connected in 'hidden', l"
    )


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_slots_of_what_wakes_start_afresh_and_the_step_is_not_traced_again(blobs, kind):
    between = [_layers.BatchNormalization()]
    model = _network(kind=kind, between=between)
    traces = []
    step = model.train_step
    model.train_step = lambda data: traces.append(1) or step(data)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*blobs, batch_size=32, epochs=2, verbose=0)
    hidden, _, outputs = model.layers
    for variable in model.optimizer.variables[2:]:
        variable.assign(np.full(variable.shape, 0.5))
    num_traces = len(traces)
    assert num_traces > 0
    grow_neurons(model, blobs, "hidden", 2)
    bias_slots = slots(model.optimizer, hidden.bias).values()
    assert all(np.all(slot.numpy()[3:5] == 0) for slot in bias_slots)
    assert all(np.all(slot.numpy()[:3] == 0.5) for slot in bias_slots)
    for layer, is_new in ((hidden, (slice(None), slice(3, 5))), (outputs, (slice(3, 5),))):
        new = np.zeros(layer.kernel_shape, bool)
        new[is_new] = True
        active, _ = layer.active_connections()
        for slot in slots(model.optimizer, layer.kernel_variables[0]).values():
            held = slot.numpy().reshape(-1)
            held = held[: len(active)] if kind is SparseDense else held[active]
            np.testing.assert_array_equal(held == 0, new.reshape(-1)[active])
    for name in ("gamma", "beta"):
        for slot in slots(model.optimizer, getattr(between[0], name)).values():
            np.testing.assert_array_equal(slot.numpy() == 0, np.isin(np.arange(8), [3, 4]))
    model.fit(*blobs, batch_size=32, verbose=0)
    assert len(traces) == num_traces


def test_batch_normalization_starts_newborns_afresh_and_leaves_the_others(blobs):
    normalization = _layers.BatchNormalization()
    model = _network(between=[normalization, _layers.Activation("tanh")])
    random = np.random.default_rng(0)
    normalization.set_weights([random.uniform(0.5, 2, size=8) for _ in range(4)])
    before = normalization.get_weights()
    outputs = model(blobs[0]).numpy()
    grow_neurons(model, blobs, "hidden", 2, initializer=SingularVectors())
    for name, old, fresh in zip(("gamma", "beta", "mean", "variance"), before, (1, 0, 0, 1)):
        now = {v.name.split("_")[-1]: v.numpy() for v in normalization.variables}[name]
        np.testing.assert_array_equal(now[3:5], fresh)
        np.testing.assert_array_equal(np.delete(now, [3, 4]), np.delete(old, [3, 4]))
    np.testing.assert_allclose(model(blobs[0]), outputs, rtol=0, atol=1e-6)


def test_a_unit_with_any_connection_is_not_taken(blobs):
    model = _network()
    hidden, outputs = model.layers
    hidden.grow_connections(np.array([3]))
    outputs.grow_connections(np.array([4 * 3 + 1]))
    record = grow_neurons(model, blobs, "hidden", 2)
    np.testing.assert_array_equal(record.layers[0].units, [5, 6])


def test_a_resumed_run_gives_birth_to_the_same_neurons(blobs):
    def born(steps):
        keras.utils.set_random_seed(3)
        model = _network()
        model.optimizer.iterations.assign(steps)
        grow_neurons(model, blobs, "hidden", 2)
        return model.layers[0].kernel.numpy()

    np.testing.assert_array_equal(born(7), born(7))
    assert np.any(born(7) != born(8))


def test_a_custom_loop_and_a_meter_of_its_own_serve_an_uncompiled_model(blobs):
    compiled = _network()
    model, optimizer = keras.Sequential(compiled.layers), keras.optimizers.SGD(0.1, momentum=0.9)
    model.build((None, 8))
    optimizer.build(model.trainable_variables)
    for variable in optimizer.variables[2:]:
        variable.assign(tf.ones_like(variable.value))
    meter = GradientMeter(loss="sparse_categorical_crossentropy", training=False)
    record = grow_neurons(model, blobs, "hidden", meter=meter, optimizer=optimizer)
    assert record.loss == pytest.approx(_loss(compiled, blobs), abs=1)
    (slot,) = slots(optimizer, model.layers[0].bias).values()
    assert slot.numpy()[3] == 0


class _Bad(NeuronInitializer):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def __call__(self, bridge):
        birth = RandomWeights()(bridge)
        incoming, wakes = birth.incoming, birth.wakes_outgoing
        if self.kind == "shape":
            incoming = incoming[1:]
        if self.kind == "nan":
            incoming *= float("nan")
        if self.kind == "mute":
            wakes = tf.zeros_like(wakes)
        return Birth(incoming, birth.outgoing, birth.wakes_incoming, wakes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "absent"}, "expected some of \\['hidden', 'outputs'\\]"),
        ({"layer": "outputs"}, "units of an output layer"),
        ({"count": 0}, "positive integer. Received: count=0"),
        ({"count": 6}, "with 5 of them among 8. .* `keras_grow.widen\\(model, 'hidden', 9\\)`"),
        ({"initializer": _Bad("shape")}, "expected \\(8, 1\\) for both"),
        ({"initializer": _Bad("nan")}, "must return finite weights"),
        ({"initializer": _Bad("mute")}, "needs a connection in and one out"),
        ({"data": (np.zeros((4, 5), "float32"), np.zeros(4))}, "could not be run on the data"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(blobs, snapshot, arguments, message):
    model = _network()
    model.fit(*blobs, verbose=0)
    before = snapshot(model)
    arguments = {"data": blobs, "layer": "hidden", **arguments}
    with pytest.raises(ValueError, match=message):
        grow_neurons(model, arguments.pop("data"), arguments.pop("layer"), **arguments)
    snapshot.assert_same(model, before)


def test_layers_that_cannot_be_bridged_are_refused_in_words(blobs):
    def refused(*layers, name="hidden"):
        model = keras.Sequential([keras.Input((8,)), *layers])
        model.compile("sgd", "sparse_categorical_crossentropy")
        with pytest.raises(ValueError, match="Received: ") as error:
            grow_neurons(model, blobs, name)
        return str(error.value)

    def hidden(**arguments):
        return GrowableDense(4, name="hidden", **arguments)

    plain = _layers.Dense(3, name="plain")
    assert "'plain', a plain Dense. Convert it with" in refused(hidden(), plain)
    assert "'wide' (Reshape) in the way" in refused(
        hidden(), _layers.Reshape((2, 2), name="wide"), _layers.Flatten(), GrowableDense(3)
    )
    assert "flattened on the way" in refused(
        _layers.Reshape((2, 4)), hidden(), _layers.Flatten(), GrowableDense(3)
    )
    frozen = GrowableDense(3, name="frozen", trainable=False)
    assert "layers ['frozen'] with trainable=False" in refused(hidden(), frozen)
    with pytest.raises(TypeError, match="`initializer` must be an object of a subclass"):
        grow_neurons(_network(), blobs, "hidden", initializer="gradmax")
    x = keras.Input((8,))
    h = hidden()(x)
    readers = [GrowableDense(1, name="a")(h), keras.layers.Dense(1, name="b")(h)]
    with pytest.raises(ValueError, match="read by 'b', a plain Dense"):
        grow_neurons(keras.Model(x, readers), blobs, "hidden")


def test_a_full_sparse_layer_says_so_and_stays(blobs, snapshot):
    model = _network()
    hidden = SparseDense(8, "relu", capacity=30, initial_density=24 / 64, name="hidden")
    outputs = SparseDense(3, "softmax", capacity=1.0, initial_density=9 / 24, name="outputs")
    model = keras.Sequential([keras.Input((8,)), hidden, outputs])
    model.compile("sgd", "sparse_categorical_crossentropy")
    for layer in model.layers:
        layer.prune_connections(layer.active_connections()[0])
    before = snapshot(model)
    with pytest.raises(CapacityUsedUp, match="bring 32 connections, .* has room for 30"):
        grow_neurons(model, blobs, "hidden", 4, initializer=RandomWeights())
    snapshot.assert_same(model, before)
    grow_neurons(model, blobs, "hidden", 4, initializer=RandomWeights(num_inputs=7))
    assert hidden.num_active == 28


def test_a_bridging_gradient_too_large_to_hold_is_refused_before_anything_is_measured():
    hidden = SparseDense(4, capacity=4, name="hidden")
    outputs = SparseDense(2**14, capacity=4)
    model = keras.Sequential([keras.Input((2**14,)), hidden, outputs])
    hidden.prune_connections(hidden.active_connections()[0])
    outputs.prune_connections(outputs.active_connections()[0])
    with pytest.raises(ValueError, match="16384 x 16384 = 268,435,456 numbers"):
        grow_neurons(model, None, "hidden")
