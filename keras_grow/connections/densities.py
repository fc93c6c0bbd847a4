"""Densities: exact counts, seed masks, and how a total is shared among layers."""

import abc
import math
from collections.abc import Sequence

import numpy as np


def check_density(density: float, name: str = "density") -> None:
    """Raises `ValueError` unless `density` is a number in [0, 1]; `name` is for the message."""
    is_number = isinstance(density, (int, float, np.integer, np.floating))
    if isinstance(density, bool) or not is_number or not 0 <= density <= 1:
        raise ValueError(
            f"`{name}` must be a number from 0 (every connection dormant) to 1 (every connection "
            f"active). Received: {name}={density!r}"
        )


def exact_count(density: float, num_connections: int) -> int:
    """How many of `num_connections` are active at `density`: the nearest integer, halves up."""
    return min(num_connections, math.floor(density * num_connections + 0.5))


def seed_mask(shape: tuple[int, ...], count: int, seed: int | None = None) -> np.ndarray:
    """A random mask with exactly `count` active connections.

    Every unit (index of the last axis) has at least one active input where `count` allows it.
    Below that, no unit has more than one.

    Args:
        shape: the kernel's shape, units last.
        count: integer from 0 to the number of connections.
        seed: integer, for the same mask on every machine. `None` draws a seed from NumPy's
            global generator, which `keras.utils.set_random_seed` seeds.

    Returns:
        A bool array of `shape`.
    """
    if seed is None:
        seed = np.random.randint(2**31)
    random = np.random.default_rng(seed)
    num_connections, units = math.prod(shape), shape[-1]
    mask = np.zeros((num_connections // units, units), bool)
    fed_units = random.permutation(units)[:count]
    mask[random.integers(mask.shape[0], size=len(fed_units)), fed_units] = True
    open_places = np.flatnonzero(~mask)
    chosen = random.choice(open_places, count - len(fed_units), replace=False, shuffle=False)
    mask.reshape(-1)[chosen] = True
    return mask.reshape(shape)


class DensityDistribution(abc.ABC):
    """Shares a total density among layers.

    Args:
        density: the density of all connections together, from 0 to 1.
    """

    def __init__(self, density: float):
        check_density(density)
        self.density = density

    @abc.abstractmethod
    def __call__(self, shapes: Sequence[tuple[int, ...]]) -> list[float]:
        """Returns the density of each kernel, given the kernels' shapes, units last."""


class Uniform(DensityDistribution):
    """Every layer has the same density."""

    def __call__(self, shapes: Sequence[tuple[int, ...]]) -> list[float]:
        return [self.density] * len(shapes)


class ErdosRenyi(DensityDistribution):
    """A layer's density is proportional to the sum of its kernel's sides over their product.

    Small layers get more, large layers less; a layer that would get more than 1 gets 1, and the
    rest is shared anew. For a dense kernel that is `(inputs + units) / (inputs * units)`; for a
    convolution kernel all four sides count, which the literature calls ERK.

    Reference: Mocanu et al., arXiv:1707.04780; Evci et al., "Rigging the Lottery",
    arXiv:1911.11134, section 3.
    """

    def __call__(self, shapes: Sequence[tuple[int, ...]]) -> list[float]:
        sizes = [math.prod(shape) for shape in shapes]
        raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
        full: set[int] = set()
        while True:
            rest = [i for i in range(len(shapes)) if i not in full]
            budget = self.density * sum(sizes) - sum(sizes[i] for i in full)
            scale = budget / sum(raw[i] * sizes[i] for i in rest) if rest else 0.0
            overfull = {i for i in rest if scale * raw[i] > 1}
            if not overfull:
                break
            full |= overfull
        return [1.0 if i in full else scale * raw[i] for i in range(len(shapes))]
