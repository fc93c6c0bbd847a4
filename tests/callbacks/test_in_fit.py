import csv
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    Epochs,
    GradientMeter,
    GrowableDense,
    GrowthCallback,
    PruningCallback,
    Steps,
    densities,
    growable_layers,
)


class TraceCounter(keras.Sequential):
    """Counts how often its train step is traced."""

    traces = 0

    def train_step(self, data):
        self.traces += 1
        return super().train_step(data)


def _masks(model):
    return [layer.kernel_mask.numpy() for layer in growable_layers(model)]


def _grow_and_prune(data):
    return [
        GrowthCallback(data, count=10, when=Epochs(stop=4)),
        PruningCallback(density=0.3, when=Epochs(start=4)),
    ]


# XLA compiles the step that was traced.
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_traces_the_train_step_as_often_with_the_callbacks_as_without(blobs, jit_compile):
    def traces(callbacks):
        model = TraceCounter(
            [
                keras.Input((8,)),
                GrowableDense(16, "relu", initial_density=0.25, seed=1),
                GrowableDense(3, "softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
        model.fit(*blobs, epochs=6, batch_size=36, verbose=0, callbacks=callbacks)
        return model.traces

    assert traces(_grow_and_prune(blobs)) == traces([]) > 0


def test_pruning_follows_a_schedule_of_thresholds(blobs, classifier):
    pruning = PruningCallback(threshold=lambda epoch: 0.1 * epoch, when=Epochs(start=1, stop=4))
    logs = classifier.fit(*blobs, epochs=4, verbose=0, callbacks=[pruning]).history
    assert logs["pruned_connections"][0] == 0
    assert sum(logs["pruned_connections"]) == 44 - logs["connections"][-1] > 0


def test_growth_reaches_the_scheduled_density_at_each_epoch(blobs, classifier):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.25, 4, end_learning_rate=0.75)
    history = classifier.fit(
        *blobs, epochs=6, verbose=0, callbacks=[GrowthCallback(blobs, density=schedule)]
    ).history
    # 176 connections in all.
    assert history["connections"] == [44, 66, 88, 110, 132, 132]
    assert history["grown_connections"] == [0, 22, 22, 22, 22, 0]
    np.testing.assert_allclose(history["density"], np.array(history["connections"]) / 176)
    assert math.isnan(history["growth_loss"][0])
    assert history["growth_loss"][1] > history["growth_loss"][4]
    # Nothing was measured: a resumed run could not repeat an earlier epoch's.
    assert math.isnan(history["growth_loss"][5])
    assert all(seconds > 0 for seconds in history["growth_seconds"][1:5])


def test_pruning_reaches_the_scheduled_density_and_stays_there(blobs, classifier):
    history = classifier.fit(
        *blobs,
        epochs=5,
        verbose=0,
        callbacks=[PruningCallback(density=lambda epoch: 0.25 / (epoch + 1), when=Epochs(every=2))],
    ).history
    # Epochs 1 and 3: densities 0.125 and 0.0625 of 176.
    assert history["connections"] == [44, 22, 22, 11, 11]
    assert history["pruned_connections"] == [0, 22, 0, 11, 0]


def test_a_distribution_of_densities_is_a_target_for_each_layer(blobs, classifier):
    distribution = densities.ErdosRenyi(0.5)
    classifier.fit(
        *blobs, epochs=2, verbose=0, callbacks=[GrowthCallback(blobs, density=distribution)]
    )
    expected = distribution([(8, 16), (16, 3)])
    got = [layer.density for layer in growable_layers(classifier)]
    np.testing.assert_allclose(got, expected, atol=0.5 / 48)


@pytest.mark.parametrize(("steps_per_execution", "grown"), [(1, [10, 20]), (4, [0, 20])])
def test_growth_between_steps_counts_the_optimizers_steps(
    blobs, classifier, steps_per_execution, grown
):
    # 8 steps an epoch. Due before 5, 10 and 15; in executions of 4, before 8, 12 and (too late) 16.
    classifier.compile(
        "sgd", "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution
    )
    callback = GrowthCallback(blobs, count=10, when=Steps(5))
    history = classifier.fit(
        *blobs, batch_size=12, epochs=2, verbose=0, callbacks=[callback]
    ).history
    assert history["grown_connections"] == grown


def test_with_gradient_accumulation_steps_are_batches(blobs, classifier):
    # 7 batches an epoch, an update every second: `optimizer.iterations` counts updates.
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2)
    classifier.compile(optimizer, "sparse_categorical_crossentropy")
    callback = GrowthCallback(blobs, count=5, when=Steps(3))
    history = classifier.fit(*blobs, batch_size=14, epochs=3, verbose=0, callbacks=[callback])
    # Before steps 3 and 6; 9 and 12; 15 and 18.
    assert history.history["grown_connections"] == [10, 10, 10]


class Subclassed(keras.Model):
    """Neither it nor its layers are built before the first batch."""

    def __init__(self):
        super().__init__()
        self.hidden = GrowableDense(16, "relu", initial_density=0.25, seed=1)
        self.classes = GrowableDense(3, "softmax")

    def call(self, inputs, training=False):
        return self.classes(self.hidden(inputs["x"]))


def test_a_subclassed_model_grows_in_its_first_fit_from_a_dataset_of_dicts(blobs):
    x, y = blobs
    model = Subclassed()
    model.compile("adam", "sparse_categorical_crossentropy")
    dataset = tf.data.Dataset.from_tensor_slices(({"x": x}, y)).batch(24)
    history = model.fit(dataset, epochs=3, verbose=0, callbacks=[GrowthCallback(dataset, count=10)])
    assert history.history["grown_connections"] == [0, 10, 10]


def test_a_short_last_execution_of_an_epoch_does_not_grow_twice(blobs, classifier):
    # 10 steps an epoch in executions of 4, 4 and 2: step 8 is due once, not at 10 again.
    classifier.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=4)
    callback = GrowthCallback(blobs, count=10, when=Steps(8, stop=9))
    history = classifier.fit(*blobs, batch_size=10, epochs=2, verbose=0, callbacks=[callback])
    assert history.history["grown_connections"] == [10, 0]


def test_nothing_is_grown_before_the_second_epoch_by_default(blobs, classifier):
    before = _masks(classifier)
    classifier.fit(*blobs, epochs=1, verbose=0, callbacks=[GrowthCallback(blobs, count=5)])
    for mask, mask_before in zip(_masks(classifier), before, strict=True):
        np.testing.assert_array_equal(mask, mask_before)


def test_growing_past_the_last_dormant_connection_goes_on_training(blobs, classifier):
    history = classifier.fit(
        *blobs, epochs=4, verbose=0, callbacks=[GrowthCallback(blobs, count=100)]
    ).history
    assert history["grown_connections"] == [0, 100, 32, 0]


def test_logs_reach_csv_tensorboard_and_the_progress_bar(blobs, classifier, tmp_path, capsys):
    classifier.fit(
        *blobs,
        epochs=3,
        verbose=2,
        callbacks=[
            *_grow_and_prune(blobs),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TensorBoard(tmp_path / "board"),
        ],
    )
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["connections"] for row in rows] == ["44", "54", "64"]
    assert "grown_connections: 10" in capsys.readouterr().out
    events = {}
    for path in (tmp_path / "board" / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag.startswith("epoch_"):
                    events[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert events["epoch_connections", 2] == 64
    assert events["epoch_density", 2] == pytest.approx(64 / 176)


def test_the_best_checkpoint_and_early_stopping_restore_the_network_that_was_measured(
    blobs, classifier, tmp_path
):
    path = tmp_path / "best.keras"
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=3, restore_best_weights=True, start_from_epoch=2
    )
    classifier.compile(keras.optimizers.Adam(0.1), classifier.loss, metrics=["accuracy"])
    history = classifier.fit(
        *blobs,
        validation_data=blobs,
        epochs=25,
        verbose=0,
        callbacks=[
            GrowthCallback(blobs, count=12, when=Epochs(stop=6)),
            PruningCallback(count=8, when=Epochs(start=6, stop=12)),
            stop,
            keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True),
        ],
    ).history
    logged = history["val_loss"][stop.best_epoch]
    assert logged == min(history["val_loss"][2:])
    assert classifier.evaluate(*blobs, verbose=0)[0] == pytest.approx(logged, rel=1e-6)
    num_active = sum(layer.num_active for layer in growable_layers(classifier))
    assert num_active == history["connections"][stop.best_epoch]
    best = keras.models.load_model(path)
    assert best.evaluate(*blobs, verbose=0)[0] == pytest.approx(min(history["val_loss"]), rel=1e-6)


class _Interruption(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", [Epochs(), Steps(5)])
def test_a_resumed_run_is_the_uninterrupted_one(blobs, classifier, tmp_path, when):
    config = classifier.get_config()

    def run(interrupted_at):
        model = keras.Sequential.from_config(config)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.set_weights(classifier.get_weights())

        def fit(extra=()):
            model.fit(
                *blobs,
                batch_size=32,
                shuffle=False,
                epochs=6,
                verbose=0,
                callbacks=[
                    GrowthCallback(blobs, count=7, when=when),
                    keras.callbacks.BackupAndRestore(tmp_path / f"backup{interrupted_at}"),
                    *extra,
                ],
            )

        if interrupted_at is not None:
            with pytest.raises(KeyboardInterrupt):
                fit([_Interruption(interrupted_at)])
        fit()
        return model.get_weights()

    for a, b in zip(run(None), run(3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_meter_traces_its_step_once_for_all_growth_in_a_fit(blobs, classifier):
    traces = []

    def loss(y_true, y_pred):
        traces.append(1)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    meter = GradientMeter(loss=loss, batch_size=96)
    callback = GrowthCallback(blobs, count=3, meter=meter)
    classifier.fit(*blobs, epochs=6, verbose=0, callbacks=[callback])
    assert len(traces) == 1


@pytest.mark.parametrize("callback", [GrowthCallback, PruningCallback])
def test_bad_arguments_are_refused_when_the_callback_is_made(callback):
    with pytest.raises(ValueError, match="exactly one of `count`(,| and) `density`"):
        callback()
    with pytest.raises(ValueError, match="exactly one of `count`(,| and) `density`"):
        callback(count=1, density=0.5)
    with pytest.raises(TypeError, match="`when` must be"):
        callback(count=1, when=3)


def test_a_model_without_growable_layers_is_refused_before_the_first_step(blobs):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.raises(ValueError, match="no growable layer"):
        model.fit(*blobs, verbose=0, callbacks=[GrowthCallback(blobs, count=1)])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("callback", [GrowthCallback, PruningCallback])
@pytest.mark.parametrize("count", [True, 2.5, 0, -3])
def test_a_count_that_is_no_positive_integer_is_refused_when_the_callback_is_made(callback, count):
    with pytest.raises(ValueError, match=f"`count` must be a positive integer.*count={count!r}"):
        callback(count=count)


def test_a_scheduled_count_is_rounded_to_the_nearest_integer(blobs, classifier):
    # Schedules of Keras's compute in float32, where 10 may come out as 9.999999.
    callback = GrowthCallback(blobs, count=lambda epoch: 9.75)
    history = classifier.fit(*blobs, epochs=2, verbose=0, callbacks=[callback]).history
    assert history["grown_connections"] == [0, 10]
