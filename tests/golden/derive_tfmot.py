"""Writes tfmot.h5, tfmot_stripped.h5 and tfmot.npz: a model as tfmot prunes and saves it.

The first is saved between two steps, when weights that are pruned are not 0: tfmot multiplies them
by their masks before the next step, and at the end of the epoch.

    pip install tensorflow tf_keras tensorflow_model_optimization
    python derive_tfmot.py

Not in one environment with keras_grow: tfmot needs `tf_keras`, which is Keras 2.
"""

import os
import pathlib

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

HERE = pathlib.Path(__file__).parent
NUM_STEPS, NUM_FEATURES, NUM_CLASSES = 6, 5, 3


class SaveBeforeMasking(tf_keras.callbacks.Callback):
    """Saves the model after each step."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.save(HERE / "tfmot.h5", include_optimizer=False)


def main() -> None:
    """Writes the files."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Conv1D(
                8, 3, activation="relu", name="conv", input_shape=(NUM_STEPS, NUM_FEATURES)
            ),
            layers.BatchNormalization(name="norm"),
            layers.GlobalMaxPooling1D(name="pool"),
            layers.Dropout(0.1, name="dropout"),
            layers.Dense(NUM_CLASSES, activation="softmax", name="classes"),
        ]
    )
    sparsity = tfmot.sparsity.keras
    wrapped = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.75, 0, frequency=1))
    wrapped.compile("adam", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).random((64, NUM_STEPS, NUM_FEATURES), "float32")
    y = np.arange(64) % NUM_CLASSES
    callbacks = [sparsity.UpdatePruningStep(), SaveBeforeMasking()]
    wrapped.fit(x, y, epochs=2, callbacks=callbacks, verbose=0)
    stripped = sparsity.strip_pruning(wrapped)
    stripped.save(HERE / "tfmot_stripped.h5", include_optimizer=False)
    np.savez(HERE / "tfmot.npz", x=x[:8], outputs=stripped.predict(x[:8], verbose=0))


if __name__ == "__main__":
    main()
