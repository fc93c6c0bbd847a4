"""A published worked example of backpropagation, reproduced by growth gradients.

J. Heaton, "Introduction to the Math of Neural Networks": a 2-2-1 sigmoid network, input (1, 0),
target 1. The book prints 0.10 for the bias of h2; its published deltas fit 0.11.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_grow import GradientMeter, GrowableDense
from keras_grow.records import MeasuredStatistics

# The last row of each kernel is the bias: the weight of a constant input of 1.
_HIDDEN = np.array([[-0.07, 0.94], [0.22, 0.46], [-0.46, 0.11]])
_OUTPUT = np.array([[-0.22], [0.58], [0.78]])
_INPUT, _TARGET = np.array([[1.0, 0.0, 1.0]]), np.array([[1.0]])

# -dL/dW with L = (o - t)^2 / 2. The published deltas of h1, h2 and o1 are the rows of an input
# of 1; the second input is 0, and its weights move nothing.
_PUBLISHED_HIDDEN = [[-0.00231816, 0.00503178], [0.0, 0.0], [-0.00231816, 0.00503178]]
_PUBLISHED_OUTPUT = [[0.01674174], [0.03347179], [0.04518483]]


def _half_squared_error(y_true, y_pred):
    return ops.square(y_pred - y_true) / 2


@pytest.fixture
def measured() -> MeasuredStatistics:
    keras.config.set_dtype_policy("float64")
    inputs = keras.Input((3,))
    hidden = GrowableDense(2, "sigmoid", use_bias=False)
    output = GrowableDense(1, "sigmoid", use_bias=False)
    constant = inputs[:, 2:]
    model = keras.Model(inputs, output(ops.concatenate([hidden(inputs), constant], axis=-1)))
    keras.config.set_dtype_policy("float32")
    hidden.kernel.assign(_HIDDEN)
    output.kernel.assign(_OUTPUT)
    # Dormant weights that multiply an input of 0 change nothing, and their gradient is 0.
    hidden.prune_connections([2, 3])
    return GradientMeter(loss=_half_squared_error).measure(model, (_INPUT, _TARGET))


def _sigmoid(u):
    return 1 / (1 + np.exp(-u))


def _backpropagated():
    """-dL/dW of both kernels, by the textbook's formulas."""
    hidden = _sigmoid(_INPUT @ _HIDDEN)
    inputs_of_output = np.append(hidden, [[1.0]], axis=1)
    output = _sigmoid(inputs_of_output @ _OUTPUT)
    output_delta = -(output - _TARGET) * output * (1 - output)
    hidden_delta = hidden * (1 - hidden) * (output_delta @ _OUTPUT[:2].T)
    return _INPUT.T @ hidden_delta, inputs_of_output.T @ output_delta


def test_growth_gradients_are_the_published_deltas_and_gradients(measured):
    hidden, output = (-gradient.numpy() for gradient in measured.gradients.values())
    # The published numbers come from weights of more digits than are printed.
    np.testing.assert_allclose(hidden, _PUBLISHED_HIDDEN, rtol=1e-3)
    np.testing.assert_allclose(output, _PUBLISHED_OUTPUT, rtol=1e-3)


def test_growth_gradients_are_those_of_the_textbooks_formulas(measured):
    for gradient, expected in zip(measured.gradients.values(), _backpropagated(), strict=True):
        np.testing.assert_allclose(-gradient, expected, rtol=1e-7, atol=1e-17)
