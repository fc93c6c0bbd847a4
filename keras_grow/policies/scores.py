"""Scores: how much a connection promises. The larger grows first, or survives pruning."""

import abc

import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.policies.view import Connections


class Score(abc.ABC):
    """Ranks connections; write your own by overriding `__call__`.

    Attributes:
        needs_gradient: whether `connections.gradient` must be measured.
        needs_input_rms: whether `connections.input_rms` must be measured.
        needs_output_scale: whether `connections.output_scale` must be looked up.
        increases_with_gradient: whether the score of a dormant connection never falls when its
            |gradient| grows and nothing else changes it, so that a bound on |gradient| bounds the
            score. The search in a sparse layer may then skip what can't be among the best.

    Example:

    ```python
    class Saliency(keras_grow.scores.Score):
        "|w dL/dw|, the first-order change of the loss when the connection is cut."

        needs_gradient = True

        def __call__(self, connections):
            return tf.abs(connections.weight * connections.gradient)


    keras_grow.prune(model, density=0.1, score=Saliency(), data=(x, y))
    ```
    """

    needs_gradient: bool = False
    needs_input_rms: bool = False
    needs_output_scale: bool = False
    increases_with_gradient: bool = False

    @abc.abstractmethod
    def __call__(self, connections: Connections) -> tf.Tensor:
        """Returns a finite float score for every one of `connections`, in their shape."""


class GradientMagnitude(Score):
    r"""|dL/dw|, the rate at which waking a connection can lower the loss.

    With an L1 regulariser of factor `l1` on the kernel, leaving 0 costs `l1` per unit of
    weight, so that a dormant connection promises `|dL/dw| - l1`.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1.
    """

    needs_gradient = True
    increases_with_gradient = True

    def __call__(self, connections: Connections) -> tf.Tensor:
        magnitude = tf.abs(connections.gradient)
        return magnitude - connections.l1 if connections.l1 else magnitude


class Magnitude(Score):
    """|w|, the magnitude of the effective weight.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4; Han et al., "Learning both
    Weights and Connections for Efficient Neural Networks", arXiv:1506.02626.
    """

    def __call__(self, connections: Connections) -> tf.Tensor:
        return tf.abs(connections.weight)


class EffectiveMagnitude(Score):
    r"""|w| behind BatchNormalization: the magnitude that the weight has once that is folded in.

    $$ \left| w \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} \right| $$

    with scale and moving variance of the BatchNormalization that reads the layer's units, where
    one does and the layer has no activation of its own; else |w|. It needs a Sequential or
    functional model, whose layers tell which reads which.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4.
    """

    needs_output_scale = True

    def __call__(self, connections: Connections) -> tf.Tensor:
        return tf.abs(connections.weight * connections.output_scale)


class ActivationMagnitude(Score):
    """|w| times the root mean square of its input: the size of what it really contributes.

    A large weight on an input that is almost always 0 (a pixel of an image's margin) scores
    low. Reference: Sun et al., "A Simple and Effective Pruning Approach for Large Language
    Models" (Wanda), arXiv:2306.11695, equation 1.
    """

    needs_input_rms = True

    def __call__(self, connections: Connections) -> tf.Tensor:
        return tf.abs(connections.weight) * connections.input_rms


class Random(Score):
    """A uniform random number per connection: the control of every experiment on growth.

    It is a function of (seed, step, layer, position) alone, so that a resumed run repeats it.

    Args:
        seed: non-negative integer.
    """

    def __init__(self, seed: int = 0):
        self.seed = checked_integer(seed, "seed", least=0)

    def __call__(self, connections: Connections) -> tf.Tensor:
        key = tf.constant([self.seed, connections.step], tf.int64)
        key = tf.random.fold_in(key, connections.layer_index)
        key = tf.random.fold_in(key, connections.first_index)
        return tf.random.stateless_uniform(tf.shape(connections.weight), seed=key)
