"""Where nobody says how many samples go together, as many do as fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GradientMeter,
    GrowableConv2D,
    GrowableDense,
    SparseDense,
    hebbian_gradients,
    report,
)
from keras_grow.areas import make_partial_area, prune_areas
from keras_grow.areas import pruning as partial_area
from keras_grow.measuring import batch_size as chosen
from keras_grow.measuring import gradients
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.batch_step import Wanted


def _dense(units=16):
    layers = [GrowableDense(units, "relu"), GrowableDense(2)]
    return keras.Sequential([keras.Input((8,)), *layers])


def _convolution(size):
    layers = [GrowableConv2D(64, 3, padding="same") for _ in range(4)]
    top = [keras.layers.GlobalAveragePooling2D(), GrowableDense(2)]
    return keras.Sequential([keras.Input((size, size, 3)), *layers, *top])


X = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
Y = np.zeros((60, 2), "float32")


def test_small_models_take_a_thousand_and_large_ones_what_fits():
    assert fitting_batch_size(_dense(), (X, Y), None) == 1000
    sizes = [
        fitting_batch_size(_convolution(size), (np.zeros((1, size, size, 3), "float32"),), None)
        for size in (16, 64, 256)
    ]
    assert sizes[0] == 1000
    # Nothing of that size is run; four maps of 64 channels take 4 x 64 x 4 bytes a place, and more.
    assert 1 <= sizes[2] < sizes[1] < 1000
    assert sizes[2] <= 2**30 / (4 * 64 * 4 * 256**2)
    assert sizes[1] == pytest.approx(16 * sizes[2], abs=16)


def test_the_choice_follows_the_bound_and_never_falls_to_none():
    model, data = _convolution(64), (np.zeros((1, 64, 64, 3), "float32"),)
    bounds = [1, 2**24, 2**27, 2**30, 2**40]
    found = [fitting_batch_size(model, data, None, most_bytes=bound) for bound in bounds]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 1000)


@pytest.mark.parametrize("width", [1300, 1308, 4160])
def test_what_does_not_grow_with_the_samples_counts_for_nothing_whatever_its_width(width):
    layers = [GrowableDense(width), GrowableDense(2)]
    model = keras.Sequential([keras.Input((width,)), *layers])
    assert fitting_batch_size(model, (np.zeros((1, width), "float32"),), None) == 1000


def test_samples_count_on_whichever_axis_they_stand():
    class TimeMajor(keras.layers.Layer):
        def call(self, x):
            x = keras.ops.transpose(x, (1, 0, 2))
            for _ in range(8):
                x = keras.ops.tanh(x)
            return x[0]

    inputs = keras.Input((64, 16))
    model = keras.Model(inputs, GrowableDense(2)(TimeMajor()(inputs)))
    data = (np.zeros((1, 64, 16), "float32"),)
    # Nine tensors of 64 x 16 numbers a sample.
    most = 2**24 / (9 * 64 * 16 * 4)
    assert fitting_batch_size(model, data, None, most_bytes=2**24) <= most < 1000


def test_what_is_computed_in_a_loop_counts_as_often_as_the_sequence_has_steps():
    def recurrent(steps):
        layers = [keras.layers.LSTM(32, return_sequences=True), GrowableDense(2)]
        model = keras.Sequential([keras.Input((steps, 8)), *layers])
        data = (np.zeros((1, steps, 8), "float32"),)
        return fitting_batch_size(model, data, None, most_bytes=2**24)

    assert recurrent(400) < recurrent(40) / 5


@pytest.mark.parametrize("shape", [(784,), (7, 784)])
def test_sparse_layers_take_as_many_samples_as_masked_ones(shape):
    chosen = []
    for kind in (SparseDense, GrowableDense):
        hidden = [kind(300, "relu", initial_density=0.05, seed=n) for n in range(2)]
        model = keras.Sequential([keras.Input(shape), *hidden])
        x = np.zeros((1, *shape), "float32")
        # So little room that what fits is less than the most there may be.
        chosen.append(fitting_batch_size(model, (x,), None, most_bytes=2**22))
    sparse, masked = chosen
    assert masked / 16 < sparse < 1000


def test_the_gradient_is_the_same_and_says_how_many_went_together(monkeypatch):
    model = _dense()
    model.compile("sgd", "mse")
    whole = GradientMeter(batch_size=60).measure(model, (X, Y))
    monkeypatch.setattr(chosen, "MOST_BYTES", 4096)
    parts = GradientMeter().measure(model, (X, Y))
    assert whole.batch_size == 60
    assert 1 <= parts.batch_size < 30
    assert GradientMeter().measure(model, tf.data.Dataset.from_tensors((X, Y))).batch_size is None
    for layer in model.layers:
        np.testing.assert_allclose(
            parts.gradients[layer], whole.gradients[layer], rtol=1e-4, atol=1e-6
        )
    assert report(model, (X,)).scaled_flops == pytest.approx(
        report(model, (X,), batch_size=60).scaled_flops
    )


def test_the_model_is_traced_once_for_that():
    calls = []

    class Seen(keras.Layer):
        def call(self, x):
            calls.append(x.shape)
            return x

    model = keras.Sequential([keras.Input((8,)), Seen(), GrowableDense(2)])
    before = len(calls)
    for _ in range(3):
        assert fitting_batch_size(model, (X, Y), None, True) == 1000
    assert len(calls) == before + 1


def test_data_that_does_not_fit_is_refused_where_it_is_read():
    model = _dense()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="The model could not be run on the data"):
        GradientMeter().measure(model, (np.zeros((4, 5), "float32"), Y[:4]))
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        GradientMeter(batch_size=0).measure(model, (X, Y))


def _patches():
    """A convolution whose patches hold 25 times its inputs, and images."""
    layers = [GrowableConv2D(4, 5, padding="same"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((32, 32, 8)), *layers, GrowableDense(2)])
    model.compile("sgd", "mse")
    images = np.random.default_rng(0).normal(size=(40, 32, 32, 8)).astype("float32")
    return model, (images, np.zeros((40, 2), "float32"))


def test_patches_count_where_a_measurement_cuts_them(monkeypatch):
    model, data = _patches()
    # Rows of 25 x 8 numbers at 32 x 32 places, of all samples that go together.
    of_patches = 25 * 8 * 32 * 32 * 4
    monkeypatch.setattr(chosen, "MOST_BYTES", 16 * of_patches)
    sizes = []
    monkeypatch.setattr(
        gradients, "accumulate", lambda step, data, size, verbose: sizes.append(size)
    )
    layers = tuple(model.layers[:1])
    for wanted in (Wanted(by_kernel=layers), Wanted(activities=layers)):
        GradientMeter().passes(model, data, wanted, None)(None)
    assert 1 <= sizes[1] <= 16 < sizes[0]


def test_gradients_by_rows_are_the_same_however_many_samples_go_together(monkeypatch):
    model, data = _patches()
    whole = hebbian_gradients(model, data, batch_size=40)
    monkeypatch.setattr(chosen, "MOST_BYTES", 2**24)
    parts = hebbian_gradients(model, data)
    for layer, gradient in whole.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(parts[layer] / scale, gradient / scale, atol=1e-5)


def test_areas_are_pruned_on_as_many_images_as_fit(monkeypatch):
    model, (images, _) = _patches()
    areas = make_partial_area(model)
    sizes = []
    passed = partial_area.accumulate

    def seen(step, data, size, verbose):
        sizes.append(size)
        return passed(step, data, size, verbose)

    monkeypatch.setattr(partial_area, "accumulate", seen)
    # What each of 8 x 4 pairs of maps contributes at 32 x 32 places.
    of_pairs = 4 * 8 * 4 * 32 * 32
    monkeypatch.setattr(chosen, "MOST_BYTES", 64 * of_pairs)
    prune_areas(areas, (images[:4],))
    assert 1 <= sizes[-1] < 64 / 2
    monkeypatch.setattr(chosen, "MOST_BYTES", 2**40)
    prune_areas(areas, (images[:4],))
    assert sizes[-1] == 1000


def test_optional_inputs_that_are_not_given_leave_the_rest_to_count():
    class Adds(keras.layers.Layer):
        def call(self, x, y=None):
            x = keras.ops.tanh(x)
            return x if y is None else x + y

    first, second = (
        keras.Input((64, 64, 8), optional=is_optional, name=name)
        for name, is_optional in (("x", False), ("y", True))
    )
    model = keras.Model({"x": first, "y": second}, Adds()(first, second))
    x = {"x": np.zeros((1, 64, 64, 8), "float32"), "y": None}
    most = 10 * 64 * 64 * 8 * 4
    assert fitting_batch_size(model, (x,), None, most_bytes=most) <= 10


@pytest.mark.parametrize("as_arrays", [True, False])
def test_the_progress_says_how_many_samples_go_together(as_arrays, capsys):
    model = _dense()
    model.compile("sgd", "mse")
    data = (X, Y) if as_arrays else tf.data.Dataset.from_tensor_slices((X, Y)).batch(25)
    GradientMeter(batch_size=25, verbose=1).measure(model, data)
    # The last batch is a smaller one.
    assert ("/batch of 25" in capsys.readouterr().out) is as_arrays
