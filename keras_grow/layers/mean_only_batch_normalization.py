"""MeanOnlyBatchNormalization: what goes with weight normalization."""

import keras
import tensorflow as tf
from keras import ops

from keras_grow.integers import as_integer
from keras_grow.layers.checked_saving import CheckedSaving


@keras.saving.register_keras_serializable(package="keras_grow")
class MeanOnlyBatchNormalization(CheckedSaving):
    r"""Subtracts the mean over the batch, and does not divide by the deviation.

    $$ y = t - \mu[t] + \beta $$

    Weight normalization already fixes the scale of pre-activations, but not their mean. Put this
    layer behind a `WeightNormDense` or `WeightNormConv2D` without bias and activation. It is
    cheaper than batch normalization, and the noise that it adds in training is gentler: the mean
    of a batch is nearly normal, whereas dividing by its deviation has long tails.

    In training, and only there, it normalizes with the mean of the batch, of each entry of
    `axis`, and moves a running mean towards it, with which it normalizes at inference. With
    `trainable=False` it runs at inference always, as Keras's `BatchNormalization` does. Means are
    computed in float32 or better.

    Args:
        axis: integer, the axis whose entries have a mean each: the units or feature maps.
        momentum: float from 0 to 1, the share of the running mean that stays at each step.
        center: whether to add the learned `beta`, the bias.
        beta_initializer, moving_mean_initializer, beta_regularizer, beta_constraint: as in
            `keras.layers.BatchNormalization`.
        synchronized: whether the mean is taken over the replicas of a distribution strategy
            together.

    Input shape:
        Any, with a known size along `axis`. Steps that a mask leaves out do not count in the mean.

    Output shape:
        That of the input.

    Attributes:
        beta: variable of shape `(size,)`, or `None`.
        moving_mean: non-trainable variable of shape `(size,)`.

    Raises:
        ValueError: for a momentum out of range, and an axis that the input does not have or whose
            size is not known.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.MeanOnlyBatchNormalization()
    >>> layer(np.array([[1.0, 5.0], [3.0, 5.0]]), training=True).numpy().tolist()
    [[-1.0, 0.0], [1.0, 0.0]]

    Reference: Salimans, Kingma, "Weight Normalization", arXiv:1602.07868, section 4.
    """

    def __init__(
        self,
        axis=-1,
        momentum=0.99,
        center=True,
        beta_initializer="zeros",
        moving_mean_initializer="zeros",
        beta_regularizer=None,
        beta_constraint=None,
        synchronized=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if as_integer(axis) is None:
            raise ValueError(f"`axis` must be an integer. Received: axis={axis!r}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` must lie from 0 to 1. Received: momentum={momentum!r}")
        self.axis = as_integer(axis)
        self.momentum = float(momentum)
        self.center = center
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.moving_mean_initializer = keras.initializers.get(moving_mean_initializer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.synchronized = synchronized
        self.supports_masking = True

    def build(self, input_shape):
        rank = len(input_shape)
        if not -rank <= self.axis < rank or input_shape[self.axis] is None:
            raise ValueError(
                "`axis` must name an axis of the input whose size is known. "
                f"Received: axis={self.axis}, an input of shape {tuple(input_shape)}"
            )
        size = input_shape[self.axis]
        self.beta = None
        if self.center:
            self.beta = self.add_weight(
                name="beta",
                shape=(size,),
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                autocast=False,
            )
        self.moving_mean = self.add_weight(
            name="moving_mean",
            shape=(size,),
            initializer=self.moving_mean_initializer,
            trainable=False,
            autocast=False,
        )
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes={self.axis: size})
        self.built = True

    def call(self, inputs, training=None, mask=None):
        compute_dtype = keras.backend.result_type(inputs.dtype, "float32")
        t = ops.cast(inputs, compute_dtype)
        mean = ops.cast(self.moving_mean, compute_dtype)
        if training and self.trainable:
            mean = self._batch_mean(t, mask)
            moved = self.moving_mean * self.momentum
            self.moving_mean.assign(moved + ops.cast(mean, moved.dtype) * (1 - self.momentum))
        shift = -mean
        if self.beta is not None:
            shift += ops.cast(self.beta, compute_dtype)
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        return ops.cast(t + ops.reshape(shift, shape), inputs.dtype)

    def _batch_mean(self, t, mask):
        axes = [axis for axis in range(len(t.shape)) if axis != self.axis % len(t.shape)]
        weight = ops.ones((1,) * len(t.shape), t.dtype)
        if mask is not None:
            mask = ops.cast(mask, t.dtype)
            weight = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(t.shape) - len(mask.shape))))
        total = ops.sum(t * weight, axis=axes)
        count = ops.sum(ops.broadcast_to(weight, ops.shape(t)), axis=axes)
        if self.synchronized:
            replica = tf.distribute.get_replica_context()
            total, count = replica.all_reduce(tf.distribute.ReduceOp.SUM, [total, count])
        return total / ops.maximum(count, 1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "center": self.center,
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
            "moving_mean_initializer": keras.initializers.serialize(self.moving_mean_initializer),
            "beta_regularizer": keras.regularizers.serialize(self.beta_regularizer),
            "beta_constraint": keras.constraints.serialize(self.beta_constraint),
            "synchronized": self.synchronized,
        }
