"""Densities: exact counts, where a layer starts, and how a total is shared among layers."""

import abc
import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_grow.kernel_axes import KernelAxes


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


def exact_counts(
    densities: Sequence[float],
    sizes: Sequence[int],
    least: Sequence[int] | None = None,
    most: Sequence[int] | None = None,
) -> list[int]:
    """How many connections of each layer are active, at a density for each.

    Each count is the nearest integer. Where that would leave a layer none, it has one, unless its
    density is 0, and the layers with most connections give the difference, so that the total is
    that of the nearest integers; it exceeds them only where no layer has two.

    Args:
        densities: of each layer.
        sizes: how many connections each layer has, active and dormant.
        least: how many stay active whatever the density, 0 by default. Such layers give none.
        most: how many can be active whatever the density, by default all. Such layers give none.
    """
    least = [0] * len(sizes) if least is None else least
    most = sizes if most is None else most
    nearest = [exact_count(density, size) for density, size in zip(densities, sizes, strict=True)]
    counts = [max(a, min(n, b)) for n, a, b in zip(nearest, least, most, strict=True)]
    for i, density in enumerate(densities):
        if counts[i] > 0 or density == 0 or most[i] == 0:
            continue
        counts[i] = 1
        givers = [j for j, n in enumerate(nearest) if counts[j] > max(1, least[j]) and n <= most[j]]
        if givers:
            counts[max(givers, key=counts.__getitem__)] -= 1
    return counts


@keras.saving.register_keras_serializable(package="keras_grow")
@dataclasses.dataclass(frozen=True)
class FanIn:
    """A density said as the mean number of connections that lead into a unit.

    Args:
        connections: positive number.

    Example:

    >>> import keras_grow
    >>> layer = keras_grow.GrowableDense(100, initial_density=keras_grow.densities.FanIn(4))
    >>> layer.build((None, 784))
    >>> layer.num_active
    400
    """

    connections: float

    def __post_init__(self):
        is_number = isinstance(self.connections, (int, float, np.integer, np.floating))
        if isinstance(self.connections, bool) or not is_number or not self.connections > 0:
            raise ValueError(
                "A fan-in must be a positive number of connections per unit. "
                f"Received: {self.connections!r}"
            )

    def density(self, kernel: KernelAxes) -> float:
        """The density of a kernel; at most 1."""
        return min(1.0, self.connections / kernel.fan_in)

    def get_config(self) -> dict:
        """The arguments, for Keras's serialization."""
        return {"connections": self.connections}

    @classmethod
    def from_config(cls, config: dict) -> "FanIn":
        """The inverse of `get_config`."""
        return cls(**config)


def check_initial_density(density: float | FanIn) -> None:
    """Raises `ValueError` unless `density` is a number in [0, 1] or a `FanIn`."""
    if not isinstance(density, FanIn):
        check_density(density, "initial_density")


def initial_count(density: float | FanIn, kernel: KernelAxes) -> int:
    """How many connections of a kernel are active at `density`.

    It is the nearest integer, but at least one unless the density is 0.
    """
    if isinstance(density, FanIn):
        density = density.density(kernel)
    (count,) = exact_counts([density], [kernel.size])
    return count


def seed_connections(kernel: KernelAxes, count: int, seed: int | None = None) -> np.ndarray:
    """Random connections to start with, without an array of the kernel's size.

    Every unit has at least one active input where `count` allows it. Below that, no unit has more
    than one.

    Args:
        kernel: the axes of the kernel.
        count: integer from 0 to the number of connections.
        seed: integer, for the same connections on every machine. `None` draws a seed from
            NumPy's global generator, which `keras.utils.set_random_seed` seeds.

    Returns:
        The flat indices of exactly `count` connections, int64, ascending.
    """
    if seed is None:
        seed = np.random.randint(2**31)
    random = np.random.default_rng(seed)
    if count == kernel.size:
        return np.arange(count)
    fed_units = random.permutation(kernel.num_units)[:count]
    feeding = kernel.into(fed_units, random.integers(kernel.fan_in, size=len(fed_units)))
    feeding.sort()
    # Positions among the places that are still open, in ascending order of places.
    num_open = kernel.size - len(feeding)
    chosen = random.choice(num_open, count - len(feeding), replace=False, shuffle=False)
    # Before the i-th taken place there are feeding[i] - i open ones.
    open_before = feeding - np.arange(len(feeding))
    chosen += np.searchsorted(open_before, chosen, side="right")
    connections = np.concatenate([feeding, chosen])
    connections.sort()
    return connections


def seed_evenly(kernel: KernelAxes, count: int, seed: int | None = None) -> np.ndarray:
    """Random connections to start with, equally many into each unit, or one more into some.

    Args:
        kernel: the axes of the kernel, inputs and units.
        count, seed: see `seed_connections`.

    Returns:
        The flat indices of exactly `count` connections, int64, ascending.
    """
    if seed is None:
        seed = np.random.randint(2**31)
    random = np.random.default_rng(seed)
    counts = np.full(kernel.num_units, count // kernel.num_units)
    counts[random.permutation(kernel.num_units)[: count % kernel.num_units]] += 1
    inputs = [random.choice(kernel.fan_in, n, replace=False, shuffle=False) for n in counts]
    units = np.repeat(np.arange(kernel.num_units), counts)
    return np.sort(kernel.into(units, np.concatenate(inputs)))


def seed_mask(kernel: KernelAxes, count: int, seed: int | None = None) -> np.ndarray:
    """A random mask with exactly `count` active connections, those of `seed_connections`.

    Args:
        kernel, count, seed: see `seed_connections`.

    Returns:
        A bool array of the kernel's shape, True = active.
    """
    mask = np.zeros(kernel.size, bool)
    mask[seed_connections(kernel, count, seed)] = True
    return mask.reshape(kernel.shape)


@keras.saving.register_keras_serializable(package="keras_grow")
class SigmoidDecay(keras.optimizers.schedules.LearningRateSchedule):
    r"""A density that falls slowly at first and at last, and fast in between.

    $$ s(t) = s_f + (s_i - s_f) \, \sigma\big(k (1/2 - t / T)\big) $$

    with $\sigma(x) = 1 / (1 + e^{-x})$, rescaled to start and end exactly at both densities.

    Args:
        initial_density: $s_i$, at 0.
        decay_steps: T, the epoch or step at which it ends; it stays there.
        end_density: $s_f$.
        steepness: k, positive.

    Reference: Zhang et al., arXiv:2501.19107, equation 4, where it does not quite start and end at
    the densities; its k is 6.
    """

    def __init__(
        self,
        initial_density: float,
        decay_steps: int,
        end_density: float,
        steepness: float = 6.0,
    ):
        check_density(initial_density, "initial_density")
        check_density(end_density, "end_density")
        if not decay_steps > 0 or not steepness > 0:
            raise ValueError(
                "`decay_steps` and `steepness` must be positive. Received: "
                f"decay_steps={decay_steps!r}, steepness={steepness!r}"
            )
        self.initial_density, self.end_density = initial_density, end_density
        self.decay_steps, self.steepness = decay_steps, steepness

    def __call__(self, step):
        """The density at an epoch or step."""
        done = min(1.0, max(0.0, float(step) / self.decay_steps))
        start, now, end = (self._sigmoid(self.steepness * (0.5 - t)) for t in (0.0, done, 1.0))
        share = (now - end) / (start - end)
        return self.end_density + (self.initial_density - self.end_density) * share

    @staticmethod
    def _sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def get_config(self) -> dict:
        """The arguments, for Keras's serialization."""
        names = ("initial_density", "decay_steps", "end_density", "steepness")
        return {name: getattr(self, name) for name in names}


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
        """Returns the density of each kernel, given the kernels' shapes."""


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
