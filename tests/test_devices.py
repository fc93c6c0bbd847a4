"""Growth works where the variables are: nothing of full size goes to the host, GPUs included."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow.search import flat_arrays

_GPUS = tf.config.list_physical_devices("GPU")
needs_gpu = pytest.mark.skipif(not _GPUS, reason="TensorFlow sees no NVIDIA GPU here")


@pytest.fixture
def wide():
    """A compiled 64-512-3 network, whose largest kernel has 32,768 entries, and its data."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras_grow.GrowableDense(512, "relu", initial_density=0.1, seed=1),
            keras_grow.WeightNormDense(3, initial_density=0.5, seed=2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 64)).astype("float32")
    model.fit(x, np.arange(96) % 3, verbose=0)
    return model, (x, np.arange(96) % 3)


@pytest.fixture
def brought_to_host(monkeypatch):
    """The shapes of all tensors whose values Python has asked for."""
    shapes = []

    def watched(read):
        def wrapper(array, *args, **kwargs):
            if isinstance(array, (tf.Tensor, keras.Variable)):
                shapes.append(tuple(array.shape))
            return read(array, *args, **kwargs)

        return wrapper

    # `numpy()`, `bool(...)` and `int(...)` lead through `_numpy`; NumPy reads the memory itself.
    owner = next(c for c in type(tf.constant(0)).__mro__ if "_numpy" in vars(c))
    monkeypatch.setattr(owner, "_numpy", watched(owner._numpy))
    for name in ("array", "asarray"):
        monkeypatch.setattr(np, name, watched(getattr(np, name)))
    return shapes


@pytest.mark.parametrize(
    "verb",
    [
        lambda model, data: keras_grow.grow(model, data, count=100),
        lambda model, data: keras_grow.prune(model, count=100),
        lambda model, data: keras_grow.prune(model, density=0.02, per_layer=True),
        lambda model, data: keras_grow.prune(model, threshold=0.05),
        lambda model, data: keras_grow.growth_gradients(model, data),
    ],
    ids=["grow", "prune", "prune most", "prune below", "growth_gradients"],
)
def test_nothing_of_full_size_comes_to_the_host(wide, brought_to_host, monkeypatch, verb):
    # NumPy may read what is on the host already; a test without a GPU says that nothing is.
    monkeypatch.setattr(flat_arrays, "is_on_host", lambda tensor: False)
    verb(*wide)
    assert brought_to_host
    # What is chosen, and a number for each unit; the kernels have 32,768 entries and 1,536.
    assert max(math.prod(shape) for shape in brought_to_host) <= 512


def test_what_is_brought_to_the_host_is_seen(brought_to_host):
    ones = tf.ones((7,))
    np.asarray(ones)
    ones.numpy()
    bool(tf.reduce_any(ones > 0))
    assert brought_to_host == [(7,), (7,), ()]


@pytest.mark.gpu
@needs_gpu
def test_masks_and_slots_live_on_the_gpu_and_growth_computes_there(wide):
    model, data = wide
    for variable in [*model.variables, *model.optimizer.variables]:
        if variable.dtype != "int64" and len(variable.shape) > 1:
            assert "GPU" in variable.value.device, variable.path
    for gradient in keras_grow.growth_gradients(model, data).values():
        assert "GPU" in gradient.device
    record = keras_grow.grow(model, data, count=100)
    assert record.count == 100


@pytest.mark.gpu
@needs_gpu
def test_growth_chooses_on_the_gpu_what_it_chooses_on_the_cpu(wide):
    model, data = wide
    with tf.device("GPU:0"):
        on_gpu = keras_grow.growth_gradients(model, data)
    with tf.device("CPU:0"):
        on_cpu = keras_grow.growth_gradients(model, data)
    for layer, gradient in on_cpu.items():
        scale = np.abs(gradient).max()
        # TensorFlow multiplies in TF32 there, with 10 bits.
        np.testing.assert_allclose(on_gpu[layer], gradient, rtol=0, atol=5e-3 * scale)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "layer_class", [keras_grow.GrowableDense, keras_grow.WeightNormDense, keras_grow.SparseDense]
)
def test_fit_grows_and_prunes_on_the_gpu(blobs, layer_class, policy, jit_compile):
    capacity = {"capacity": 1.0} if layer_class is keras_grow.SparseDense else {}
    options = {"initial_density": 0.25, "dtype": policy, "seed": 1, **capacity}
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layer_class(16, "relu", **options),
            keras_grow.GrowableDense(3, "softmax", initial_density=0.5, seed=2, dtype="float32"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    callbacks = [
        keras_grow.GrowthCallback(blobs, count=10, when=keras_grow.Epochs(stop=4)),
        keras_grow.PruningCallback(density=0.3, when=keras_grow.Epochs(start=4)),
    ]
    history = model.fit(*blobs, epochs=6, batch_size=32, verbose=0, callbacks=callbacks).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    report = keras_grow.report(model)
    assert report.num_active == round(0.3 * report.num_connections)
