"""Neurons and any other verb in `model.fit`, by the callback that connections have."""

import copy
import pickle

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import NeuronGrowthCallback, NeuronPruningCallback, ScheduledChange

X = np.random.default_rng(0).normal(size=(48, 8)).astype("float32")
Y = np.arange(48) % 3


def _model():
    dense = keras_grow.GrowableDense
    layers = [dense(6, "relu", initial_density=0.5, seed=1, name="hidden"), dense(3, name="out")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    wide = keras_grow.widen(model, "hidden", 12)
    wide.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return wide


def _living(model):
    return int(model.get_layer("hidden").kernel_mask.numpy().any(axis=0).sum())


def _fit(model, callback, epochs=4, **arguments):
    arguments = {"batch_size": 16, "verbose": 0} | arguments
    return model.fit(X, Y, epochs=epochs, callbacks=[callback], **arguments).history


def test_neurons_are_born_before_epochs_and_logged():
    model = _model()
    history = _fit(model, NeuronGrowthCallback((X, Y), "hidden", count=2))
    assert history["born_neurons"] == [0, 2, 2, 2]
    assert history["birth_seconds"][0] == 0
    assert min(history["birth_seconds"][1:]) > 0
    assert _living(model) == 12


def test_births_follow_a_schedule_of_steps_and_trace_no_training_step():
    model = _model()
    counts = []

    def count(step):
        counts.append(step)
        return 1.0 if step < 5 else 0.0

    callback = NeuronGrowthCallback((X, Y), "hidden", count, when=keras_grow.Steps(2))
    history = _fit(model, callback, epochs=3)
    assert counts == [2, 4, 6, 8]
    assert history["born_neurons"] == [1, 1, 0]
    assert _living(model) == 8


def test_a_callback_for_births_is_copied_without_its_model_and_does_the_same():
    callback = NeuronGrowthCallback((X, Y), "hidden", count=1)
    models = []
    for make in (lambda c: c, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
        keras.utils.set_random_seed(3)
        models.append(_model())
        _fit(models[-1], make(callback))
    for other in models[1:]:
        for a, b in zip(models[0].variables, other.variables, strict=True):
            np.testing.assert_array_equal(a, b)
    assert copy.deepcopy(callback)._model is None


def test_neurons_are_pruned_before_epochs_down_to_a_scheduled_density():
    model = _model()
    keras_grow.grow_neurons(model, (X, Y), "hidden", 6)
    asked = {1: 0.75, 2: 0.75, 3: 0.5}
    pruning = NeuronPruningCallback((X, Y), density=asked.get)
    history = _fit(model, pruning)
    assert history["pruned_neurons"] == [0, 3, 0, 3]
    assert history["neuron_pruning_seconds"][0] == 0
    assert _living(model) == 6


def test_neurons_are_pruned_to_a_scheduled_share_of_the_whole_network():
    model = _model()
    keras_grow.grow_neurons(model, (X, Y), "hidden", 6)
    # 83%, 66%, 49% of 12 units, each with 8 + 3 products; of what is left it would be fewer.
    share = keras.optimizers.schedules.PolynomialDecay(1.0, 3, end_learning_rate=0.49)
    pruning = NeuronPruningCallback((X, Y), budget=keras_grow.budgets.FLOPs(share))
    history = _fit(model, pickle.loads(pickle.dumps(pruning)), epochs=6)
    assert history["pruned_neurons"] == [0, 3, 2, 2, 0, 0]
    assert _living(model) == 5


def test_amounts_of_neurons_to_prune_are_checked_at_once():
    with pytest.raises(ValueError, match="exactly one of `count`, `density`, `threshold`"):
        NeuronPruningCallback((X,), count=1, density=0.5)
    with pytest.raises(ValueError, match="positive integer. Received: count=0"):
        NeuronPruningCallback((X,), count=0)
    with pytest.raises(TypeError, match="`budget` must be"):
        NeuronPruningCallback((X,), budget=0.5)


def test_a_number_of_neurons_is_pruned_by_steps():
    model = _model()
    pruning = NeuronPruningCallback((X,), count=lambda step: step == 4, when=keras_grow.Steps(2))
    assert _fit(model, pruning, epochs=2)["pruned_neurons"] == [0, 1]


def _prune_one(model, moment):
    return keras_grow.prune_neurons(model, count=1, data=(X,))


def test_any_verb_changes_the_model_at_its_moments():
    model = _model()
    history = _fit(model, ScheduledChange(_prune_one, when=keras_grow.Epochs(2)))
    assert history["changed"] == [0, 1, 0, 1]
    assert _living(model) == 4
    pickle.loads(pickle.dumps(ScheduledChange(_prune_one)))


def test_a_change_before_a_batch_that_there_is_not_is_taken_back_with_what_it_touched():
    def batches():
        yield from ((X[i : i + 16], Y[i : i + 16]) for i in range(0, 48, 16))

    known, unknown = _model(), _model()
    unknown.set_weights(known.get_weights())
    histories = []
    for model, data in ((known, None), (unknown, batches)):
        keras.utils.set_random_seed(1)
        callback = ScheduledChange(_prune_one, when=keras_grow.Steps(3, start=3))
        for _ in range(2):
            if data is None:
                model.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[callback])
            else:
                model.fit(data(), verbose=0, callbacks=[callback])
        histories.append(_living(model))
    assert histories[0] == histories[1] == 5
    for a, b in zip(known.variables, unknown.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_what_is_no_change_is_refused():
    with pytest.raises(TypeError, match="`change` must be a function .*'prune'"):
        ScheduledChange("prune")
    with pytest.raises(TypeError, match="Epochs or a keras_grow.Steps. Received: when=3"):
        ScheduledChange(_prune_one, when=3)
    with pytest.raises(ValueError, match="positive integer. Received: count=0"):
        NeuronGrowthCallback((X, Y), "hidden", count=0)


def test_a_change_that_never_falls_due_warns():
    with pytest.warns(UserWarning, match="ScheduledChange never fell due"):
        _fit(_model(), ScheduledChange(_prune_one, when=keras_grow.Epochs(9)), epochs=1)
