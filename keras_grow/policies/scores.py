"""Scores: how much a connection promises. The larger grows first, or survives pruning."""

import abc
from collections.abc import Callable

import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.policies.statistics import (
    CH2L3n,
    Gradient,
    InputRMS,
    MagnitudeSum,
    OutputScale,
    Statistic,
    TopologyStatistic,
)
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
        return _uniform(connections, self.seed)


class SignedMagnitude(Score):
    """How much of the active weights of the same sign is smaller: 0 for the least, to 1.

    Dropping a share by it drops that share of positive and of negative weights, those nearest to 0.

    Reference: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science" (SET), arXiv:1707.04780, algorithm 2.
    """

    def __call__(self, connections: Connections) -> tf.Tensor:
        weight = tf.reshape(connections.weight, [-1])
        active = tf.reshape(connections.active, [-1])
        score = tf.zeros(tf.shape(weight), tf.float32)
        for is_of_sign in (active & (weight >= 0), active & (weight < 0)):
            places = tf.where(is_of_sign)
            order = tf.argsort(tf.abs(tf.gather_nd(weight, places)), stable=True)
            ranks = tf.range(tf.size(order)) / tf.maximum(tf.size(order), 1)
            places = tf.gather(places, order)
            score = tf.tensor_scatter_nd_update(score, places, tf.cast(ranks, tf.float32))
        return tf.reshape(score, tf.shape(connections.weight))


class RelativeImportance(Score):
    r"""|w| as a share of what its unit reads, and of what its input is read with.

    $$ \frac{|w_{nm}|}{\sum_{n'} |w_{n'm}|} + \frac{|w_{nm}|}{\sum_{m'} |w_{nm'}|} $$

    It keeps neurons with few connections alive, which |w| alone may cut off.

    Reference: Zhang et al., "Plug-and-Play: An Efficient Post-training Pruning Method for Large
    Language Models", ICLR 2024, equation 3.
    """

    statistics = (MagnitudeSum("inputs"), MagnitudeSum("units"))

    def __call__(self, connections: Connections) -> tf.Tensor:
        magnitude = tf.abs(connections.weight)
        shares = [tf.math.divide_no_nan(magnitude, connections[each]) for each in self.statistics]
        return shares[0] + shares[1]


class LinkPrediction(Score):
    """What the topology of active connections alone says: which connection it lacks.

    Args:
        predictor: `keras_grow.statistics.CH2L3n()`, the default, `CH3L3p()`, or a topology
            statistic of yours.
    """

    def __init__(self, predictor: TopologyStatistic | None = None):
        self.predictor = CH2L3n() if predictor is None else predictor
        self.statistics = (self.predictor,)

    def __call__(self, connections: Connections) -> tf.Tensor:
        return connections[self.predictor]


class Soft(Score):
    r"""A draw instead of a ranking: one connection after the other, in proportion to a score.

    The largest k are a sample without replacement, in which a connection of score s has the weight
    $s^a$; those whose score is not positive come last, in random order. What grows is then drawn
    from what promises most, and of what is pruned, the survivors are drawn. It is a function of
    (seed, step, layer, position), so that a resumed run repeats it.

    Args:
        score: a score.
        exponent: a, a positive number, or a callable of the optimizer's step that returns one: 0
            would draw evenly, and the larger it is, the closer the draw is to the ranking.
        seed: non-negative integer.

    Reference: Zhang et al., arXiv:2501.19107, section 3.1; the draw is Efraimidis and Spirakis's,
    "Weighted random sampling with a reservoir", 2006, as Gumbel noise on logarithms.
    """

    def __init__(
        self, score: Score, exponent: float | Callable[[int], float] = 1.0, *, seed: int = 0
    ):
        if not callable(exponent) and not exponent > 0:
            raise ValueError(
                "`exponent` must be a positive number or a callable of the step. Received: "
                f"exponent={exponent!r}"
            )
        self.score, self.exponent = score, exponent
        self.seed = checked_integer(seed, "seed", least=0)
        self.statistics = score.statistics

    def __call__(self, connections: Connections) -> tf.Tensor:
        exponent = self.exponent
        if callable(exponent):
            exponent = float(exponent(connections.step))
        score = tf.cast(self.score(connections), tf.float32)
        uniform = tf.maximum(_uniform(connections, self.seed), _LEAST)
        noise = -tf.math.log(-tf.math.log(uniform))
        return exponent * tf.math.log(tf.maximum(score, _LEAST)) + noise


# So small that no score of note is cut, and large enough for its logarithm to be finite.
_LEAST = 1e-37


def _uniform(connections: Connections, seed: int) -> tf.Tensor:
    """Random numbers in [0, 1), a function of seed, step, layer and position: float32."""
    key = tf.constant([seed, connections.step], tf.int64)
    key = tf.random.fold_in(key, connections.layer_index)
    key = tf.random.fold_in(key, connections.first_index)
    return tf.random.stateless_uniform(tf.shape(connections.weight), seed=key)
