"""Growth that judges a random sample of the dormant connections, not all of them."""

import dataclasses
import numbers

import numpy as np
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.search.tiled_search import TiledSearch


@dataclasses.dataclass(frozen=True)
class SampledSearch(TiledSearch):
    """Growth chooses the best of dormant connections drawn at random, evenly.

    The time then follows the active connections, not the kernel: of a kernel with a hundred
    thousand times as many dormant ones too. Records say that the search is incomplete. Masked
    layers are searched in the same way.

    Args:
        max_bytes, max_seconds, tile_shape, verbose: as in `keras_grow.TiledSearch`; the latter
            three have no part in it.
        ratio: positive number, how many candidates are drawn for each active connection of a
            layer; at least as many as grow.
        seed: non-negative integer; a draw is a function of (seed, step, layer).

    Raises:
        ValueError: for numbers out of range.

    Reference: Heddes et al., "Always-Sparse Training by Growing Connections with Guided Stochastic
    Exploration", arXiv:2401.06898, with uniform draws.
    """

    ratio: float = 1.0
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.ratio, numbers.Real) or not self.ratio > 0:
            raise ValueError(f"`ratio` must be a positive number. Received: ratio={self.ratio!r}")
        object.__setattr__(self, "seed", checked_integer(self.seed, "seed", least=0))

    def draw(
        self, active: np.ndarray, num_connections: int, count: int, layer_index: int, step: int
    ) -> tf.Tensor:
        """Dormant connections to choose from.

        Args:
            active: int64, ascending flat indices of those that are active.
            num_connections: how many connections the kernel has.
            count: how many are to be chosen.
            layer_index, step: see `Connections`.

        Returns:
            int64 of shape `(candidates,)`, ascending flat indices.
        """
        num_dormant = num_connections - len(active)
        wanted = min(num_dormant, max(count, round(self.ratio * len(active))))
        random = np.random.default_rng([self.seed, step, layer_index])
        # The i-th dormant connection: i plus the active ones before it.
        drawn = random.choice(num_dormant, wanted, replace=False, shuffle=False)
        drawn.sort()
        before = active - np.arange(len(active))
        return tf.constant(drawn + np.searchsorted(before, drawn, side="right"), tf.int64)
