"""Scores: how much a connection promises. The larger grows first, or survives pruning."""

import abc

import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.policies.statistics import Gradient, InputRMS, OutputScale, Statistic
from keras_grow.policies.view import Connections


class Score(abc.ABC):
    """Ranks connections; write your own by overriding `__call__`.

    Attributes:
        statistics: what must be measured for it, read as `connections[statistic]`; see
            `keras_grow.statistics`. A score that wraps another hands on the other's.
        increases_with_gradient: whether the score of a dormant connection never falls when its
            |gradient| grows and nothing else changes it, so that a bound on |gradient| bounds the
            score. The search in a sparse layer then skips what can't be among the best, if
            `Gradient()` is all that the score names.

    Example:

    ```python
    Gradient = keras_grow.statistics.Gradient


    class Saliency(keras_grow.scores.Score):
        "|w dL/dw|, the first-order change of the loss when the connection is cut."

        statistics = (Gradient(),)

        def __call__(self, connections):
            return tf.abs(connections.weight * connections[Gradient()])


    keras_grow.prune(model, density=0.1, score=Saliency(), data=(x, y))
    ```
    """

    statistics: tuple[Statistic, ...] = ()
    increases_with_gradient: bool = False

    @abc.abstractmethod
    def __call__(self, connections: Connections) -> tf.Tensor:
        """Returns a finite float score for every one of `connections`, in their shape."""


class GradientMagnitude(Score):
    r"""|dL/dw|, the rate at which waking a connection can lower the loss.

    With an L1 regularizer of factor `l1` on the kernel, leaving 0 costs `l1` per unit of
    weight, so that a dormant connection promises `|dL/dw| - l1`.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1.
    """

    statistics = (Gradient(),)
    increases_with_gradient = True

    def __call__(self, connections: Connections) -> tf.Tensor:
        magnitude = tf.abs(connections[Gradient()])
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

    statistics = (OutputScale(),)

    def __call__(self, connections: Connections) -> tf.Tensor:
        return tf.abs(connections.weight * connections[OutputScale()])


class ActivationMagnitude(Score):
    """|w| times the root mean square of its input: the size of what it really contributes.

    A large weight on an input that is almost always 0 (a pixel of an image's margin) scores
    low. Reference: Sun et al., "A Simple and Effective Pruning Approach for Large Language
    Models" (Wanda), arXiv:2306.11695, equation 1.
    """

    statistics = (InputRMS(),)

    def __call__(self, connections: Connections) -> tf.Tensor:
        return tf.abs(connections.weight) * connections[InputRMS()]


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
