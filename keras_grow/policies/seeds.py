"""Seeds: which connections a layer starts with, where even chance is not what is wanted."""

import abc
from typing import Any

import numpy as np
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.densities import seed_connections

# How many numbers a temporary array may hold.
_CHUNK_NUMBERS = 2**22


class Seed(abc.ABC):
    """Chooses connections to start with; write your own by overriding `__call__`."""

    @abc.abstractmethod
    def __call__(self, kernel: KernelAxes, count: int) -> np.ndarray:
        """Chooses exactly `count` connections of a kernel.

        Returns:
            int64 of shape `(count,)`, ascending flat indices.
        """


class Even(Seed):
    """Each connection with the same chance, at least one into each unit where the count allows it.

    This is what layers start with by themselves.

    Args:
        seed: non-negative integer.
    """

    def __init__(self, seed: int = 0):
        self.seed = checked_integer(seed, "seed", least=0)

    def __call__(self, kernel: KernelAxes, count: int) -> np.ndarray:
        return seed_connections(kernel, count, self.seed)


class ReceptiveField(Seed):
    r"""Each unit reads inputs around its own place, the more seldom the further away they are.

    Inputs and units lie on a ring. An input at distance d of the place of a unit is drawn with a
    weight of $(1 + d)^{-(1 - r) / r}$, without replacement; all units get equally many connections,
    but for one.

    Args:
        randomness: r from 0, where each unit reads the nearest inputs, to 1, where all are equal.
        seed: non-negative integer.

    Reference: Zhang et al., arXiv:2501.19107, section 3.2 (bipartite receptive field).
    """

    def __init__(self, randomness: float = 0.3, seed: int = 0):
        if isinstance(randomness, bool) or not 0 <= randomness <= 1:
            raise ValueError(
                f"`randomness` must be a number from 0 to 1. Received: randomness={randomness!r}"
            )
        self.randomness = randomness
        self.seed = checked_integer(seed, "seed", least=0)

    def __call__(self, kernel: KernelAxes, count: int) -> np.ndarray:
        num_inputs, num_units = _sides(kernel)
        random = np.random.default_rng(self.seed)
        fan_in = np.full(num_units, count // num_units)
        fan_in[random.permutation(num_units)[: count % num_units]] += 1
        inputs, chosen = np.arange(num_inputs), [np.zeros(0, np.int64)]
        step = max(1, _CHUNK_NUMBERS // num_inputs)
        for start in range(0, num_units, step):
            units = np.arange(start, min(start + step, num_units))
            place = (units + 0.5) * num_inputs / num_units - 0.5
            away = np.abs(inputs - place[:, None])
            away = np.minimum(away, num_inputs - away)
            key = -away
            if self.randomness:
                # Largest first is a draw without replacement, by Gumbel noise on log weights.
                exponent = (1 - self.randomness) / self.randomness
                key = random.gumbel(size=away.shape) - exponent * np.log1p(away)
            order = np.argsort(-key, axis=1, kind="stable")
            is_taken = inputs < fan_in[units][:, None]
            chosen.append((order * num_units + units[:, None])[is_taken])
        return np.sort(np.concatenate(chosen))


class CorrelatedInputs(Seed):
    """Each unit reads inputs that vary together: those most correlated with an input of its own.

    For a first layer of units. Inputs that never vary are left out.

    Args:
        x: inputs, floats of shape `(samples, inputs)`, or with more axes that are flattened.
        seed: non-negative integer: which input stands for which unit.

    Raises:
        ValueError: for inputs that do not fit the kernel, or do not vary.

    Reference: Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape
    intelligence brain-inspired theory for ultra-sparse advantage in deep learning", ICLR 2024,
    section 3.2 (correlated sparse topological initialization).
    """

    def __init__(self, x: Any, seed: int = 0):
        x = np.asarray(x, np.float32)
        self.correlation = np.abs(_correlation(x.reshape(len(x), -1)))
        self.seed = checked_integer(seed, "seed", least=0)

    def __call__(self, kernel: KernelAxes, count: int) -> np.ndarray:
        num_inputs, num_units = _sides(kernel)
        if len(self.correlation) != num_inputs:
            raise ValueError(
                f"The kernel reads {num_inputs} inputs. Received: correlations of "
                f"{len(self.correlation)}. Name the layer that reads them by `layers=`."
            )
        varies = np.flatnonzero(self.correlation.any(axis=0))
        random = np.random.default_rng(self.seed)
        # Every input that varies stands for about equally many units.
        rounds = -(-num_units // len(varies))
        own = np.concatenate([random.permutation(varies) for _ in range(rounds)])[:num_units]
        scores = self.correlation[:, own].reshape(-1)
        return np.sort(np.argsort(-scores, kind="stable")[:count])


def _sides(kernel: KernelAxes) -> tuple[int, int]:
    if len(kernel.shape) != 2 or not kernel.has_units_last:
        raise ValueError(
            "This seed is for kernels of shape (inputs, units). Received: one of shape "
            f"{kernel.shape}. Name dense layers by `layers=`."
        )
    return kernel.num_inputs, kernel.num_units


def _correlation(x: np.ndarray) -> np.ndarray:
    """Pearson's correlation of columns, 0 where one does not vary: shape `(inputs, inputs)`."""
    centered = x - x.mean(axis=0)
    norms = np.linalg.norm(centered, axis=0)
    if not np.isfinite(norms).all() or not norms.any():
        raise ValueError(
            "Correlations need inputs that are finite, and vary. Received: inputs of shape "
            f"{x.shape}, {int((norms > 0).sum())} of which vary"
        )
    # What varies by rounding alone does not vary.
    norms[norms <= 1e-5 * np.abs(x).max(axis=0) * np.sqrt(len(x))] = np.inf
    unit = centered / norms
    return tf.matmul(unit, unit, transpose_a=True).numpy()
