"""Uses the installed package as a stranger would: trains, grows, prunes, saves, exports."""

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_grow

location = pathlib.Path(keras_grow.__file__)
assert "site-packages" in location.parts, f"not the installed package: {location}"
assert (location.parent / "py.typed").exists()

random = np.random.default_rng(0)
x = random.normal(size=(256, 20)).astype("float32")
y = (x[:, :3].sum(axis=1) > 0).astype("int32")

model = keras.Sequential(
    [
        keras.Input((20,), name="x"),
        keras_grow.GrowableDense(32, "relu", initial_density=0.1, seed=0),
        keras_grow.WeightNormDense(2, "softmax", name="y"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=5, verbose=0, callbacks=[keras_grow.GrowthCallback((x, y), count=40)])
keras_grow.prune(model, density=0.2)
model.fit(x, y, epochs=5, verbose=0)
print(keras_grow.report(model))

with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/model.keras")
    loaded = keras.models.load_model(f"{folder}/model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    keras_grow.export_saved_model(model, f"{folder}/served")
    served = tf.saved_model.load(f"{folder}/served").signatures["serving_default"]
    np.testing.assert_allclose(served(x=x)["y"], model(x), rtol=0, atol=1e-6)
    compaction = keras_grow.compact(model)
    print(compaction)
    print(keras_grow.export_litert(compaction.model, f"{folder}/model.tflite"))
print(f"keras_grow {keras_grow.__version__} works from {location.parent.name}")
