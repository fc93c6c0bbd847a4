import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from keras_grow import (
    ConnectionHistory,
    Epochs,
    GrowableDense,
    GrowthCallback,
    GrowthSummaries,
    PruningCallback,
    SparseDense,
    growable_layers,
    growth_gradients,
)
from keras_grow.policies.densities import FanIn


def _events(folder):
    events = EventAccumulator(str(folder / "growth"), size_guidance={"tensors": 0})
    return events.Reload()


def _values(events, tag):
    """The numbers written under a tag, from each step to its array."""
    return {e.step: tensor_util.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}


def _tags(events):
    return set(events.Tags()["tensors"])


@pytest.fixture
def sparse_classifier():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            SparseDense(16, "relu", initial_density=FanIn(2), seed=0, name="hidden"),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_densities_and_connections_of_each_epoch_are_those_that_it_trained_with(
    blobs, classifier, tmp_path
):
    growth = GrowthCallback(blobs, count=20)
    pruning = PruningCallback(density=0.125, when=Epochs(start=3))
    # Whatever the order: summaries first, or last.
    callbacks = [GrowthSummaries(tmp_path, when=Epochs(stop=0)), growth, pruning]
    history = classifier.fit(*blobs, epochs=4, verbose=0, callbacks=callbacks).history
    events = _events(tmp_path)
    assert history["connections"] == [44, 64, 84, 22]
    assert _values(events, "connections/in_all") == {0: 44, 1: 64, 2: 84, 3: 22}
    for name, total in (("hidden", 128), ("classes", 48)):
        counts = _values(events, f"connections/{name}")
        for epoch, density in _values(events, f"density/{name}").items():
            assert density == pytest.approx(counts[epoch] / total)
    by_layer = [_values(events, f"connections/{name}") for name in ("hidden", "classes")]
    assert [sum(float(c[epoch]) for c in by_layer) for epoch in range(4)] == [44, 64, 84, 22]
    assert len(_tags(events)) == 6


def test_the_histogram_holds_the_gradients_of_dormant_connections(blobs, classifier, tmp_path):
    callbacks = [GrowthSummaries(tmp_path, blobs)]
    classifier.fit(*blobs, epochs=2, verbose=0, callbacks=callbacks)
    hidden = classifier.get_layer("hidden")
    gradient = growth_gradients(classifier, blobs)[hidden].numpy()
    expected = np.abs(gradient)[~hidden.kernel_mask.numpy()]
    histogram = _values(_events(tmp_path), "growth_scores/hidden")[1]
    left, right, counts = histogram.T
    assert counts.sum() == 128 - 32
    assert left[0] == pytest.approx(expected.min(), rel=1e-4)
    assert right[-1] == pytest.approx(expected.max(), rel=1e-4)


def test_what_is_written_at_the_end_of_an_epoch_is_what_the_next_growth_ranks(
    blobs, classifier, tmp_path
):
    growth = GrowthCallback(blobs, count=1)
    callbacks = [growth, GrowthSummaries(tmp_path, blobs, meter=growth.meter)]
    classifier.fit(*blobs, epochs=1, verbose=0, callbacks=callbacks)
    best = max(
        _values(_events(tmp_path), f"growth_scores/{layer.name}")[0][-1, 1]
        for layer in growable_layers(classifier)
    )
    gradients = growth_gradients(classifier, blobs)
    before = [layer.kernel_mask.numpy() for layer in growable_layers(classifier)]
    classifier.fit(*blobs, initial_epoch=1, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
    grown = [
        float(abs(gradients[layer].numpy()[layer.kernel_mask.numpy() & ~mask]).max())
        for layer, mask in zip(growable_layers(classifier), before, strict=True)
        if (layer.kernel_mask.numpy() & ~mask).any()
    ]
    assert grown == [pytest.approx(best, rel=1e-4)]


def test_pictures_are_the_masks(blobs, classifier, tmp_path):
    classifier.fit(*blobs, epochs=1, verbose=0, callbacks=[GrowthSummaries(tmp_path)])
    width, height, encoded = _values(_events(tmp_path), "kernel_mask/hidden")[0]
    picture = tf.io.decode_png(encoded).numpy()
    assert (width, height) == (b"16", b"8")
    mask = classifier.get_layer("hidden").kernel_mask.numpy()
    np.testing.assert_array_equal(picture[..., 0] == 255, mask)
    np.testing.assert_array_equal(picture[..., 0] == 0, ~mask)


def test_pictures_and_scores_are_written_when_due(blobs, classifier, tmp_path):
    summaries = GrowthSummaries(tmp_path, blobs, when=Epochs(every=2, start=1))
    classifier.fit(*blobs, epochs=5, verbose=0, callbacks=[summaries])
    events = _events(tmp_path)
    assert list(_values(events, "density/hidden")) == [0, 1, 2, 3, 4]
    assert list(_values(events, "kernel_mask/hidden")) == [1, 3]
    assert list(_values(events, "growth_scores/classes")) == [1, 3]


def test_without_data_there_are_no_scores_and_frozen_layers_have_none(blobs, classifier, tmp_path):
    classifier.get_layer("hidden").trainable = False
    classifier.compile("adam", "sparse_categorical_crossentropy")
    for folder, data in (("without", None), ("with", blobs)):
        summaries = GrowthSummaries(tmp_path / folder, data)
        classifier.fit(*blobs, epochs=1, verbose=0, callbacks=[summaries])
    assert not any("scores" in tag for tag in _tags(_events(tmp_path / "without")))
    scores = {tag for tag in _tags(_events(tmp_path / "with")) if "scores" in tag}
    assert scores == {"growth_scores/classes"}


def test_summaries_of_a_sparse_layer_show_its_dormant_connections(
    blobs, sparse_classifier, tmp_path
):
    callbacks = [GrowthSummaries(tmp_path, blobs)]
    sparse_classifier.fit(*blobs, epochs=1, verbose=0, callbacks=callbacks)
    events = _events(tmp_path)
    # 16,384 draws leave out none of 128 connections; 32 are active.
    _, right, counts = _values(events, "growth_scores/hidden")[0].T
    assert counts.sum() == 128 - 32
    gradient = growth_gradients(sparse_classifier, blobs)[sparse_classifier.layers[0]]
    active, _ = sparse_classifier.layers[0].active_connections()
    dormant = np.setdiff1d(np.arange(128), active)
    assert right[-1] == pytest.approx(np.abs(gradient.at(tf.constant(dormant))).max(), rel=1e-4)
    assert _values(events, "density/hidden")[0] == pytest.approx(0.25)


def test_summaries_change_neither_the_network_nor_its_logs(blobs, classifier, tmp_path):
    def run(callbacks):
        keras.utils.set_random_seed(0)
        model = keras.models.clone_model(classifier)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        growth = GrowthCallback(blobs, count=10)
        logs = model.fit(*blobs, epochs=3, verbose=0, callbacks=[growth, *callbacks]).history
        return logs, model.get_weights()

    logs, weights = run([])
    logs_with, weights_with = run([GrowthSummaries(tmp_path, blobs)])
    assert logs_with.keys() == logs.keys()
    assert logs_with["loss"] == logs["loss"]
    assert [w.tobytes() for w in weights_with] == [w.tobytes() for w in weights]


def test_kerass_tensorboard_in_the_same_folder_takes_nothing_away(blobs, classifier, tmp_path):
    callbacks = [
        keras.callbacks.TensorBoard(tmp_path, update_freq=1000),
        GrowthSummaries(tmp_path),
    ]
    classifier.fit(*blobs, epochs=2, verbose=0, callbacks=callbacks)
    assert list(_values(_events(tmp_path), "density/in_all")) == [0, 1]
    assert (tmp_path / "train").is_dir()


def test_a_resumed_run_continues_the_curves(blobs, classifier, tmp_path):
    for start in (0, 2):
        summaries = GrowthSummaries(tmp_path)
        classifier.fit(
            *blobs, initial_epoch=start, epochs=start + 2, verbose=0, callbacks=[summaries]
        )
    assert list(_values(_events(tmp_path), "density/hidden")) == [0, 1, 2, 3]


def test_layers_of_one_name_are_told_apart(blobs, tmp_path):
    inputs = keras.Input((8,))
    nested = [
        keras.Sequential([keras.Input((8,)), GrowableDense(8, name="hidden")], name=name)
        for name in ("first", "second")
    ]
    model = keras.Model(inputs, keras.layers.Dense(3)(nested[1](nested[0](inputs))))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = ConnectionHistory()
    model.fit(*blobs, verbose=0, callbacks=[GrowthSummaries(tmp_path), history])
    assert {"density/first/hidden", "density/second/hidden"} < _tags(_events(tmp_path))
    assert history.densities == {"first/hidden": [1.0], "second/hidden": [1.0]}


def test_another_moment_than_epochs_is_refused(tmp_path):
    with pytest.raises(TypeError, match="must be a keras_grow.Epochs. Received: when=3"):
        GrowthSummaries(tmp_path, when=3)


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "keras_grow\[tensorboard\]"'):
        GrowthSummaries(tmp_path)


def test_the_history_holds_what_each_epoch_trained_with(blobs, classifier):
    history = ConnectionHistory()
    growth = GrowthCallback(blobs, count=10)
    logs = classifier.fit(*blobs, epochs=3, verbose=0, callbacks=[history, growth]).history
    assert history.epochs == [0, 1, 2]
    totals = np.sum(list(history.connections.values()), axis=0)
    assert totals.tolist() == logs["connections"] == [44, 54, 64]
    mask = classifier.get_layer("hidden").kernel_mask.numpy()
    np.testing.assert_array_equal(history.connections_per_input[-1], mask.sum(axis=1))
    assert history.connections["hidden"][-1] == mask.sum()
    assert history.densities["hidden"][-1] == mask.mean()


def test_the_history_goes_on_with_a_later_epoch_and_starts_afresh_with_an_earlier_one(
    blobs, classifier
):
    history = ConnectionHistory()
    for start, epochs, recorded in ((0, 2, [0, 1]), (2, 3, [0, 1, 2]), (0, 1, [0])):
        classifier.fit(*blobs, initial_epoch=start, epochs=epochs, verbose=0, callbacks=[history])
        assert history.epochs == recorded
        assert len(history.densities["hidden"]) == len(recorded)
        assert len(history.connections_per_input) == len(recorded)
