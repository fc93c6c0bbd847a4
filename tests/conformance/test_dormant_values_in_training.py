"""Training neither sees what dormant connections store nor leaves anything there."""

import keras
import numpy as np
import pytest

import keras_grow

# Optimizers whose update does not depend on the values that other entries of a variable have.
_BLIND = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.1),
    "adamw": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.5),
    "lion": lambda: keras.optimizers.Lion(0.1),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "ema": lambda: keras.optimizers.Adam(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
}
# Before Keras 3.13, Muon fails on TensorFlow, with a plain Dense too.
if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 13):
    _BLIND["muon"] = lambda: keras.optimizers.Muon(0.1)
# Lamb and Adafactor scale a variable's update by the size of the whole variable as it is stored.
_ALL = {
    **_BLIND,
    "lamb": lambda: keras.optimizers.Lamb(0.1),
    "adafactor": lambda: keras.optimizers.Adafactor(0.1),
}
# The rest update weight by weight in ways that one of these does too.
_QUICK = ("adam", "ema", "muon", "lamb")


def _each(optimizers):
    return pytest.mark.parametrize(
        "optimizer",
        [
            pytest.param(make, id=name, marks=[] if name in _QUICK else [pytest.mark.slow])
            for name, make in optimizers.items()
        ],
    )


def _train(model, data, steps=5):
    return [model.train_on_batch(*data) for _ in range(steps)]


def _check_training_is_blind(case, optimizer, data, state, assert_same_bits, penalties=None):
    """Trains from zeros, fives and NaN in dormant entries; all three must come out the same."""
    models = [case.network(**(penalties or {})) for _ in range(3)]
    start = models[0].get_weights()
    losses = []
    for model, value in zip(models, [0.0, 5.0, np.nan], strict=True):
        model.set_weights(start)
        case.contaminate(model, value)
        model.compile(optimizer(), "mse", run_eagerly=True)
        losses.append(_train(model, data))
        assert_same_bits(state(model), state(models[0]))
    assert losses[0] == losses[1] == losses[2]
    assert all(
        np.any(a != b) for a, b in zip(start, models[0].get_weights()) if a.dtype.kind == "f"
    )


@_each(_BLIND)
def test_training_from_dormant_values_is_training_from_zeros(
    case, optimizer, regression, state, assert_same_bits
):
    _check_training_is_blind(case, optimizer, regression, state, assert_same_bits)


def test_training_under_penalties_does_not_see_dormant_values(
    case, penalties, regression, state, assert_same_bits
):
    sgd = _BLIND["sgd"]
    _check_training_is_blind(case, sgd, regression, state, assert_same_bits, penalties)


@_each(_ALL)
def test_dormant_values_are_zero_after_every_update(case, optimizer, regression):
    model = case.network()
    case.contaminate(model, 5.0)
    model.compile(optimizer(), "mse", run_eagerly=True)
    for _ in range(3):
        _train(model, regression, steps=1)
        assert not case.dormant_values(model).any()


@pytest.mark.slow
@_each(_ALL)
def test_dormant_values_are_zero_after_every_update_compiled_by_xla(case, optimizer, regression):
    model = case.network()
    case.contaminate(model, 5.0)
    model.compile(optimizer(), "mse", jit_compile=True)
    for _ in range(3):
        _train(model, regression, steps=1)
        assert not case.dormant_values(model).any()


# Muon moves dormant entries before the constraint undoes it, and the average remembers: there the
# mask in the forward pass is the guard, as in `test_dormant_values.py`.
@pytest.mark.parametrize("optimizer_class", ["Adam", "RMSprop"])
def test_dormant_values_are_zero_after_a_fit_that_ends_on_averages(
    case, optimizer_class, regression
):
    """At the end of `fit` Keras puts averages in the weights' place, behind all constraints."""
    model = case.network()
    optimizer = getattr(keras.optimizers, optimizer_class)(0.1, use_ema=True)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(*regression, batch_size=16, epochs=2, verbose=0)
    assert not case.dormant_values(model).any()


@_each(_BLIND)
def test_pruned_connections_store_zero_and_stay_so_in_training(case, optimizer, regression):
    model = case.network()
    model.compile(optimizer(), "mse", run_eagerly=True)
    _train(model, regression)
    keras_grow.prune(model, density=0.2)
    assert len(case.dormant_values(model)) == 53  # 13 of 66 connections are left.
    assert not case.dormant_values(model).any()
    _train(model, regression)
    assert not case.dormant_values(model).any()
