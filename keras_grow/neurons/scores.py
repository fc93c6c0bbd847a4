"""Neuron scores: how much a unit matters. The smallest are pruned first."""

import abc
import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a score sees of the units of one layer, as one of its consumers reads them.

    Behind a BatchNormalization, pooling or an activation it is their output that counts. Where a
    unit is read at several positions, means are over positions too.

    Attributes:
        mean_magnitude: float of shape `(units,)`, the mean |output| over the data.
        rms: float of shape `(units,)`, the root mean square of the output over the data.
        outgoing_norm: float of shape `(units,)`, the norm of the unit's outgoing weights.
    """

    mean_magnitude: tf.Tensor
    rms: tf.Tensor
    outgoing_norm: tf.Tensor


class NeuronScore(abc.ABC):
    """Ranks the units of all layers together; write your own by overriding `__call__`.

    A unit that several layers read has the largest of its scores.
    """

    @abc.abstractmethod
    def __call__(self, outputs: Outputs) -> tf.Tensor:
        """Returns a finite float score for every unit, shape `(units,)`."""


class OutputMagnitude(NeuronScore):
    """The mean |output| over the data.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4: a neuron goes if the magnitude of
    its output is below a threshold.
    """

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        return outputs.mean_magnitude


class Contribution(NeuronScore):
    """The root mean square output times the norm of the outgoing weights.

    It is the size of what the unit adds to the layer that reads it, as `scores.ActivationMagnitude`
    is for a connection: a large output that nothing weighs scores low.
    """

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        return outputs.rms * outputs.outgoing_norm
