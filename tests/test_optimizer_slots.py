"""Slots of changed connections start afresh, all others stay: for every optimizer of Keras.

`keras_grow.optimizer_slots` relies on names that Keras does not make public. What is held here
looks at optimizers through their public `variables` alone. It was run on Keras 3.10.0, 3.14.0 and
3.15.1.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableDense, WeightNormDense
from keras_grow.optimizer_slots import reset_slots, slots

_optimizers = keras.optimizers

_OPTIMIZERS = {
    "sgd": lambda: _optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: _optimizers.Adam(0.1, amsgrad=True),
    "adamw": lambda: _optimizers.AdamW(0.1, weight_decay=0.1),
    "rmsprop": lambda: _optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "lion": lambda: _optimizers.Lion(0.1),
    "adafactor": lambda: _optimizers.Adafactor(0.1),
    "nadam": lambda: _optimizers.Nadam(0.1),
    "adamax": lambda: _optimizers.Adamax(0.1),
    "adagrad": lambda: _optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
    "adadelta": lambda: _optimizers.Adadelta(0.1),
    "ftrl": lambda: _optimizers.Ftrl(0.1),
    "lamb": lambda: _optimizers.Lamb(0.1),
    "ema": lambda: _optimizers.Adam(0.1, use_ema=True),
    "accumulation": lambda: _optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "loss_scale": lambda: _optimizers.LossScaleOptimizer(_optimizers.RMSprop(0.1, momentum=0.5)),
}
# Newer than the oldest Keras that the package takes.
# Before Keras 3.13 Muon can't train on TensorFlow: it asks a tf.Variable for its `path`.
if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 13):
    _OPTIMIZERS["muon"] = lambda: _optimizers.Muon(0.1)
if hasattr(_optimizers, "ScheduleFreeAdamW"):
    _OPTIMIZERS["schedule_free"] = lambda: _optimizers.ScheduleFreeAdamW(0.1)
if hasattr(_optimizers, "MultiOptimizer"):
    _OPTIMIZERS["multi"] = lambda: _optimizers.MultiOptimizer(
        _optimizers.OptimizerMap(_optimizers.SGD(0.1, momentum=0.9), {"changing/.*": _adagrad()})
    )


def _adagrad():
    return _optimizers.Adagrad(0.1)


@pytest.fixture(params=_OPTIMIZERS.values(), ids=_OPTIMIZERS)
def make_optimizer(request):
    return request.param


@pytest.fixture
def layer():
    """The layer to change: a 8x6 kernel, a shape that no other variable of the model has."""
    return GrowableDense(6, initial_density=0.5, seed=1, name="changing")


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return tuple(random.normal(size=(16, n)).astype("float32") for n in (8, 3))


def _trained(layer, optimizer, data):
    other = GrowableDense(3, initial_density=0.5, seed=2, name="constant")
    model = keras.Sequential([keras.Input((8,)), layer, other])
    model.compile(optimizer, "mse", run_eagerly=True)
    for _ in range(3):
        model.train_on_batch(*data)
    return model


def _values(optimizer):
    return [variable.numpy() for variable in optimizer.variables]


def _change(layer, verb):
    """Changes three connections by hand; returns the changes and their flat indices."""
    is_candidate = layer.kernel_mask.numpy() == (verb == "prune")
    indices = np.flatnonzero(is_candidate)[[0, 4, 7]]
    if verb == "prune":
        return layer.prune_connections(indices), indices
    return layer.grow_connections(indices, [0.5, 0.0, -2.0]), indices


@pytest.mark.parametrize("verb", ["grow", "prune"])
def test_slots_of_changed_connections_start_afresh_and_all_others_stay(
    make_optimizer, verb, layer, data
):
    optimizer = make_optimizer()
    model = _trained(layer, optimizer, data)
    for variable in optimizer.variables:
        if variable.shape == layer.kernel.shape:
            # A connection that never was active has clean slots: a past must be given to it.
            variable.assign_add(np.full(variable.shape, 0.25))
    before = _values(optimizer)
    changes, indices = _change(layer, verb)
    reset_slots(optimizer, changes)
    fresh = make_optimizer()
    fresh.build(model.trainable_variables)
    for variable in fresh.variables:
        is_average = getattr(optimizer, "use_ema", False) and "average" in variable.path
        if is_average and variable.shape == layer.kernel.shape:
            variable.assign(layer.kernel)  # As the first step does.
    was_reset = []
    for now, then, new in zip(_values(optimizer), before, _values(fresh), strict=True):
        if now.shape == tuple(layer.kernel.shape):
            then = then.copy()
            was_reset.append(np.any(then.flat[indices] != new.flat[indices]))
            then.flat[indices] = new.flat[indices]
        assert now.tobytes() == then.tobytes()
    assert was_reset
    assert all(was_reset)


def test_every_slot_of_the_kernel_is_found_by_a_name_of_its_own(make_optimizer, layer, data):
    optimizer = make_optimizer()
    _trained(layer, optimizer, data)
    found = slots(optimizer, layer.kernel)
    expected = [v for v in optimizer.variables if v.shape == layer.kernel.shape]
    assert {id(slot) for slot in found.values()} == {id(slot) for slot in expected}
    assert slots(optimizer, layer.kernel_mask) == {}


@pytest.mark.parametrize("verb", ["grow", "prune"])
def test_slots_of_the_gain_start_afresh_only_where_a_dead_unit_wakes(verb, data):
    layer = WeightNormDense(6, use_bias=False, initial_density=0.5, seed=1)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(_optimizers.Adam(0.1), "mse", run_eagerly=True)
    targets = np.repeat(data[1], 2, axis=1)
    model.train_on_batch(data[0], targets)
    mask = layer.kernel_mask.numpy()
    dead = np.flatnonzero(mask[:, 2]) * 6 + 2
    model.train_on_batch(data[0], targets)
    gains = slots(model.optimizer, layer.g)
    before = {name: slot.numpy() for name, slot in gains.items()}
    reset_slots(model.optimizer, layer.prune_connections(dead))
    expected = {name: value.copy() for name, value in before.items()}
    if verb == "grow":
        reset_slots(model.optimizer, layer.grow_connections(dead[:1], gradient=tf.ones(1)))
        for value in expected.values():
            assert value[2] != 0
            value[2] = 0
    assert {name: slot.numpy().tolist() for name, slot in gains.items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_no_optimizer_and_an_unbuilt_one_are_left_alone(make_optimizer, layer):
    layer.build((None, 8))
    changes, _ = _change(layer, "grow")
    reset_slots(None, changes)
    optimizer = make_optimizer()
    before = len(optimizer.variables)
    reset_slots(optimizer, changes)
    assert len(optimizer.variables) == before
    assert slots(optimizer, layer.kernel) == {}


def test_an_optimizer_of_other_variables_is_left_alone(make_optimizer, layer):
    layer.build((None, 8))
    stranger = make_optimizer()
    stranger.build([keras.Variable(np.ones((8, 6)), name="elsewhere")])
    before = _values(stranger)
    reset_slots(stranger, _change(layer, "grow")[0])
    assert [v.tobytes() for v in _values(stranger)] == [v.tobytes() for v in before]


def test_the_second_moment_can_start_at_the_mean_of_what_is_positive(layer):
    layer.build((None, 8))
    optimizer = _optimizers.Adam(0.1, amsgrad=True)
    optimizer.build([layer.kernel])
    mask = layer.kernel_mask.numpy()
    found = slots(optimizer, layer.kernel)
    for number, slot in enumerate(found.values()):
        slot.assign(np.where(mask, np.arange(48).reshape(8, 6) + number, 0))
    changes, indices = _change(layer, "grow")
    reset_slots(optimizer, changes, second_moment_starts_at_mean=True)
    started = {name: slot.numpy().flat[indices].tolist() for name, slot in found.items()}
    first, *seconds = started.values()
    assert first == [0, 0, 0]
    means = [(np.flatnonzero(mask) + number).tolist() for number in (1, 2)]
    # Connection 0 may hold the one zero that is no second moment yet.
    means = [np.mean([value for value in values if value > 0]) for values in means]
    np.testing.assert_allclose(seconds, np.repeat(means, 3).reshape(2, 3), rtol=1e-6)


@pytest.mark.parametrize("starts_at_mean", [False, True])
def test_late_in_training_a_grown_weight_makes_large_adam_steps_unless_it_starts_at_the_mean(
    layer, starts_at_mean
):
    """Gradients are 1 for ever: an ordinary step is the learning rate."""
    layer.build((None, 8))
    optimizer = _optimizers.Adam(0.001)
    optimizer.build([layer.kernel])
    optimizer.iterations.assign(100_000)
    for slot in slots(optimizer, layer.kernel).values():
        slot.assign(layer.kernel_mask.numpy())
    changes, indices = _change(layer, "grow")
    reset_slots(optimizer, changes, starts_at_mean)
    steps = []
    for _ in range(30):
        before = layer.kernel.numpy().flat[indices]
        optimizer.apply([tf.cast(layer.kernel_mask, "float32")], [layer.kernel])
        steps.append((before - layer.kernel.numpy().flat[indices]) / 0.001)
    # (1 - beta_1) / sqrt(1 - beta_2) = 0.1 / 0.0316, and growing while the momentum builds up.
    first, largest = np.mean(steps[0]), np.max(steps)
    if starts_at_mean:
        assert first == pytest.approx(0.1, rel=1e-2)
        assert largest <= 1
    else:
        assert first == pytest.approx(3.16, rel=1e-2)
        assert largest > 6


def test_the_average_of_a_weight_that_wakes_late_starts_at_the_weight():
    layer = GrowableDense(2, initial_density=0.5, seed=0)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile(_optimizers.SGD(0.1, use_ema=True), "mse")
    model.train_on_batch(np.ones((4, 2)), np.ones((4, 2)))
    dormant = np.flatnonzero(~layer.kernel_mask.numpy())
    reset_slots(model.optimizer, layer.grow_connections(dormant, np.full(2, 0.7)))
    average = slots(model.optimizer, layer.kernel)["_model_variables_moving_average"].numpy()
    np.testing.assert_allclose(average.reshape(-1)[dormant], 0.7)
