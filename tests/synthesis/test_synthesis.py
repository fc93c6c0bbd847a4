import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableDense, scores
from keras_grow.synthesis import GrowthPhase, PruningStage, Recipe, synthesize


class LearningRates(keras.callbacks.Callback):
    """Notes the learning rate of every step."""

    def on_train_begin(self, logs=None):
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def _recipe(**settings):
    stages = [
        PruningStage(0.3, 2, 1, removes_dead_neurons=False),
        PruningStage(0.15, 1, 1, removes_dead_neurons=False),
    ]
    return Recipe(GrowthPhase(0.5, epochs=3), stages, **settings)


def test_a_course_grows_to_its_density_and_prunes_stage_by_stage(blobs, classifier):
    record = synthesize(classifier, blobs, _recipe(), batch_size=32, verbose=0)
    assert [phase.name for phase in record.phases] == ["growth", "pruning", "pruning"]
    assert [phase.epochs for phase in record.phases] == [3, 3, 2]
    # 176 connections: half, 30% and 15% of them.
    assert [phase.num_active for phase in record.phases] == [88, 53, 26]
    # Growth in equal parts from the 44 of the seed; the cubic recipe leaves an eighth of the
    # way from 50% to 30% for the second round.
    assert record.history["connections"] == [44, 66, 88, 57, 53, 53, 26, 26]
    assert record.peak_connections == 88
    assert keras_grow.report(classifier).num_active == 26
    assert "peak" not in str(record)
    assert "at most 88 active connections" in str(record)
    assert all(phase.is_accepted for phase in record.phases)
    assert len(record.history["loss"]) == 8
    assert math.isnan(record.history["growth_loss"][-1])


def test_the_learning_rate_holds_in_growth_and_falls_to_zero_in_each_stage(blobs, classifier):
    classifier.optimizer.learning_rate = 0.01
    rates = LearningRates()
    recipe = Recipe(GrowthPhase(0.5, epochs=2), [PruningStage(0.3, 1, 1)])
    every_rate = []
    for part in (Recipe(recipe.growth), Recipe(None, recipe.stages)):
        synthesize(classifier, blobs, part, batch_size=32, callbacks=[rates], verbose=0)
        every_rate.append(rates.rates)
    np.testing.assert_allclose(every_rate[0], 0.01)
    falling = [0.005 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    np.testing.assert_allclose(every_rate[1], falling, rtol=1e-5)
    np.testing.assert_allclose(float(classifier.optimizer.learning_rate), 0.01, rtol=1e-6)


def test_a_schedule_of_the_optimizers_own_is_left_alone(blobs, classifier):
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
    classifier.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    synthesize(classifier, blobs, _recipe(), batch_size=32, verbose=0)
    expected = float(schedule(classifier.optimizer.iterations))
    np.testing.assert_allclose(float(classifier.optimizer.learning_rate), expected, rtol=1e-5)


def test_growth_ends_when_the_network_is_good_enough(blobs, classifier):
    seen = []

    def until(logs):
        seen.append(logs["val_accuracy"])
        return len(seen) == 2

    recipe = Recipe(GrowthPhase(0.5, epochs=5, until=until))
    record = synthesize(classifier, blobs, recipe, validation_data=blobs, verbose=0)
    assert record.phases[0].epochs == len(seen) == 2
    assert record.phases[0].num_active == 55  # One of four parts of the way from 44 to 88.


def test_a_stage_that_is_not_accepted_brings_back_the_network_before(blobs, classifier):
    kept = []

    def accept(logs):
        kept.append([v.numpy() for v in (*classifier.variables, *classifier.optimizer.variables)])
        return len(kept) == 1

    record = synthesize(classifier, blobs, _recipe(accept=accept), verbose=0)
    assert [phase.is_accepted for phase in record.phases] == [True, True, False]
    assert "not accepted" in str(record)
    now = [v.numpy() for v in (*classifier.variables, *classifier.optimizer.variables)]
    for value, before in zip(now, kept[0], strict=True):
        np.testing.assert_array_equal(value, before)
    assert keras_grow.report(classifier).num_active == 53


def test_a_dense_start_trains_and_is_pruned_from_a_dataset(blobs):
    model = keras.Sequential([keras.Input((8,)), GrowableDense(6, "relu"), GrowableDense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    batches = tf.data.Dataset.from_tensor_slices(blobs).batch(32)
    stage = PruningStage(0.5, 2, 0, scores.Magnitude(), removes_dead_neurons=False)
    record = synthesize(model, batches, Recipe(GrowthPhase(1.0, 2), [stage]), verbose=0)
    assert record.history["connections"] == [66, 66, 37, 33]


def test_a_stage_ends_without_dead_neurons_and_with_the_same_function(blobs, classifier):
    outputs = []

    class Outputs(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            outputs.append(self.model(blobs[0]).numpy())

    recipe = Recipe(GrowthPhase(0.5, 2), [PruningStage(0.1, 1, 1)])
    record = synthesize(classifier, blobs, recipe, callbacks=[Outputs()], verbose=0)
    np.testing.assert_allclose(classifier(blobs[0]), outputs[-1], rtol=0, atol=1e-6)
    hidden, classes = classifier.layers
    fed = hidden.kernel_mask.numpy().any(axis=0)
    read = classes.kernel_mask.numpy().any(axis=1)
    np.testing.assert_array_equal(fed, read)
    # 18 connections are left of 176, fewer without those of dead neurons.
    assert record.history["connections"][-1] == 18
    assert record.phases[-1].num_active == hidden.num_active + classes.num_active < 18


def test_neurons_are_born_while_connections_grow(blobs):
    seed = keras.Sequential(
        [
            keras.Input((8,)),
            GrowableDense(4, "relu", initial_density=0.5, seed=0, name="hidden"),
            GrowableDense(3, name="classes"),
        ]
    )
    model = keras_grow.widen(seed, "hidden", 12)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    born = Recipe(GrowthPhase(0.6, epochs=4, neurons={"hidden": 7}))
    record = synthesize(model, blobs, born, verbose=0)
    assert keras_grow.report(model).layers[0].connected_units == 11
    # 60% of 132 connections, those of the newborn among them.
    assert record.phases[0].num_active == 79
    with pytest.raises(ValueError, match="Received: epochs=1, neurons="):
        GrowthPhase(epochs=1, neurons={"hidden": 1})


def test_courses_halve_the_density():
    recipe = Recipe.to_density(0.05, grown_density=0.4, pruning_epochs=3)
    np.testing.assert_allclose([stage.density for stage in recipe.stages], [0.2, 0.1, 0.05])
    assert {stage.pruning_epochs for stage in recipe.stages} == {3}
    assert recipe.growth.density == 0.4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GrowthPhase(0.0), "above 0 and at most 1. Received: density=0.0"),
        (lambda: GrowthPhase(0.5, epochs=0), "positive integer. Received: epochs=0"),
        (lambda: PruningStage(0.5, pruning_epochs=True), "Received: pruning_epochs=True"),
        (lambda: PruningStage(0.5, retraining_epochs=-1), "Received: retraining_epochs=-1"),
        (lambda: Recipe(None, [PruningStage(0.1), PruningStage(0.2)]), r"densities \[0.1, 0.2\]"),
        (lambda: Recipe.to_density(0.5), "Received: density=0.5, grown_density=0.3"),
    ],
)
def test_courses_that_make_no_sense_are_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_model_that_is_not_compiled_is_refused_in_words(blobs):
    model = keras.Sequential([keras.Input((8,)), GrowableDense(3)])
    with pytest.raises(ValueError, match="Only a compiled model can be trained"):
        synthesize(model, blobs, Recipe())
