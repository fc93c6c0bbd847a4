import keras
import numpy as np
import pytest

from keras_grow import (
    GrowableDense,
    WeightNormConv1D,
    WeightNormConv2D,
    WeightNormDense,
    initialize_weight_norm,
)
from keras_grow.layers.observer import Observer, observing


class _PreActivations(Observer):
    """Keeps what each layer gives before its activation."""

    def __init__(self):
        self.seen = {}

    def pre_activation(self, layer, inputs, outputs):
        self.seen.setdefault(layer.name, []).append(np.asarray(outputs))
        return outputs


def _pre_activations(model, x, training=True):
    observer = _PreActivations()
    with observing(observer):
        model(x, training=training)
    rows = {
        name: [y.reshape(-1, y.shape[-1]) for y in calls] for name, calls in observer.seen.items()
    }
    return {name: np.concatenate(calls) for name, calls in rows.items()}


def _data(dtype="float64"):
    """Inputs with other means and deviations in every column, and correlated ones."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(8, 8))
    return (3 + random.normal(size=(200, 8)) @ mixing).astype(dtype)


def _deep(dtype="float64", density=0.5):
    inner = keras.Sequential(
        [keras.Input((16,), dtype=dtype), WeightNormDense(12, "relu", dtype=dtype, name="inner")]
    )
    return keras.Sequential(
        [
            keras.Input((8,), dtype=dtype),
            WeightNormDense(16, "tanh", initial_density=density, seed=0, dtype=dtype, name="first"),
            inner,
            GrowableDense(10, "relu", dtype=dtype, name="between"),
            WeightNormDense(5, dtype=dtype, name="last"),
        ]
    )


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("batch_size", [1000, 64])
def test_pre_activations_get_zero_mean_and_unit_variance_on_the_data(dtype, bound, batch_size):
    # Twice the half: an even last batch, or an uneven one, gives the same moments.
    model, x = _deep(dtype), _data(dtype)
    initialize_weight_norm(model, (x,), batch_size=batch_size)
    seen = _pre_activations(model, x)
    for name in ("first", "inner", "last"):
        u = seen[name].astype("float64")
        assert np.abs(u.mean(axis=0)).max() < bound, name
        assert np.abs(u.var(axis=0) - 1).max() < bound, name
    assert np.abs(seen["between"].var(axis=0) - 1).max() > 0.01


def test_each_map_of_a_convolution_is_normalized_over_samples_and_positions():
    layers = [
        WeightNormConv2D(
            4, (3, 2), 2, "same", activation="relu", initial_density=0.6, name="first"
        ),
        WeightNormConv2D(3, 2, dilation_rate=(1, 2), activation="tanh", name="second"),
        keras.layers.Reshape((2, 9)),
        WeightNormConv1D(5, 2, padding="causal", name="third"),
    ]
    model = keras.Sequential([keras.Input((5, 10, 2)), *layers])
    x = (3 + 2 * np.random.default_rng(0).normal(size=(100, 5, 10, 2))).astype("float32")
    initialize_weight_norm(model, (x,), batch_size=64)
    seen = _pre_activations(model, x)
    assert {name: len(u) for name, u in seen.items()} == {
        "first": 100 * 3 * 5,
        "second": 100 * 2 * 3,
        "third": 100 * 2,
    }
    for name, u in seen.items():
        u = u.astype("float64")
        assert np.abs(u.mean(axis=0)).max() < 1e-4, name
        assert np.abs(u.var(axis=0) - 1).max() < 1e-4, name


def test_it_is_the_papers_formula_on_one_layer():
    layer = WeightNormDense(4, kernel_initializer="random_normal", dtype="float64")
    model, x = keras.Sequential([keras.Input((8,), dtype="float64"), layer]), _data()
    v = layer.v.numpy()
    t = x @ v / np.linalg.norm(v, axis=0)
    initialize_weight_norm(model, (x,))
    np.testing.assert_array_equal(layer.v, v)
    np.testing.assert_allclose(layer.g, 1 / t.std(axis=0), rtol=1e-10)
    np.testing.assert_allclose(layer.bias, -t.mean(axis=0) / t.std(axis=0), rtol=1e-10)


def test_a_shared_layer_is_initialized_over_all_its_calls():
    shared = WeightNormDense(8, dtype="float64", name="shared")
    x = keras.Input((8,), dtype="float64")
    model = keras.Model(x, shared(keras.layers.Activation("tanh", dtype="float64")(shared(x))))
    # The first call's outputs feed the second, so that g changes the second's inputs: the moments
    # are those before.
    before = _pre_activations(model, _data())["shared"]
    scale, shift = shared.g.numpy(), shared.bias.numpy()
    t = (before - shift) / scale
    initialize_weight_norm(model, (_data(),))
    np.testing.assert_allclose(shared.g, 1 / t.std(axis=0), rtol=1e-9)


def test_each_layer_takes_one_pass_and_finding_their_order_one_batch():
    read = []

    class Counted:
        def __iter__(self):
            for part in np.split(_data(), 4):
                read.append(1)
                yield (part,)

    initialize_weight_norm(_deep(), Counted())
    assert len(read) == 3 * 4 + 1


def test_a_layer_without_bias_gets_its_gain_and_a_constant_unit_keeps_it():
    free = WeightNormDense(3, use_bias=False, dtype="float64")
    model = keras.Sequential([keras.Input((8,), dtype="float64"), free])
    initialize_weight_norm(model, (_data(),))
    u = _pre_activations(model, _data())[free.name]
    np.testing.assert_allclose(u.std(axis=0), 1, rtol=1e-10)

    layer = WeightNormDense(2, initial_density=0.5, seed=0, dtype="float64")
    model = keras.Sequential([keras.Input((2,), dtype="float64"), layer])
    layer.kernel_mask.assign([[True, False], [False, True]])
    layer.v.assign([[2.0, 0.0], [0.0, -3.0]])
    layer.g.assign([2.0, 3.0])
    x = np.array([[1.0, 7.0], [3.0, 7.0]])
    initialize_weight_norm(model, (x,))
    np.testing.assert_allclose(layer.g, [1.0, 3.0])
    np.testing.assert_allclose(layer.bias, [-2.0, 21.0])


def test_a_unit_without_inputs_stays_finite_and_silent():
    layer = WeightNormDense(2, dtype="float64")
    model = keras.Sequential([keras.Input((8,), dtype="float64"), layer])
    layer.prune_connections(np.arange(0, 16, 2))
    initialize_weight_norm(model, (_data(),))
    assert np.all(np.isfinite(layer.g))
    assert np.all(np.isfinite(layer.bias))
    np.testing.assert_array_equal(layer.bias[0], 0)


def test_nothing_else_is_touched_and_frozen_layers_stay(snapshot):
    frozen = WeightNormDense(6, name="frozen", trainable=False)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            frozen,
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            WeightNormDense(4, name="chosen"),
        ]
    )
    chosen = model.get_layer("chosen")
    own = {id(chosen.g), id(chosen.bias)}
    before = {v.path: v.numpy() for v in model.variables if id(v) not in own}
    initialize_weight_norm(model, (_data("float32"),))
    for variable in model.variables:
        if id(variable) not in own:
            np.testing.assert_array_equal(variable, before[variable.path])
    assert np.all(chosen.bias.numpy() != 0)


def test_what_cannot_be_initialized_is_refused_and_changes_nothing():
    plain = keras.Sequential([keras.Input((8,)), GrowableDense(2)])
    with pytest.raises(ValueError, match="no trainable WeightNormDense or WeightNormConv layer"):
        initialize_weight_norm(plain, (_data(),))
    model = _deep("float32")
    before = model.get_weights()
    x = _data("float32")
    x[3, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        initialize_weight_norm(model, (x,))
    with pytest.raises(ValueError, match="could not be run"):
        initialize_weight_norm(model, (x[:, :3],))
    with pytest.raises(ValueError, match="at least one sample"):
        initialize_weight_norm(model, [])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
