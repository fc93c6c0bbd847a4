"""Growth data in every form, in chunks of any size, and bad data refused."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GradientMeter, GrowableDense, growth_gradients
from keras_grow.measuring import accumulation


@pytest.fixture
def model(float64, networks):
    """4 inputs, 2 outputs, mean squared error."""
    return networks.sequential()[0]


@pytest.fixture
def arrays():
    """23 samples, which no batch size used here divides, and their weights."""
    random = np.random.default_rng(3)
    return random.normal(size=(23, 4)), random.normal(size=(23, 2)), random.uniform(size=23)


class Sequence(keras.utils.PyDataset):
    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return tuple(array[5 * index : 5 * index + 5] for array in self.arrays)


def _dataset(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(5)


def _generator(arrays):
    yield from _list(arrays)


def _list(arrays):
    return [Sequence(arrays)[i] for i in range(5)]


_FORMS = {
    "tensors": lambda arrays: tuple(tf.constant(array) for array in arrays),
    "dataset": _dataset,
    "dataset of unknown size": lambda arrays: _dataset(arrays).filter(lambda *batch: True),
    "PyDataset": Sequence,
    "list of batches": _list,
    "list of tensors": lambda arrays: list(_dataset(arrays)),
    "generator": _generator,
}


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("form", list(_FORMS))
def test_every_form_of_data_gives_the_same_gradients(
    model, arrays, assert_close, form, is_weighted
):
    arrays = arrays if is_weighted else arrays[:2]
    meter = GradientMeter()
    whole = meter.measure(model, arrays)
    measured = meter.measure(model, _FORMS[form](arrays))
    assert_close(measured.gradients, whole.gradients, 1e-12)
    assert measured.loss == pytest.approx(whole.loss, rel=1e-12)
    assert measured.num_samples == whole.num_samples == 23


@pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 1000])
def test_chunks_equal_the_whole(model, arrays, assert_close, batch_size):
    whole = GradientMeter(batch_size=23).measure(model, arrays)
    chunks = GradientMeter(batch_size=batch_size).measure(model, arrays)
    assert_close(chunks.gradients, whole.gradients, 1e-12)
    assert chunks.loss == pytest.approx(whole.loss, rel=1e-12)


def test_signed_gradients_are_summed_before_any_absolute_value(model, arrays):
    x = arrays[0]
    # Errors of opposite sign on the same inputs cancel.
    outputs = model(x).numpy()
    data = (np.concatenate([x, x]), np.concatenate([outputs + 1, outputs - 1]))
    for gradient in growth_gradients(model, data, batch_size=23).values():
        np.testing.assert_allclose(gradient, 0, atol=1e-15)


def test_with_batch_statistics_gradients_are_the_mean_over_batches_weighted_by_size(
    float64, networks, arrays, assert_close
):
    model, _ = networks.batch_normalized()
    x, y, _ = arrays
    meter = GradientMeter(batch_size=9)
    parts = [slice(0, 9), slice(9, 18), slice(18, 23)]
    each = [meter.measure(model, (x[part], y[part])) for part in parts]
    expected = {
        layer: sum(m.num_samples * m.gradients[layer] for m in each) / 23
        for layer in each[0].gradients
    }
    chunks = meter.measure(model, (x, y))
    assert_close(chunks.gradients, expected, 1e-12)
    assert chunks.loss == pytest.approx(sum(m.num_samples * m.loss for m in each) / 23, rel=1e-12)
    with pytest.raises(AssertionError):
        assert_close(growth_gradients(model, (x, y)), expected, 1e-3)


def test_inputs_may_be_a_dict_or_a_list_of_arrays(float64, networks, arrays, assert_close):
    model, _ = networks.shared_and_nested()
    x, y, _ = arrays
    as_list = growth_gradients(model, ([x, x[::-1]], y), batch_size=5)
    by_name = keras.Model(dict(zip(("left", "right"), model.inputs)), model.outputs[0])
    by_name.compile("sgd", "mse")
    named = {"left": x, "right": x[::-1]}
    dataset = tf.data.Dataset.from_tensor_slices((named, y)).batch(6)
    for data in [(named, y), dataset, [(named, y)]]:
        assert_close(growth_gradients(by_name, data, batch_size=5), as_list, 1e-12)


def test_a_generator_serves_once(model, arrays):
    generator = _generator(arrays)
    growth_gradients(model, generator)
    with pytest.raises(ValueError, match="gives its batches only once"):
        growth_gradients(model, generator)


class Endless(Sequence):
    def __len__(self):
        raise NotImplementedError

    @property
    def num_batches(self):
        return None


_X, _Y = np.ones((6, 4)), np.ones((6, 2))
_WITH_NAN = np.where(np.arange(4) == 2, np.nan, _X)
_BAD = {
    "array alone": (lambda: _X, TypeError, "must be a tuple of arrays"),
    "nothing": (lambda: None, TypeError, "must be a tuple of arrays"),
    "dict alone": (lambda: {"x": _X}, TypeError, "must be a tuple of arrays"),
    "empty tuple": (lambda: (), ValueError, "a tuple of 0"),
    "too long a tuple": (lambda: (_X, _Y, _Y, _Y), ValueError, "a tuple of 4"),
    "no sample": (lambda: (_X[:0], _Y[:0]), ValueError, "positive number of samples"),
    "no batch": (lambda: [], ValueError, "at least one sample"),
    "empty batches": (lambda: [(_X[:0], _Y[:0])], ValueError, "at least one sample"),
    "lengths differ": (lambda: (_X, _Y[:5]), ValueError, r"lengths \[5, 6\]"),
    "weights too short": (lambda: (_X, _Y, np.ones(3)), ValueError, r"lengths \[3, 6\]"),
    "scalar in a tuple": (lambda: (np.array(1.0), _Y), ValueError, "first axis"),
    "numbers for batches": (lambda: [1.0, 2.0], ValueError, "first axis"),
    "no x in a tuple": (lambda: (None, _Y), ValueError, "at least one array"),
    "no x in a batch": (lambda: [None], ValueError, "at least one array"),
    "inputs too narrow": (lambda: (_X[:, :3], _Y), ValueError, r"\(6, 3\)"),
    "targets too wide": (lambda: (_X, np.ones((6, 5))), ValueError, r"\(6, 5\)"),
    "no targets": (lambda: (_X,), ValueError, "None, None"),
    "not in batches": (
        lambda: tf.data.Dataset.from_tensor_slices((_X, _Y)),
        ValueError,
        r"\(4,\), \(2,\)",
    ),
    "endless dataset": (lambda: _dataset((_X, _Y)).repeat(), ValueError, "must end"),
    "endless PyDataset": (lambda: Endless((_X, _Y)), ValueError, "must end"),
    "NaN in x": (lambda: (_WITH_NAN, _Y), ValueError, "must be finite"),
    "NaN in y": (lambda: (_X, np.full((6, 2), np.nan)), ValueError, "must be finite"),
    "NaN in weights": (lambda: (_X, _Y, np.full(6, np.nan)), ValueError, "must be finite"),
}


@pytest.mark.parametrize("kind", list(_BAD))
def test_bad_data_is_refused_in_words_and_the_model_stays(model, snapshot, kind):
    data, error, words = _BAD[kind]
    before = snapshot(model)
    with pytest.raises(error, match=words):
        growth_gradients(model, data())
    snapshot.assert_same(model, before)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": 2.5}, {"verbose": 3}])
def test_settings_out_of_range_are_refused(model, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        growth_gradients(model, (_X, _Y), **settings)


def test_progress_is_shown_when_asked_for(model, arrays, capsys):
    growth_gradients(model, arrays, batch_size=6, verbose=0)
    assert capsys.readouterr().out == ""
    growth_gradients(model, arrays, batch_size=6, verbose=1)
    assert "4/4" in capsys.readouterr().out


def test_progress_is_shown_by_itself_where_it_takes_long(model, arrays, capsys, monkeypatch):
    for patience, is_shown in ((math.inf, False), (-1, True)):
        monkeypatch.setattr(accumulation, "_PATIENCE_SECONDS", patience)
        growth_gradients(model, arrays, batch_size=6)
        assert ("4/4" in capsys.readouterr().out) is is_shown


def test_samples_weigh_the_same_in_a_short_last_batch(float64):
    layer = GrowableDense(1, use_bias=False, initial_density=0.0)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile("sgd", "mse")
    # The output is 0, so that dL/dw is the mean of -2 x y: here -2 (1 + 2 + 6) / 3.
    data = (np.ones((3, 1)), np.array([[1.0], [2.0], [6.0]]))
    (gradient,) = growth_gradients(model, data, batch_size=2).values()
    np.testing.assert_allclose(gradient, [[-6.0]], rtol=1e-15)


def test_a_meter_of_few_samples_draws_them_anew_for_each_step(model, arrays):
    def gradient(meter):
        return next(iter(meter.measure(model, arrays).gradients.values())).numpy()

    drawn = GradientMeter(num_samples=7, seed=2)
    first = gradient(drawn)
    np.testing.assert_array_equal(gradient(drawn), first)
    chosen = np.sort(np.random.default_rng([2, 0]).choice(23, 7, replace=False))
    part = tuple(array[chosen] for array in arrays)
    expected = next(iter(growth_gradients(model, part).values()))
    np.testing.assert_allclose(first, expected, rtol=1e-12)
    assert drawn.measure(model, arrays).num_samples == 7
    assert np.any(gradient(GradientMeter(num_samples=7, seed=3)) != first)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    assert np.any(gradient(drawn) != first)


def test_a_draw_of_all_there_is_takes_all(model, arrays):
    meter = GradientMeter(num_samples=99)
    assert meter.measure(model, arrays).num_samples == 23


def test_what_no_sample_can_be_drawn_from_is_refused(model, arrays):
    with pytest.raises(TypeError, match="drawn from a tuple of arrays"):
        GradientMeter(num_samples=7).measure(model, _dataset(arrays))
    with pytest.raises(ValueError, match="same, positive number of samples"):
        GradientMeter(num_samples=7).measure(model, (arrays[0], arrays[1][:5]))
    with pytest.raises(ValueError, match="num_samples"):
        GradientMeter(num_samples=0)
