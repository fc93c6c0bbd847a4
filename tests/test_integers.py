"""Counts, sizes and seeds are what can index a list: NumPy's integers are, True and 1.5 are not."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import scores
from keras_grow.integers import as_integer, checked_integer

X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = np.arange(24) % 3


def _model():
    layers = [
        keras_grow.GrowableDense(5, "relu", initial_density=0.4, seed=1, name="hidden"),
        keras_grow.GrowableDense(3, "softmax", initial_density=0.4, seed=2),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _saved(layer, shape):
    """The layer, built, whose configuration must be one for files."""
    model = keras.Sequential([keras.Input(shape), layer])
    model.to_json()
    return model


def _neurons(count):
    model = keras_grow.widen(_model(), "hidden", 9)
    model.compile("adam", "sparse_categorical_crossentropy")
    keras_grow.grow_neurons(model, (X, Y), "hidden", count=count)


def _meter(size):
    keras_grow.GradientMeter(batch_size=size).measure(_model(), (X, Y))


def _images():
    """Convolutions whose maps may be born and whose areas may be pruned, and images."""
    convolutions = [
        keras_grow.GrowableConv2D(4, 3, initial_density=0.5, seed=1, name="maps"),
        keras_grow.GrowableConv2D(2, 1, initial_density=0.5, seed=2),
    ]
    top = [keras.layers.Flatten(), keras_grow.GrowableDense(3, "softmax")]
    model = keras.Sequential([keras.Input((4, 4, 2)), *convolutions, *top])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, np.random.default_rng(1).normal(size=(24, 4, 4, 2)).astype("float32")


def _maps(**settings):
    model, images = _images()
    model = keras_grow.widen(model, "maps", 6)
    model.compile("adam", "sparse_categorical_crossentropy")
    keras_grow.grow_feature_maps(model, (images, Y), "maps", **{"candidates": 1} | settings)


def _areas(size):
    model, images = _images()
    areas = keras_grow.areas.make_partial_area(model)
    keras_grow.areas.prune_areas(areas, (images,), share=0.3, batch_size=size)


def _recipe(size):
    recipe = keras_grow.synthesis.Recipe(None, [keras_grow.synthesis.PruningStage(0.3, 1, 0)])
    keras_grow.synthesis.synthesize(_model(), (X, Y), recipe, batch_size=size, verbose=0)


def _plain():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


TAKEN = {
    "units": lambda n: _saved(keras_grow.GrowableDense(n), (6,)),
    "seed": lambda n: _saved(keras_grow.GrowableDense(2, seed=n, initial_density=0.5), (6,)),
    "filters": lambda n: _saved(keras_grow.GrowableConv2D(n, 1), (4, 4, 2)),
    "kernel_size": lambda n: _saved(keras_grow.GrowableConv2D(2, n), (4, 4, 2)),
    "strides": lambda n: _saved(keras_grow.GrowableConv2D(2, 1, strides=(n, n)), (4, 4, 2)),
    "capacity": lambda n: _saved(keras_grow.SparseDense(2, capacity=n), (6,)),
    "axis": lambda n: keras_grow.MeanOnlyBatchNormalization(axis=n).get_config(),
    "every epochs": lambda n: keras_grow.Epochs(every=n, start=n, stop=n).is_due(n),
    "every steps": lambda n: keras_grow.Steps(n, start=n).is_due(int(n)),
    "seed of a score": lambda n: scores.Random(seed=n),
    "seed of newborns": lambda n: keras_grow.neuron_initializers.RandomWeights(seed=n),
    "seed of bridges": lambda n: keras_grow.neuron_initializers.BridgingGradient(seed=n),
    "num_inputs": lambda n: keras_grow.neuron_initializers.SingularVectors(num_inputs=n),
    "num_outputs": lambda n: keras_grow.neuron_initializers.RandomWeights(num_outputs=n),
    "seed of a conversion": lambda n: keras_grow.make_growable(
        _plain(), initial_density=0.5, seed=n
    ),
    "seed of maps": lambda n: _maps(seed=n),
    "count of maps": lambda n: _maps(count=n),
    "candidates": lambda n: _maps(candidates=n),
    "count to grow": lambda n: keras_grow.grow(_model(), (X, Y), count=n),
    "count to prune": lambda n: keras_grow.prune(_model(), count=n),
    "count of neurons": _neurons,
    "units of a wider layer": lambda n: keras_grow.widen(
        _model(), "hidden", n + 7 if as_integer(n) else n
    ),
    "batch_size": _meter,
    "batch_size of a report": lambda n: keras_grow.report(_model(), (X, Y), batch_size=n),
    "batch_size of areas": _areas,
    "batch_size of training": _recipe,
    "tile_shape": lambda n: keras_grow.TiledSearch(tile_shape=(n, n)),
    "epochs of a stage": lambda n: keras_grow.synthesis.PruningStage(0.5, n, n),
    "num_pixels": lambda n: keras_grow.plotting.kernel_masks(_model(), num_pixels=n),
}


@pytest.mark.parametrize("argument", TAKEN)
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_numpys_integers_are_taken(argument, kind):
    TAKEN[argument](kind(2))


@pytest.mark.parametrize("argument", TAKEN)
@pytest.mark.parametrize("value", [True, np.bool_(True), 2.5, "2"])
def test_what_is_no_integer_is_refused_in_a_sentence(argument, value):
    with pytest.raises((ValueError, TypeError), match="Received|received"):
        TAKEN[argument](value)


def test_a_number_that_is_kept_is_pythons_own():
    layer = keras_grow.SparseDense(np.int64(4), capacity=np.int32(8), seed=np.uint8(3))
    layer.build((None, 6))
    kept = [layer.units, layer.capacity, layer.seed, keras_grow.Epochs(np.int16(3)).every]
    assert [type(number) for number in kept] == [int] * 4
    assert as_integer(np.array(3)) == 3
    assert as_integer(3.0) is None
    assert checked_integer(np.int8(0), "start", least=0) == 0
    with pytest.raises(ValueError, match="`every` must be a positive integer. Received: every=0"):
        checked_integer(0, "every")


def test_numpys_floats_are_numbers_too():
    keras_grow.prune(_model(), density=np.float32(0.2), score=scores.Magnitude())
    keras_grow.synthesis.PruningStage(np.float32(0.5), 1, 1)
    _saved(keras_grow.SparseDense(4, capacity=np.float32(0.5)), (6,))
