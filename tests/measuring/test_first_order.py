"""Growth takes the connections whose waking lowers the loss fastest, found by brute force."""

import keras
import numpy as np
import pytest

from keras_grow import GradientMeter, GrowableDense, grow, growable_layers

_WIDTHS = (4, 5, 4, 3)
_EPSILON = 1e-3


@pytest.fixture(params=["mse", "sparse_categorical_crossentropy"])
def trained(request, float64):
    """A tanh network in float64, and a meter that traced it."""
    is_classifier = request.param != "mse"
    last = "softmax" if is_classifier else "tanh"
    layers = [GrowableDense(n, "tanh") for n in _WIDTHS[1:-1]] + [GrowableDense(_WIDTHS[-1], last)]
    model = keras.Sequential([keras.Input((_WIDTHS[0],)), *layers])
    model.compile("sgd", request.param)
    return model, is_classifier, GradientMeter()


def _loss_in_numpy(kernels, biases, x, y, is_classifier):
    hidden = x
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        hidden = np.tanh(hidden @ kernel + bias)
    outputs = hidden @ kernels[-1] + biases[-1]
    if not is_classifier:
        return np.mean(np.square(np.tanh(outputs) - y))
    logs = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    return -np.mean(logs[np.arange(len(y)), y])


def _rates_of_decrease(kernels, masks, loss):
    """How fast the loss falls as each dormant connection leaves 0 in its better direction.

    Richardson's extrapolation from two steps; active connections get -inf.
    """
    start = loss(kernels)

    def decrease(layer, position, weight):
        changed = [kernel.copy() for kernel in kernels]
        changed[layer][position] = weight
        return (start - loss(changed)) / abs(weight)

    rates = [np.full(mask.shape, -np.inf) for mask in masks]
    for layer, mask in enumerate(masks):
        for position in zip(*np.nonzero(~mask)):
            rates[layer][position] = max(
                2 * decrease(layer, position, sign * _EPSILON / 2)
                - decrease(layer, position, sign * _EPSILON)
                for sign in (1, -1)
            )
    return rates


def _start(model, seed):
    random = np.random.default_rng(seed)
    kernels, masks, biases = [], [], []
    for layer in growable_layers(model):
        mask = random.random(layer.kernel_shape) < 0.5
        kernel = np.where(mask, random.normal(size=mask.shape), 0.0)
        bias = random.normal(size=mask.shape[1])
        for variable, value in zip(
            (layer.kernel, layer.kernel_mask, layer.bias), (kernel, mask, bias), strict=True
        ):
            variable.assign(value)
        kernels.append(kernel)
        masks.append(mask)
        biases.append(bias)
    return kernels, masks, biases


def _best(rates, count):
    """The places of the `count` largest rates, and the gap between the last and the next."""
    order = np.argsort(-rates, kind="stable")
    order = order[np.isfinite(rates[order])]
    gap = rates[order[count - 1]] - rates[order[count]] if count < len(order) else np.inf
    return set(order[:count].tolist()), gap


@pytest.mark.parametrize("per_layer", [False, True])
def test_growth_takes_the_connections_whose_activation_lowers_the_loss_most(trained, per_layer):
    model, is_classifier, meter = trained
    compared = 0
    for seed in range(6):
        kernels, masks, biases = _start(model, seed)
        random = np.random.default_rng(100 + seed)
        x = random.normal(size=(15, _WIDTHS[0]))
        y = np.arange(15) % 3 if is_classifier else random.normal(size=(15, _WIDTHS[-1]))

        def loss(kernels, biases=biases, x=x, y=y):
            return _loss_in_numpy(kernels, biases, x, y, is_classifier)

        assert meter.measure(model, (x, y)).loss == pytest.approx(loss(kernels), rel=1e-12)
        rates = [r.ravel() for r in _rates_of_decrease(kernels, masks, loss)]
        for count in (1, 3) if per_layer else (1, 4, 9):
            _start(model, seed)
            record = grow(model, (x, y), count=count, per_layer=per_layer, meter=meter)
            chosen = [layer.indices.numpy().tolist() for layer in record.layers]
            if not per_layer:
                offsets = np.cumsum([0] + [r.size for r in rates[:-1]])
                chosen = [[o + i for o, c in zip(offsets, chosen, strict=True) for i in c]]
            for grown, rate in zip(chosen, rates if per_layer else [np.concatenate(rates)]):
                expected, gap = _best(rate, count)
                # The extrapolated rates are good to the square of the step.
                if gap > 20 * _EPSILON**2:
                    assert set(grown) == expected
                    compared += 1
    assert compared >= (30 if per_layer else 15)
