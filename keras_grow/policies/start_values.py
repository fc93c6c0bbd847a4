"""Start values: the weight, and the optimizer's state, with which a connection wakes."""

import abc

import tensorflow as tf

from keras_grow.policies.statistics import Gradient, Statistic
from keras_grow.policies.view import Connections


class StartValue(abc.ABC):
    """Gives grown connections their first weight; write your own by overriding `__call__`.

    Args:
        second_moment_starts_at_mean: optimizer slots of grown connections start afresh. A fresh
            second moment late in a training with Adam makes a first step of about three times
            the learning rate; True starts it at the mean of the layer's others instead.

    Attributes:
        statistics: what must be measured for it, as for a score.
    """

    statistics: tuple[Statistic, ...] = ()

    def __init__(self, *, second_moment_starts_at_mean: bool = False):
        self.second_moment_starts_at_mean = second_moment_starts_at_mean

    @abc.abstractmethod
    def __call__(self, connections: Connections) -> tf.Tensor:
        """Returns the weights, float of shape `(count,)`, of the chosen `connections`."""


class Zero(StartValue):
    """0: growth leaves the function of the network as it was.

    Args:
        second_moment_starts_at_mean: see `StartValue`.
    """

    def __call__(self, connections: Connections) -> tf.Tensor:
        return tf.zeros_like(connections.weight)


class DescentStep(StartValue):
    """-size * dL/dw: the connection wakes as if it had just made one step of gradient descent.

    Args:
        size: positive float, the length of the step in units of weight per gradient.
        second_moment_starts_at_mean: see `StartValue`.
    """

    statistics = (Gradient(),)

    def __init__(self, size: float, *, second_moment_starts_at_mean: bool = False):
        super().__init__(second_moment_starts_at_mean=second_moment_starts_at_mean)
        if not size > 0:
            raise ValueError(f"`size` must be positive. Received: size={size}")
        self.size = size

    def __call__(self, connections: Connections) -> tf.Tensor:
        return -self.size * connections[Gradient()]
