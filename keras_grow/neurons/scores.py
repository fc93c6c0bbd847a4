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
        incoming_norm: likewise of its incoming weights; the largest, where several layers make it.
        scale: float of shape `(units,)`, |gamma| of the normalization that the unit passes, the
            product of several; 1 where there is none.
        first_order: float of shape `(units,)`, |x dL/dx| summed over positions, a mean over
            samples: by how much the loss changes, to first order, without the unit. `None` unless
            the score says that it takes it.
    """

    mean_magnitude: tf.Tensor
    rms: tf.Tensor
    outgoing_norm: tf.Tensor
    incoming_norm: tf.Tensor
    scale: tf.Tensor
    first_order: tf.Tensor | None = None


class NeuronScore(abc.ABC):
    """Ranks the units of all layers together; write your own by overriding `__call__`.

    A unit that several layers read has the largest of its scores.

    Attributes:
        takes_first_order: whether `Outputs.first_order` must be measured, which takes the loss.
    """

    takes_first_order: bool = False

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


class IncomingMagnitude(NeuronScore):
    """The norm of the incoming weights, which takes no look at what flows through the unit.

    Reference: Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710.
    """

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        return outputs.incoming_norm


class NormalizationScale(NeuronScore):
    """|gamma| of the BatchNormalization behind the unit; 1 where there is none.

    Reference: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming",
    arXiv:1708.06519.
    """

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        return outputs.scale


class Taylor(NeuronScore):
    r"""By how much the loss changes, to first order, without the unit.

    $$ \frac{1}{N} \sum_n \left| \sum_p x_{np} \frac{\partial L_n}{\partial x_{np}} \right| $$

    over samples $n$ and the positions $p$ at which the unit is read.

    Reference: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", arXiv:1611.06440.
    """

    takes_first_order = True

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        return outputs.first_order


class Relative(NeuronScore):
    """A score by its mean over the units of the layer, so that layers of other sizes compare.

    Ranked over all layers by magnitude alone, the layers with small outputs would go first, and as
    wholes.

    Args:
        score: the score, by default `Contribution()`.

    Reference: Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900, section
    3.4.
    """

    def __init__(self, score: NeuronScore | None = None):
        self.score = Contribution() if score is None else score
        self.takes_first_order = self.score.takes_first_order

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        values = self.score(outputs)
        return tf.math.divide_no_nan(values, tf.reduce_mean(values))


class Contribution(NeuronScore):
    """The root mean square output times the norm of the outgoing weights.

    It is the size of what the unit adds to the layer that reads it, as `scores.ActivationMagnitude`
    is for a connection: a large output that nothing weighs scores low.
    """

    def __call__(self, outputs: Outputs) -> tf.Tensor:
        return outputs.rms * outputs.outgoing_norm
