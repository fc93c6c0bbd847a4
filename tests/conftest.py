"""What all tests share: quiet TensorFlow, fixed seeds, small models and data."""

import gc
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import keras_grow
from tests.seeds import move_seeds
from tests.shares import Share

# What was imported stays: collections need not go through a million objects of TensorFlow's.
gc.freeze()


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="moves the seeds of all tests; default 0")
    parser.addoption("--share", help="i/n: of the slow tests, the i-th of n shares; default all")


@pytest.hookimpl(tryfirst=True)  # Hypothesis reads its own option when its turn comes.
def pytest_configure(config):
    if seed := config.getoption("seed"):
        move_seeds(seed)
    if config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = str(seed)


def pytest_collection_modifyitems(config, items):
    if (text := config.getoption("share")) is None:
        return
    try:
        share = Share(text)
    except ValueError as error:
        raise pytest.UsageError(f"--share: {error}") from None
    kept, others = [], []
    for item in items:
        is_quick = item.get_closest_marker("slow") is None
        (kept if is_quick or share.holds(item.nodeid) else others).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=others)


@pytest.fixture(autouse=True)
def _fixed_seeds():
    """Every test starts from the same seeds and Keras state, whatever ran before it."""
    # Memory is freed when Python sees fit: a collection before each test took half of all time.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


class _Clock:
    """A clock that stands still until somebody spends time."""

    def __init__(self):
        self.now = 0.0

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Takes the place of `time.perf_counter`, so that a busy machine changes no verdict."""
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


@pytest.fixture
def blobs():
    """96 samples of three noisy classes in 8 dimensions: inputs float32, labels int64."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(3, 8))
    labels = np.arange(96) % 3
    inputs = centers[labels] + 0.5 * random.normal(size=(96, 8))
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


@pytest.fixture
def in_precision():
    """A function that sets the precision of all that is built after it, seeds included."""

    def switch(policy):
        keras.config.set_floatx("float64" if policy == "float64" else "float32")
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(1)

    yield switch
    switch("float32")


@pytest.fixture
def float64(in_precision):
    in_precision("float64")


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
