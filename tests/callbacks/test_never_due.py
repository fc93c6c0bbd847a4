"""A schedule that never falls due says so, once; and nothing is grown after the last batch."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    Epochs,
    GrowableDense,
    GrowthCallback,
    PruningCallback,
    SparseDense,
    Steps,
    make_sparse,
)
from keras_grow.policies.densities import FanIn


@pytest.mark.parametrize(
    ("callback", "options", "said"),
    [
        (lambda d: GrowthCallback(d, count=3), {"epochs": 1}, "epochs 0 to 0, counted from 0"),
        (lambda d: GrowthCallback(d, count=3, when=Steps(100)), {"epochs": 4}, "steps 0 to 12"),
        (
            lambda d: PruningCallback(density=0.1, when=Steps(2)),
            {"batch_size": 1000},
            "steps 0 to 1. Asked for density=0.1; 44 of 176 connections are active",
        ),
        (
            lambda d: PruningCallback(count=3, when=Epochs(start=9, stop=12)),
            {"epochs": 5, "initial_epoch": 2},
            "epochs 2 to 4",
        ),
    ],
    ids=["one epoch", "too few steps", "a batch larger than the data", "a later epoch"],
)
def test_a_callback_that_never_fell_due_says_so_once_with_the_numbers(
    blobs, classifier, callback, options, said
):
    never = callback(blobs)
    options = {"batch_size": 32, "verbose": 0, "callbacks": [never], **options}
    with pytest.warns(UserWarning, match="never fell due. Received: when=") as told:
        classifier.fit(*blobs, **options)
    (message,) = [str(each.message) for each in told if "never fell due" in str(each.message)]
    assert said in message
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*never fell due")
        classifier.fit(*blobs, **options)


@pytest.mark.filterwarnings("error:.*never fell due")
def test_one_that_was_due_or_is_over_says_nothing(blobs, classifier):
    growth = GrowthCallback(blobs, count=3, when=Epochs(start=0, stop=1))
    options = {"batch_size": 32, "verbose": 0}
    classifier.fit(*blobs, **options, callbacks=[growth])
    classifier.fit(*blobs, **options, epochs=4, initial_epoch=2, callbacks=[growth])
    pruned = PruningCallback(density=0.99, when=Epochs(start=0))  # Due, with nothing to do.
    classifier.fit(*blobs, **options, callbacks=[pruned])


class _StatesAtEnds(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.kernels = []
        self.at_test = []
        self.after_batches = []

    def _kernel(self):
        return self.model.layers[0].effective_kernel().numpy()

    def on_train_batch_end(self, batch, logs=None):
        self.after_batches.append(self._kernel())

    def on_test_begin(self, logs=None):
        self.at_test.append(self._kernel())

    def on_epoch_end(self, epoch, logs=None):
        self.kernels.append(self._kernel())


def _of_unknown_length(blobs, batch_size=32):
    dataset = tf.data.Dataset.from_tensor_slices(blobs).filter(lambda x, y: True)
    return dataset.batch(batch_size)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("storage", ["masked", "sparse"])
@pytest.mark.parametrize("validates", [False, True])
def test_nothing_changes_before_a_batch_that_there_is_not(blobs, storage, validates):
    # Three batches an epoch: steps 3 and 6 fall on the batch that Keras begins in vain.
    def run(data):
        keras.utils.set_random_seed(1)
        layer = GrowableDense(16, "relu", initial_density=0.25, seed=1)
        model = keras.Sequential([keras.Input((8,)), layer, keras.layers.Dense(3, "softmax")])
        if storage == "sparse":
            model = make_sparse(model, capacity=FanIn(6))
            assert isinstance(model.layers[0], SparseDense)
        model.compile("adam", "sparse_categorical_crossentropy")
        growth = GrowthCallback(blobs, count=5, when=Steps(3))
        pruning = PruningCallback(count=2, when=Steps(3))
        states = _StatesAtEnds()
        history = model.fit(
            data,
            epochs=3,
            verbose=0,
            shuffle=False,
            validation_data=blobs if validates else None,
            callbacks=[growth, pruning, states],
        ).history
        return model, states, history

    model, states, history = run(_of_unknown_length(blobs))
    # What is measured, saved and handed on at an epoch's end is what its last step made.
    for epoch, kernel in enumerate(states.kernels):
        np.testing.assert_array_equal(kernel, states.after_batches[3 * epoch + 2])
    for at_test, kernel in zip(states.at_test, states.kernels):
        np.testing.assert_array_equal(at_test, kernel)
    assert history["grown_connections"] == [0, 5, 5]
    assert history["pruned_connections"] == [0, 2, 2]
    # And the run is the one on data of a known length.
    known, _, _ = run(_of_unknown_length(blobs).apply(tf.data.experimental.assert_cardinality(3)))
    for a, b in zip(model.get_weights(), known.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_short_execution_of_data_of_unknown_length_does_not_grow_twice(blobs, classifier):
    classifier.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=2)
    growth = GrowthCallback(blobs, count=5, when=Steps(2))
    history = classifier.fit(
        _of_unknown_length(blobs), epochs=2, verbose=0, callbacks=[growth]
    ).history
    # Steps 0 to 2, and 3 to 5: steps 2 and 4 are due.
    assert history["grown_connections"] == [5, 5]


def test_a_list_of_arrays_is_answered_with_what_to_pass(blobs, classifier):
    with pytest.raises(TypeError, match=r"Pass `\(x, y\)` in the place of `\[x, y\]`"):
        classifier.fit(
            *blobs, epochs=2, verbose=0, callbacks=[GrowthCallback(list(blobs), count=3)]
        )


def test_growth_in_a_quiet_fit_is_quiet(blobs, classifier, capsys, monkeypatch):
    monkeypatch.setattr("keras_grow.measuring.accumulation._PATIENCE_SECONDS", -1.0)
    growth = GrowthCallback(blobs, count=3)
    classifier.fit(*blobs, epochs=2, verbose=0, callbacks=[growth])
    assert capsys.readouterr().out == ""
    assert growth.meter.verbose == "auto"
    classifier.fit(*blobs, epochs=2, verbose=2, callbacks=[growth])
    assert "0s" in capsys.readouterr().out
