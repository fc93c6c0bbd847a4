"""Neuron initializers: the connections and weights with which neurons are born."""

import abc
import dataclasses

import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.policies.densities import check_density, exact_count
from keras_grow.search.flat_arrays import as_tensor
from keras_grow.search.ranking import largest_first, ranked

# A singular value below this share of the largest is rounding error.
_LEAST_SINGULAR_VALUE = 1e-6


@dataclasses.dataclass(frozen=True)
class Bridge:
    """What an initializer sees of the layers that a neuron is born between.

    Inputs and units that are dormant themselves are left out.

    Attributes:
        gradient: float of shape `(inputs, units)`, the bridging gradient G = dL/dS of connections
            S that would lead from the inputs of the neuron's layer straight into the units that
            will read it. Of several layers whose outputs are added up, the inputs of one come after
            those of the other; the units of several readers likewise.
        mean_input: float of shape `(inputs,)`, the mean input over the growth data.
        count: how many neurons are to be born.
        mean_incoming, mean_outgoing: floats, mean |w| of the active connections of the neurons'
            layer and of the one that reads it, of several the mean of that, which the birth
            strength is relative to.
        step: how many steps the optimizer had made, 0 without an optimizer.
    """

    gradient: tf.Tensor
    mean_input: tf.Tensor
    count: int
    mean_incoming: float
    mean_outgoing: float
    step: int


@dataclasses.dataclass(frozen=True)
class Birth:
    """The connections of newborn neurons.

    Attributes:
        incoming: float of shape `(inputs, count)`, their weights; read where `wakes_incoming`.
        outgoing: float of shape `(count, units)`, likewise.
        wakes_incoming, wakes_outgoing: bool of the same shapes, which connections wake; every
            neuron needs one of each.
    """

    incoming: tf.Tensor
    outgoing: tf.Tensor
    wakes_incoming: tf.Tensor
    wakes_outgoing: tf.Tensor


class NeuronInitializer(abc.ABC):
    """Gives newborn neurons their connections; write your own by overriding `__call__`.

    Args:
        birth_strength: positive float, alpha: the mean |w| of a neuron's new weights over that of
            the layer's others.

    Attributes:
        keeps_function: whether it promises that the function of the network stays as it was.
    """

    keeps_function: bool = False

    def __init__(self, birth_strength: float = 1.0):
        if not birth_strength > 0:
            raise ValueError(
                f"`birth_strength` must be positive. Received: birth_strength={birth_strength}"
            )
        self.birth_strength = birth_strength

    @abc.abstractmethod
    def __call__(self, bridge: Bridge) -> Birth:
        """Returns the connections of `bridge.count` neurons."""

    def at_strength(self, weights: tf.Tensor, wakes: tf.Tensor, mean: float, axis: int):
        """`weights` where they wake, scaled to `birth_strength * mean` in mean |w| along `axis`."""
        weights = tf.where(wakes, weights, 0)
        number = tf.reduce_sum(tf.cast(wakes, weights.dtype), axis, keepdims=True)
        total = tf.reduce_sum(tf.abs(weights), axis, keepdims=True)
        return weights * tf.math.divide_no_nan(self.birth_strength * mean * number, total)


class BridgingGradient(NeuronInitializer):
    r"""Bridges the pairs of largest |G|, so that the neuron makes a step down G. NeST's own.

    For each of the $\beta M N$ pairs (n, m) of largest $|G_{nm}|$, N inputs and M units,

    $$ \delta = \pm \sqrt{|G_{nm}|}, \quad w^\mathrm{out}_m \mathrel{+}= \delta, \quad
       w^\mathrm{in}_n \mathrel{-}= \mathrm{sign}(G_{nm})\, \delta $$

    with a random sign, a function of (seed, step); then both are scaled to the birth strength.
    One pair alone makes $w^\mathrm{in} w^\mathrm{out}$ have the sign of -G, a step down. Many
    can't all: on random 40 x 20 G of rank 3 the product has the right sign at 70, 56 and 53% of
    the pairs for $\beta$ = 1, 10 and 30%. The loss falls on average, not always, and the function
    of the network changes at birth. Of several neurons at a time, each bridges the next
    $\beta M N$ best pairs.

    Args:
        growth_ratio: float from 0 to 1, beta: the share of all pairs that a neuron bridges, at
            least one pair. Pairs whose G is 0 are left out.
        birth_strength: positive float, alpha; above 0.3 is said to work.
        seed: non-negative integer.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Algorithm 1. The paper was not at hand: the
    sign, and the range of alpha, are second-hand.
    """

    def __init__(self, growth_ratio: float = 0.1, birth_strength: float = 1.0, seed: int = 0):
        super().__init__(birth_strength)
        check_density(growth_ratio, "growth_ratio")
        self.growth_ratio = growth_ratio
        self.seed = checked_integer(seed, "seed", least=0)

    def __call__(self, bridge: Bridge) -> Birth:
        num_inputs, num_units = bridge.gradient.shape
        num_all = num_inputs * num_units
        num_pairs = max(1, exact_count(self.growth_ratio, num_all))
        if bridge.count * num_pairs > num_all:
            raise ValueError(
                f"{bridge.count} neurons of {num_pairs} pairs each need more than the {num_all} "
                f"pairs that there are. Received: growth_ratio={self.growth_ratio}, "
                f"count={bridge.count}. Lower one of them."
            )
        flat = tf.reshape(bridge.gradient, [-1])
        best = as_tensor(largest_first(ranked(tf.abs(flat)), bridge.count * num_pairs))
        gradient = tf.gather(flat, best)
        inputs, units = best // num_units, best % num_units
        neurons = tf.repeat(tf.range(bridge.count, dtype=tf.int64), num_pairs)
        seed = tf.constant([self.seed, bridge.step], tf.int64)
        is_up = tf.random.stateless_uniform(tf.shape(best), seed) < 0.5
        delta = tf.sqrt(tf.abs(gradient)) * tf.where(is_up, 1, tf.cast(-1, gradient.dtype))

        def sums(rows, columns, values, shape):
            return tf.scatter_nd(tf.stack([rows, columns], axis=1), values, shape)

        def wakes(rows, columns, shape):
            return sums(rows, columns, tf.cast(gradient != 0, tf.int32), shape) > 0

        into, out_of = (num_inputs, bridge.count), (bridge.count, num_units)
        wakes_incoming, wakes_outgoing = wakes(inputs, neurons, into), wakes(neurons, units, out_of)
        incoming = sums(inputs, neurons, -tf.sign(gradient) * delta, into)
        outgoing = sums(neurons, units, delta, out_of)
        return Birth(
            self.at_strength(incoming, wakes_incoming, bridge.mean_incoming, axis=0),
            self.at_strength(outgoing, wakes_outgoing, bridge.mean_outgoing, axis=1),
            wakes_incoming,
            wakes_outgoing,
        )


class _BornSilent(NeuronInitializer):
    """Neurons whose outgoing weights are 0, so that the function of the network stays.

    A subclass says in `_directions` what the incoming weights are, up to size and sign.
    """

    keeps_function = True

    def __init__(
        self,
        birth_strength: float = 1.0,
        *,
        num_inputs: int | None = None,
        num_outputs: int | None = None,
    ):
        super().__init__(birth_strength)
        limits = {"num_inputs": num_inputs, "num_outputs": num_outputs}
        self.num_inputs, self.num_outputs = (
            None if limit is None else checked_integer(limit, name)
            for name, limit in limits.items()
        )

    @abc.abstractmethod
    def _directions(self, bridge: Bridge) -> tuple[tf.Tensor, tf.Tensor]:
        """Incoming weights, and how much each outgoing connection promises, as in a `Birth`."""

    def __call__(self, bridge: Bridge) -> Birth:
        incoming, promise = self._directions(bridge)
        wakes_incoming = _largest(incoming, self.num_inputs, axis=0)
        incoming = self.at_strength(incoming, wakes_incoming, bridge.mean_incoming, axis=0)
        # A ReLU unit that the mean input switches off could be born dead.
        at_mean = tf.linalg.matvec(incoming, bridge.mean_input, transpose_a=True)
        largest = tf.gather(
            tf.transpose(incoming), tf.argmax(tf.abs(incoming), axis=0), batch_dims=1
        )
        sign = tf.where(at_mean == 0, tf.sign(largest), tf.sign(at_mean))
        wakes_outgoing = _largest(promise, self.num_outputs, axis=1)
        return Birth(incoming * sign, tf.zeros_like(promise), wakes_incoming, wakes_outgoing)


class SingularVectors(_BornSilent):
    r"""The directions in which new outgoing weights get the largest gradient. GradMax.

    Of the singular value decomposition $G = \sum_j \sigma_j a_j b_j^T$ of the bridging gradient,
    the j-th neuron gets $w^\mathrm{in} \propto a_j$ and $w^\mathrm{out} = 0$. The function of the
    network stays as it was, and to first order in a unit near the identity the gradient of its
    outgoing weights is $G^T w^\mathrm{in}$: among incoming weights of a given length, orthogonal
    to those of the other newborns, singular vectors make it largest. The sign is chosen so that
    the mean input switches the unit on.

    It is the mirror image of the paper's closed form, which starts incoming weights at 0 and takes
    outgoing ones from the other singular vectors: with incoming weights of 0 a ReLU unit stands
    where Keras takes its derivative to be 0, and would never learn.

    Args:
        birth_strength: positive float, alpha, for incoming weights.
        num_inputs: how many incoming connections of a neuron wake, those of largest weight; by
            default all.
        num_outputs: how many outgoing connections wake, those of largest $|b_j|$; by default all.

    Reference: Evci et al., "GradMax: Growing Neural Networks using Gradient Information",
    arXiv:2201.05125. The paper was not at hand; what it does is said from recollection.
    """

    def _directions(self, bridge: Bridge) -> tuple[tf.Tensor, tf.Tensor]:
        gradient = tf.cast(bridge.gradient, tf.float64)
        # The smaller of the two Gram matrices, in float64, because it squares singular values.
        is_tall = gradient.shape[0] >= gradient.shape[1]
        gram = tf.matmul(gradient, gradient, transpose_a=is_tall, transpose_b=not is_tall)
        squares, vectors = tf.linalg.eigh(gram)
        rank = int(tf.math.count_nonzero(squares > _LEAST_SINGULAR_VALUE**2 * squares[-1]))
        if bridge.count > rank:
            raise ValueError(
                f"The bridging gradient, of shape {tuple(gradient.shape)}, has {rank} singular "
                f"directions, one for each neuron. Received: count={bridge.count}. Grow at most "
                f"{rank} at a time and train in between, or use another initializer."
            )
        leading = tf.reverse(vectors[:, -bridge.count :], axis=[1])
        others = tf.matmul(gradient, leading, transpose_a=not is_tall)
        others, _ = tf.linalg.normalize(others, axis=0)
        incoming, outgoing = (others, leading) if is_tall else (leading, others)
        dtype = bridge.gradient.dtype
        return tf.cast(incoming, dtype), tf.cast(tf.transpose(outgoing), dtype)


class RandomWeights(_BornSilent):
    """Random incoming weights, outgoing weights of 0: the control of experiments on neurons.

    They are a function of (seed, step); the sign is chosen as in `SingularVectors`.

    Args:
        birth_strength, num_inputs, num_outputs: as in `SingularVectors`; which connections wake is
            random.
        seed: non-negative integer.
    """

    def __init__(
        self,
        birth_strength: float = 1.0,
        *,
        num_inputs: int | None = None,
        num_outputs: int | None = None,
        seed: int = 0,
    ):
        super().__init__(birth_strength, num_inputs=num_inputs, num_outputs=num_outputs)
        self.seed = checked_integer(seed, "seed", least=0)

    def _directions(self, bridge: Bridge) -> tuple[tf.Tensor, tf.Tensor]:
        num_inputs, num_units = bridge.gradient.shape
        dtype, seed = bridge.gradient.dtype, tf.constant([self.seed, bridge.step], tf.int64)
        shapes = (num_inputs, bridge.count), (bridge.count, num_units)
        incoming, promise = (
            tf.random.stateless_normal(shape, tf.random.fold_in(seed, part), dtype=dtype)
            for part, shape in enumerate(shapes)
        )
        return incoming, promise


def _largest(weights: tf.Tensor, limit: int | None, axis: int) -> tf.Tensor:
    """True at the `limit` entries of largest |w| along `axis`; ties go to the lower index."""
    size = weights.shape[axis]
    if limit is None or limit >= size:
        return tf.ones(tf.shape(weights), bool)
    magnitude = tf.abs(weights if axis == 1 else tf.transpose(weights))
    _, best = tf.math.top_k(magnitude, limit)
    chosen = tf.reduce_any(tf.one_hot(best, size, on_value=True, off_value=False), axis=1)
    return chosen if axis == 1 else tf.transpose(chosen)
