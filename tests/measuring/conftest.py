"""What the tests of measurements share: precisions, networks, perturbed losses."""

import types

import keras
import numpy as np
import pytest
from keras import ops

from keras_grow import (
    GrowableConv1D,
    GrowableConv2D,
    GrowableDense,
    WeightNormConv2D,
    WeightNormDense,
    growable_layers,
)


def _compiled(model, **arguments):
    # A rate of 0 lets `train_on_batch` report the loss that it minimizes and change nothing.
    arguments = {"optimizer": keras.optimizers.SGD(0.0), "loss": "mse"} | arguments
    model.compile(**arguments)
    return model


def _data(*shape, outputs=2):
    random = np.random.default_rng(2)
    return random.normal(size=shape), random.normal(size=(*shape[:-1], outputs))


def _sequential():
    layers = [GrowableDense(3, "tanh", initial_density=0.5), GrowableDense(2, initial_density=0.5)]
    return _compiled(keras.Sequential([keras.Input((4,)), *layers])), _data(7, 4)


def _shared_and_nested():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = GrowableDense(3, "tanh", initial_density=0.5)
    inside = [keras.Input((3,)), GrowableDense(3, "tanh", initial_density=0.5)]
    both = ops.concatenate([keras.Sequential(inside)(shared(left)), shared(right)], axis=-1)
    outputs = GrowableDense(2, initial_density=0.5)(both)
    x, y = _data(7, 4)
    return _compiled(keras.Model([left, right], outputs)), ([x, x[::-1] ** 2], y)


class AddsLoss(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = GrowableDense(3, "tanh", initial_density=0.5)
        self.outputs_layer = GrowableDense(2, initial_density=0.5)

    def call(self, inputs):
        hidden = self.hidden(inputs)
        self.add_loss(0.3 * ops.mean(ops.square(hidden)))
        return self.outputs_layer(hidden)


def _subclassed_with_added_loss():
    x, y = _data(7, 4)
    model = AddsLoss()
    model(x)
    return _compiled(model), (x, y)


def _batch_normalized():
    layers = [
        GrowableDense(4, initial_density=0.5),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("tanh"),
        GrowableDense(2, initial_density=0.5),
    ]
    return _compiled(keras.Sequential([keras.Input((4,)), *layers])), _data(7, 4)


def _sample_weighted():
    model, (x, y) = _sequential()
    return model, (x, y, np.linspace(0.1, 3.0, len(x)))


def _time_distributed():
    layer = keras.layers.TimeDistributed(GrowableDense(2, "tanh", initial_density=0.5))
    return _compiled(keras.Sequential([keras.Input((3, 4)), layer])), _data(5, 3, 4)


def _weight_normalized():
    layers = [
        WeightNormDense(3, "tanh", initial_density=0.5),
        WeightNormDense(2, initial_density=0.5),
    ]
    model = _compiled(keras.Sequential([keras.Input((4,)), *layers]))
    # Gains other than the norm, and a unit without any active input.
    layers[0].g.assign([0.7, -1.3, 0.5])
    layers[1].prune_connections(np.flatnonzero(layers[1].kernel_mask.numpy()[:, 1]) * 2 + 1)
    return model, _data(7, 4)


class Cell(keras.layers.Layer):
    state_size = 2

    def __init__(self):
        super().__init__()
        self.update = GrowableDense(2, "tanh", initial_density=0.5)

    def build(self, input_shape):
        self.update.build((None, input_shape[-1] + self.state_size))

    def call(self, inputs, states):
        state = self.update(ops.concatenate([inputs, states[0]], axis=-1))
        return state, [state]


def _recurrent():
    layers = [keras.layers.RNN(Cell()), GrowableDense(2, initial_density=0.5)]
    x, y = _data(5, 3, 4)
    return _compiled(keras.Sequential([keras.Input((3, 4)), *layers])), (x, y[:, 0])


def _regularized():
    # Keras keeps factors in float32: this one is exact.
    penalty = keras.regularizers.L2(0.25)
    layers = [
        GrowableDense(3, "tanh", kernel_regularizer=penalty, initial_density=0.5),
        WeightNormDense(2, kernel_regularizer=penalty, initial_density=0.5),
    ]
    return _compiled(keras.Sequential([keras.Input((4,)), *layers])), _data(7, 4)


def _two_weighted_outputs():
    inputs = keras.Input((4,))
    hidden = GrowableDense(3, "tanh", initial_density=0.5)(inputs)
    outputs = {
        "amount": GrowableDense(2, initial_density=0.5, name="amount")(hidden),
        "kind": GrowableDense(2, "softmax", initial_density=0.5, name="kind")(hidden),
    }
    x, y = _data(7, 4)
    model = _compiled(
        keras.Model(inputs, outputs),
        loss={"amount": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"amount": 0.2, "kind": 3.0},
    )
    return model, (x, {"amount": y, "kind": np.arange(7) % 2})


def _convolutional():
    layers = [
        GrowableConv2D(2, (3, 2), 2, "same", activation="tanh", initial_density=0.5),
        WeightNormConv2D(3, 2, dilation_rate=(1, 2), activation="tanh", initial_density=0.5),
        keras.layers.Flatten(),
        GrowableDense(2, initial_density=0.5),
    ]
    model = _compiled(keras.Sequential([keras.Input((5, 6, 2)), *layers]))
    # A gain other than the norm, and a map without any active input.
    layers[1].g.assign([0.7, -1.3, 0.5])
    layers[1].prune_connections(np.flatnonzero(layers[1].kernel_mask.numpy()[..., 1]) * 3 + 1)
    x, _ = _data(7, 5, 6, 2)
    return model, (x, _data(7, 4)[1])


def _convolved_sequences():
    layers = [
        GrowableConv1D(2, 3, dilation_rate=2, padding="causal", initial_density=0.5),
        GrowableConv1D(2, 3, strides=2, activation="tanh", initial_density=0.5),
    ]
    x, _ = _data(5, 7, 2)
    return _compiled(keras.Sequential([keras.Input((7, 2)), *layers])), (x, _data(5, 3, 2)[1])


_NETWORKS = (
    _sequential,
    _shared_and_nested,
    _subclassed_with_added_loss,
    _batch_normalized,
    _sample_weighted,
    _time_distributed,
    _weight_normalized,
    _recurrent,
    _regularized,
    _two_weighted_outputs,
    _convolutional,
    _convolved_sequences,
)


@pytest.fixture(params=_NETWORKS, ids=lambda build: build.__name__[1:])
def network(request):
    """A function that builds a compiled model and its data `(x, y)` or `(x, y, sample_weight)`."""
    return request.param


@pytest.fixture
def networks():
    """All these functions by name."""
    return types.SimpleNamespace(**{build.__name__[1:]: build for build in _NETWORKS})


def _use_kernel(layer, kernel):
    layer.kernel_mask.assign(np.ones(kernel.shape, bool))
    if isinstance(layer, (WeightNormDense, WeightNormConv2D)):
        layer.v.assign(kernel)
        layer.g.assign(np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0))
    else:
        layer.kernel.assign(kernel)


@pytest.fixture
def numerical_gradients():
    """Central differences of `loss()`, a float, in every connection of `model`, all woken."""

    def differentiate(model, loss, step=1e-5):
        gradients = {}
        for layer in growable_layers(model):
            kernel = layer.effective_kernel().numpy()
            gradients[layer] = np.zeros_like(kernel)
            for position in np.ndindex(*kernel.shape):
                losses = []
                for change in (step, -step):
                    changed = kernel.copy()
                    changed[position] += change
                    _use_kernel(layer, changed)
                    losses.append(loss())
                gradients[layer][position] = (losses[0] - losses[1]) / (2 * step)
            _use_kernel(layer, kernel)
        return gradients

    return differentiate


@pytest.fixture
def assert_close():
    """Compares gradients layer by layer: max|a - b| <= bound * max|b|, over all layers."""

    def check(got, expected, bound):
        got, expected = ([np.asarray(g, "float64") for g in d.values()] for d in (got, expected))
        largest = max(np.abs(b).max() for b in expected)
        assert largest > 0
        error = max(np.abs(a - b).max() for a, b in zip(got, expected, strict=True))
        assert error <= bound * largest, f"{error / largest:.3g} > {bound}"

    return check
