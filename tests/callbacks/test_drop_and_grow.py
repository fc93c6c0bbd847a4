"""Sparse training inside `fit`."""

import copy

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import DropAndGrowCallback, Epochs, Steps, densities, sparse_training


def _network(kind=keras_grow.GrowableDense):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            kind(16, activation="relu", initial_density=0.25, seed=1),
            kind(3, activation="softmax", initial_density=0.5, seed=2),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _connections(model):
    return [layer.active_connections()[0].numpy() for layer in keras_grow.growable_layers(model)]


@pytest.mark.parametrize("kind", [keras_grow.GrowableDense, keras_grow.SparseDense])
def test_the_count_stays_and_logs_say_what_was_exchanged(blobs, kind):
    model = _network(kind)
    before = _connections(model)
    callback = DropAndGrowCallback(blobs, fraction=0.5, when=Epochs(stop=3))
    logs = model.fit(*blobs, epochs=5, verbose=0, callbacks=[callback]).history
    assert logs["connections"] == [56] * 5
    exchanged = logs["exchanged_connections"]
    assert exchanged[0] == exchanged[3] == exchanged[4] == 0
    assert 0 < exchanged[1] <= 28
    assert [len(each) for each in _connections(model)] == [len(each) for each in before]
    assert any(np.any(a != b) for a, b in zip(before, _connections(model), strict=True))
    # A number in every epoch: History's lists are as long as there are epochs.
    assert np.isnan(logs["exchange_loss"][0])
    assert np.isfinite(logs["exchange_loss"][1:3]).all()


def test_schedules_of_fraction_and_density_are_followed(blobs):
    model = _network()
    callback = DropAndGrowCallback(
        blobs,
        fraction=lambda epoch: 0.0 if epoch == 2 else 0.25,
        density=keras.optimizers.schedules.PolynomialDecay(0.3, 4, 0.1, power=3),
        method=sparse_training.GraNet(),
    )
    logs = model.fit(*blobs, epochs=6, verbose=0, callbacks=[callback]).history
    # 176 connections in all: cubic from 0.3 at epoch 0 to 0.1 at epoch 4.
    expected = [56, 32, 32, 18, 18, 18]
    assert logs["connections"] == expected
    assert logs["exchanged_connections"][2] == 0


def test_a_resumed_run_is_the_same(blobs, tmp_path):
    def callbacks():
        method = sparse_training.CannistraciHebb(seed=3)
        return [
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            DropAndGrowCallback(method=method, when=Steps(4)),
        ]

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    data = {"epochs": 4, "batch_size": 32, "verbose": 0, "shuffle": False}
    whole = _network()
    whole.fit(*blobs, **data, callbacks=callbacks()[1:])
    keras.utils.set_random_seed(0)
    broken = _network()
    with pytest.raises(KeyboardInterrupt):
        broken.fit(*blobs, **data, callbacks=[*callbacks(), Stop()])
    resumed = _network()
    resumed.fit(*blobs, **data, callbacks=callbacks())
    for a, b in zip(_connections(whole), _connections(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_copy_has_its_settings_and_none_of_its_run(blobs):
    callback = DropAndGrowCallback(blobs, fraction=0.2, method=sparse_training.SET(4))
    model = _network()
    model.fit(*blobs, epochs=2, verbose=0, callbacks=[callback])
    made = copy.deepcopy(callback)
    assert made.method is callback.method
    assert made.data is callback.data
    other = _network()
    logs = other.fit(*blobs, epochs=2, verbose=0, callbacks=[made]).history
    assert logs["exchanged_connections"][1] > 0


def test_a_density_of_a_sigmoid_starts_and_ends_where_it_says():
    decay = densities.SigmoidDecay(0.5, 10, 0.1)
    values = [decay(t) for t in range(13)]
    assert values[0] == pytest.approx(0.5)
    assert values[5] == pytest.approx(0.3)
    assert values[10] == values[12] == pytest.approx(0.1)
    steps = -np.diff(values[:11])
    assert np.all(steps > 0)
    assert np.argmax(steps) in (4, 5)
    again = densities.SigmoidDecay.from_config(decay.get_config())
    assert [again(t) for t in range(13)] == values
    for wrong in ((2.0, 10, 0.1), (0.5, 0, 0.1), (0.5, 10, 0.1, 0.0)):
        with pytest.raises(ValueError, match="must be"):
            densities.SigmoidDecay(*wrong)


def test_by_default_an_exchange_measures_few_samples_and_all_of_a_dataset(blobs):
    import tensorflow as tf

    assert DropAndGrowCallback(blobs).meter.num_samples == 1000
    batches = tf.data.Dataset.from_tensor_slices(blobs).batch(32)
    callback = DropAndGrowCallback(batches)
    assert callback.meter.num_samples is None
    logs = _network().fit(*blobs, epochs=2, verbose=0, callbacks=[callback]).history
    assert logs["exchanged_connections"][1] > 0
