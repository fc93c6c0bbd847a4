"""Keras's callbacks work beside growth and pruning in one training, with all their options."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableConv2D,
    GrowableDense,
    GrowthCallback,
    PruningCallback,
    SparseDense,
    TensorBoard,
    WeightNormDense,
)
from keras_grow.policies.densities import FanIn

X = np.random.default_rng(0).normal(size=(48, 6, 6, 1)).astype("float32")
Y = np.arange(48) % 3


@pytest.fixture(params=["masked", "sparse"])
def model(request):
    hidden = {
        "masked": WeightNormDense(9, "relu", initial_density=0.4, seed=2),
        "sparse": SparseDense(9, "relu", initial_density=FanIn(3), capacity=FanIn(40), seed=2),
    }
    layers = [
        GrowableConv2D(4, 3, initial_density=0.5, seed=1),
        keras.layers.Flatten(),
        hidden[request.param],
        GrowableDense(3, initial_density=0.5, seed=3),
    ]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def test_all_of_them_at_once(model, tmp_path):
    growing = GrowthCallback((X, Y), density=lambda epoch: 0.5 + 0.05 * epoch)
    pruning = PruningCallback(count=4)
    kerass = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        TensorBoard(
            tmp_path / "board",
            histogram_freq=1,
            write_graph=True,
            write_images=True,
            write_steps_per_second=True,
            update_freq=1,
        ),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=9.0),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    model.optimizer.use_ema = True
    model.optimizer.ema_momentum = 0.9
    history = model.fit(
        X,
        Y,
        batch_size=16,
        epochs=4,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[growing, pruning, *kerass],
    ).history
    assert history["grown_connections"][1] > 0
    assert history["pruned_connections"][1:] == [4, 4, 4]
    assert history["learning_rate"][-1] < history["learning_rate"][0]
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 5
    assert "connections" in lines[0]
    for epoch, connections in enumerate(history["connections"], 1):
        saved = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        active = sum(layer.num_active for layer in saved.layers if hasattr(layer, "num_active"))
        assert active == connections


def _tags(folder, kind):
    tags = set()
    for path in folder.rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if kind in value.metadata.plugin_data.plugin_name:
                    tags.add(value.tag)
    return tags


def test_masks_are_drawn_as_images_and_tables_of_indices_are_not(model, tmp_path):
    board = TensorBoard(tmp_path, histogram_freq=1, write_images=True)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[board])
    images, histograms = _tags(tmp_path, "image"), _tags(tmp_path, "histogram")
    assert any("kernel_mask" in tag for tag in images)
    assert any("kernel_mask" in tag for tag in histograms)
    drawn = {tag.rsplit("/", 1)[0] for tag in images}
    tables = [v.path for v in model.weights if v.dtype == "int64"]
    assert not drawn & set(tables)


def test_the_method_of_keras_that_is_overridden_is_there():
    # Run on Keras 3.10 to 3.15.
    assert callable(keras.callbacks.TensorBoard._log_weight_as_image)
