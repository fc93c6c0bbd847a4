"""The loss that `model.fit` minimizes, computed without leaving a trace in the model."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_grow.keras_private import is_seed, step_counter

LossFunction = Callable[..., tf.Tensor]


class _FunctionLoss(keras.losses.Loss):
    """A function (y_true, y_pred) with the reduction and sample weights of a Keras loss."""

    def __init__(self, function: LossFunction):
        # Keras opens a name scope of this name, which must not begin with an underscore.
        super().__init__(name="function_loss")
        self._function = function

    def call(self, y_true, y_pred):
        return self._function(y_true, y_pred)


def check_loss(model: keras.Model, loss: Any) -> Any:
    """Returns `loss` resolved, or `None` for the loss that `model` was compiled with.

    Raises:
        ValueError: if there is neither, and for a callable of another signature.
    """
    if loss is None:
        if not getattr(model, "compiled", False):
            raise ValueError(
                "The model has no loss to lower. Received: a model that is not compiled, and "
                "loss=None. Compile it, or pass `loss=`."
            )
        return None
    if isinstance(loss, (str, dict)):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss
    if callable(loss):
        parameters = list(inspect.signature(loss).parameters)
        if parameters[:2] == ["y_true", "y_pred"]:
            return _FunctionLoss(loss)
        if len(parameters) == 4:
            return loss
    raise ValueError(
        "`loss` must be a keras.losses.Loss, a name of one, a function (y_true, y_pred), or a "
        "function (model, x, y, sample_weight) that returns the whole loss. "
        f"Received: loss={loss!r}"
    )


@contextlib.contextmanager
def untouched(
    model: keras.Model, optimizer: keras.Optimizer | None = None, draw: tf.Tensor | int = 0
) -> Iterator[None]:
    """Runs the model on its present values and drops every update it makes to itself.

    BatchNorm statistics, metrics and seeds stay as they are. Stochastic layers draw from their
    own seed, the optimizer's step and `draw`, so that a resumed run draws the same.
    """
    step = 0 if optimizer is None else step_counter(optimizer).value
    counter = tf.cast(step, tf.uint32) * 65537 + tf.cast(draw, tf.uint32)

    def value(variable: keras.Variable) -> tf.Tensor:
        if is_seed(variable):
            return tf.stack([variable.value[0], tf.cast(counter, variable.value.dtype)])
        return variable.value

    # All variables are mapped: Keras gives regularizers None for one that is not.
    mapping = [(variable, value(variable)) for variable in model.variables]
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
        yield


def call_model(model: keras.Model, x: Any, training: bool) -> Any:
    """The model's outputs, with `training` passed where the model's `call` takes it."""
    if "training" in inspect.signature(model.call).parameters:
        return model(x, training=training)
    return model(x)


def total_loss(
    model: keras.Model, loss: Any, x: Any, y: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """Scalar: the compiled loss, or `loss`, with the losses that layers and regularizers add."""
    if loss is not None and not isinstance(loss, keras.losses.Loss):
        return ops.sum(loss(model, x, y, sample_weight))
    y_pred = call_model(model, x, training)
    if loss is None:
        arguments = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
        if "training" in inspect.signature(model.compute_loss).parameters:
            arguments["training"] = training
        return model.compute_loss(**arguments)
    value = loss(y, y_pred, sample_weight=sample_weight)
    return ops.sum([value, *(ops.cast(extra, value.dtype) for extra in model.losses)])
