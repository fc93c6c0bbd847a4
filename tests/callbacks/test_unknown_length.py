"""Data whose length Keras does not know: it begins one batch more than there is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableDense, GrowthCallback, PruningCallback, Steps

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed"),
]


def _of_unknown_length(blobs):
    """Eight batches of 12, which only reading them tells."""
    return tf.data.Dataset.from_tensor_slices(blobs).batch(12).filter(lambda x, y: True)


def _state(model):
    return [v.numpy().tobytes() for v in (*model.variables, *model.optimizer.variables)]


class _AtTheLastStep(keras.callbacks.Callback):
    """Keeps what the model and its optimizer were when the last step had been made."""

    def on_train_batch_end(self, batch, logs=None):
        self.state = _state(self.model)


@pytest.mark.parametrize("change", [GrowthCallback, PruningCallback])
def test_nothing_changes_after_the_last_step_not_even_the_optimizers_counter(
    blobs, classifier, change
):
    arguments = (blobs,) if change is GrowthCallback else ()
    callback = change(*arguments, count=10, when=Steps(4))
    last = _AtTheLastStep()
    history = classifier.fit(
        _of_unknown_length(blobs), epochs=1, verbose=0, callbacks=[callback, last]
    ).history
    # Due before steps 4 and 8, of steps 0 to 7.
    assert history[f"{callback._participle}_connections"] == [10]
    assert _state(classifier) == last.state


@pytest.mark.parametrize(("every", "steps_per_execution"), [(3, 1), (5, 1), (8, 1), (5, 3)])
def test_growth_is_that_of_data_of_known_length(blobs, classifier, every, steps_per_execution):
    config, weights = classifier.get_config(), classifier.get_weights()

    def grown(data):
        model = keras.Sequential.from_config(config)
        model.compile(
            "sgd", "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution
        )
        model.set_weights(weights)
        callback = GrowthCallback(blobs, count=2, when=Steps(every))
        history = model.fit(data, epochs=3, verbose=0, callbacks=[callback]).history
        return history["grown_connections"], model.get_weights()

    known = tf.data.Dataset.from_tensor_slices(blobs).batch(12)
    counts, weights_known = grown(known)
    counts_unknown, weights_unknown = grown(_of_unknown_length(blobs))
    assert counts_unknown == counts
    for a, b in zip(weights_known, weights_unknown, strict=True):
        np.testing.assert_array_equal(a, b)


class _Interruption(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("every", "steps_per_execution"), [(8, 1), (5, 1), (5, 3)])
@pytest.mark.parametrize("backup", ["keras", "keras_grow", "keras_grow, first"])
def test_a_resumed_run_is_the_uninterrupted_one(
    blobs, classifier, tmp_path, backup, every, steps_per_execution
):
    package = keras.callbacks if backup == "keras" else keras_grow
    config, weights = classifier.get_config(), classifier.get_weights()

    def run(name, interruptions):
        model = keras.Sequential.from_config(config)
        model.compile(
            "adam", "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution
        )
        model.set_weights(weights)

        def fit(extra):
            callbacks = [
                GrowthCallback(blobs, count=7, when=Steps(every)),
                package.BackupAndRestore(tmp_path / name),
            ]
            callbacks = callbacks[:: -1 if "first" in backup else 1] + extra
            model.fit(_of_unknown_length(blobs), epochs=4, verbose=0, callbacks=callbacks)

        if interruptions:
            with pytest.raises(KeyboardInterrupt):
                fit(interruptions)
        fit([])
        return model.get_weights()

    for a, b in zip(run("whole", []), run("resumed", [_Interruption()]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_generator_that_is_used_up_grows_nothing_more(blobs, classifier):
    def generator():
        for start in range(0, 96, 12):
            yield blobs[0][start : start + 12], blobs[1][start : start + 12]

    last = _AtTheLastStep()
    callback = GrowthCallback(blobs, count=1, when=Steps(1))
    # Keras goes on with what it has read ahead, until it finds no batch at all.
    classifier.fit(generator(), epochs=4, verbose=0, callbacks=[callback, last])
    assert _state(classifier) == last.state


def test_a_train_step_without_the_optimizers_counter_grows_all_the_same(blobs):
    class ByHand(keras.Sequential):
        def train_step(self, data):
            return {"loss": tf.constant(0.0)}

    model = ByHand([keras.Input((8,)), GrowableDense(3, "softmax", initial_density=0.25)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    callback = GrowthCallback(blobs, count=2, when=Steps(4))
    history = model.fit(*blobs, batch_size=12, epochs=1, verbose=0, callbacks=[callback])
    assert history.history["grown_connections"] == [2]
