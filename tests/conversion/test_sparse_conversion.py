"""Masked, sparse and plain layers turn into each other, with weights, connections and slots."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableDense, SparseDense, WeightNormDense
from keras_grow.optimizer_slots import slots
from keras_grow.policies.densities import FanIn
from tests.quick import among

_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(64, 20)).astype("float32")
Y = _RANDOM.normal(size=(64, 5)).astype("float32")


def _network(hidden, outputs):
    return keras.Sequential(
        [
            keras.Input((20,)),
            hidden,
            keras.layers.BatchNormalization(),
            keras.layers.Activation("tanh"),
            outputs,
        ]
    )


def _trained(optimizer="adam", policy="float32"):
    model = _network(
        GrowableDense(12, initial_density=0.3, seed=1, name="hidden", dtype=policy),
        keras.layers.Dense(5, name="outputs", dtype=policy),
    )
    model.compile(optimizer, "mse", run_eagerly=True)
    _losses(model, steps=4)
    return model


# Eagerly and in one size of batch: a sparse layer is traced and compiled for each.
def _losses(model, steps):
    history = model.fit(X, Y, batch_size=64, epochs=steps, shuffle=False, verbose=0)
    return history.history["loss"]


def _continues(model, converted):
    """Compiles the copy with the optimizer of the model, and returns it."""
    optimizer = keras_grow.convert_optimizer(model, converted)
    converted.compile(optimizer, "mse", run_eagerly=True)
    return converted


def _deviation(model, converted):
    a, b = (tf.cast(m(X), tf.float64) for m in (model, converted))
    return float(tf.reduce_max(tf.abs(a - b)) / tf.reduce_max(tf.abs(a)))


def _conversions(model):
    """The model in other forms, by what was done to it."""
    sparse = keras_grow.make_sparse(model, capacity=FanIn(15))
    return {
        "sparse": sparse,
        "sparse, as small as can be": keras_grow.make_sparse(model),
        "sparse with the dense layer": keras_grow.make_sparse(model, ["hidden", "outputs"]),
        "sparse and back": keras_grow.make_growable(sparse, ["hidden"]),
        "sparse with another capacity": keras_grow.make_sparse(sparse, capacity={"hidden": 100}),
        "sparse, then plain": keras_grow.make_plain(sparse),
        "masked, then plain": keras_grow.make_plain(model),
    }


@pytest.mark.parametrize("policy", among(["float32", "float64"], quick=("float32",)))
def test_every_conversion_computes_the_same_function(policy):
    model = _trained(policy=policy)
    for name, converted in _conversions(model).items():
        assert _deviation(model, converted) <= (1e-6 if policy == "float32" else 1e-13), name


def test_connections_and_capacities_are_kept():
    model = _trained()
    converted = _conversions(model)
    hidden = model.get_layer("hidden")
    for name in ("sparse", "sparse and back", "sparse with another capacity"):
        layer = converted[name].get_layer("hidden")
        for mine, theirs in zip(hidden.active_connections(), layer.active_connections()):
            np.testing.assert_array_equal(mine, theirs)
    capacities = {
        name: layer.capacity
        for name, model in converted.items()
        if isinstance(layer := model.get_layer("hidden"), SparseDense)
    }
    assert capacities == {
        "sparse": 180,
        "sparse, as small as can be": 72,
        "sparse with the dense layer": 72,
        "sparse with another capacity": 100,
    }
    assert isinstance(converted["sparse and back"].get_layer("hidden"), GrowableDense)
    assert converted["sparse with the dense layer"].get_layer("outputs").num_active == 60
    plain = converted["sparse, then plain"]
    assert [type(layer) for layer in plain.layers] == [
        keras.layers.Dense,
        keras.layers.BatchNormalization,
        keras.layers.Activation,
        keras.layers.Dense,
    ]


_OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, gradient_accumulation_steps=3),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


# Slots of its own, those that every optimizer may have, and an optimizer in another.
@pytest.mark.parametrize("optimizer", among(_OPTIMIZERS, quick=("adam", "ema", "loss_scale")))
def test_training_goes_on_with_the_slots_of_the_weights_that_were_kept(optimizer):
    model = _trained(optimizer())
    sparse = _continues(model, keras_grow.make_sparse(model, capacity=FanIn(15)))
    back = _continues(sparse, keras_grow.make_growable(sparse, ["hidden"]))
    both = _continues(model, keras_grow.make_sparse(model, ["hidden", "outputs"]))
    steps = keras_grow.optimizer_slots.steps_made
    for twin in (sparse, back, both):
        assert steps(twin.optimizer) == steps(model.optimizer) > 0
    expected = _losses(model, steps=6)
    for twin in (back, both):
        np.testing.assert_allclose(_losses(twin, steps=6), expected, rtol=1e-4)


def test_slots_stand_where_the_weights_do():
    model = _trained()
    sparse = keras_grow.make_sparse(model, capacity=FanIn(15))
    optimizer = keras_grow.convert_optimizer(model, sparse)
    layer, twin = (m.get_layer("hidden") for m in (model, sparse))
    active, _ = layer.active_connections()
    for name, slot in slots(model.optimizer, layer.kernel).items():
        moved = slots(optimizer, twin.values)[name].numpy()
        np.testing.assert_array_equal(moved[:72], slot.numpy().reshape(-1)[active])
        assert np.any(moved[:72] != 0)
        assert not np.any(moved[72:])


def test_without_its_slots_training_goes_another_way():
    model = _trained()
    carried, fresh = (keras_grow.make_sparse(model) for _ in range(2))
    _continues(model, carried)
    fresh.compile("adam", "mse", run_eagerly=True)
    losses = [_losses(each, steps=6)[-1] for each in (model, carried, fresh)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] != pytest.approx(losses[0], rel=1e-5)


def test_a_copy_is_not_compiled_whatever_the_loss():
    model = _trained()
    model.compile("adam", lambda y_true, y_pred: tf.reduce_mean((y_true - y_pred) ** 2))
    for name, converted in _conversions(model).items():
        assert not converted.compiled, name
    assert model.compiled


def test_weight_normalization_becomes_sparse_weights():
    model = _network(
        WeightNormDense(12, initial_density=0.3, seed=1, name="hidden"), GrowableDense(5)
    )
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    sparse = keras_grow.make_sparse(model, ["hidden"])
    assert _deviation(model, sparse) <= 1e-6
    with pytest.raises(ValueError, match="v and g say nothing .* Received: layer 'hidden'"):
        keras_grow.convert_optimizer(model, sparse)
    assert isinstance(keras_grow.make_sparse(model).layers[0], WeightNormDense)


def test_shared_layers_stay_shared_and_wrapped_ones_wrapped():
    layer = GrowableDense(20, initial_density=0.2, seed=0, name="shared")
    wrapped = keras.layers.TimeDistributed(GrowableDense(3, initial_density=0.5, seed=1))
    inputs = keras.Input((4, 20))
    model = keras.Model(inputs, wrapped(layer(layer(inputs))))
    sparse = keras_grow.make_sparse(model)
    x = _RANDOM.normal(size=(2, 4, 20)).astype("float32")
    np.testing.assert_allclose(sparse(x), model(x), atol=1e-6)
    assert len(keras_grow.growable_layers(sparse)) == 2
    assert all(each.is_sparse for each in keras_grow.growable_layers(sparse))


def test_what_cannot_be_made_sparse_is_refused_in_words():
    model = _trained()
    with pytest.raises(ValueError, match="more than the capacity holds"):
        keras_grow.make_sparse(model, capacity=10)
    with pytest.raises(ValueError, match="must name layers that are converted"):
        keras_grow.make_sparse(model, capacity={"outputs": 10})
    with pytest.raises(ValueError, match="no layer to convert"):
        keras_grow.make_sparse(keras_grow.make_plain(model))
    with pytest.raises(ValueError, match="must have been made from `model`"):
        keras_grow.convert_optimizer(model, keras.Sequential([keras.Input((3,))]))
    uncompiled = keras_grow.make_sparse(model)
    with pytest.raises(ValueError, match="no optimizer to convert"):
        keras_grow.convert_optimizer(uncompiled, uncompiled)


def test_a_sparse_layer_is_exported_as_a_sparse_product(tmp_path):
    wide = SparseDense(3000, "relu", capacity=FanIn(4), seed=0, name="wide")
    model = keras.Sequential([keras.Input((3000,)), wide, SparseDense(2, capacity=0.1, name="o")])
    keras_grow.export_saved_model(model, tmp_path / "wide")
    loaded = tf.saved_model.load(str(tmp_path / "wide"))
    x = _RANDOM.normal(size=(7, 3000)).astype("float32")
    np.testing.assert_allclose(loaded.serve(x)["o"], model(x), atol=1e-5)
    size = sum(path.stat().st_size for path in (tmp_path / "wide").rglob("*") if path.is_file())
    # 12,600 connections of 8 bytes, biases, and the graph; the dense kernel has 36 MB.
    assert size < 300_000
