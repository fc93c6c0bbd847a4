"""What all tests share: quiet TensorFlow, fixed seeds, small models and data."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import keras_grow

# What was imported stays: collections need not go through a million objects of TensorFlow's.
gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seeds():
    """Every test starts from the same seeds and Keras state, whatever ran before it."""
    # Memory is freed when Python sees fit: a collection before each test took half of all time.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def blobs():
    """96 samples of three noisy classes in 8 dimensions: inputs float32, labels int64."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, 8))
    labels = np.arange(96) % 3
    inputs = centres[labels] + 0.5 * random.normal(size=(96, 8))
    return inputs.astype("float32"), labels


@pytest.fixture
def classifier():
    """A compiled 8-16-3 network of growable layers at density 0.25, 44 active connections."""
    model = keras.Sequential(
        [
            keras.Input((8,), name="features"),
            keras_grow.GrowableDense(16, "relu", initial_density=0.25, seed=1, name="hidden"),
            keras_grow.WeightNormDense(3, "softmax", initial_density=0.25, seed=2, name="classes"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class _Snapshot:
    """Copies of all variables of a model, its metrics and its optimizer."""

    def __call__(self, model):
        optimizer = getattr(model, "optimizer", None)
        inner = getattr(optimizer, "inner_optimizer", None)
        owners = [model, *model.metrics, *(o for o in (optimizer, inner) if o is not None)]
        return [variable.numpy().copy() for owner in owners for variable in owner.variables]

    def assert_same(self, model, before):
        now = self(model)
        assert [a.tobytes() for a in now] == [b.tobytes() for b in before]


@pytest.fixture
def snapshot():
    return _Snapshot()
