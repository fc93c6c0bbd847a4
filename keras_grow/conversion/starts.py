"""Which connections of plain layers are active once they are growable."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.kernel_types import InnerKernel, inner_kernels
from keras_grow.layers.paths import nested_layers
from keras_grow.policies.densities import (
    DensityDistribution,
    Uniform,
    check_density,
    exact_counts,
    initial_count,
    seed_mask,
)


class Starts:
    """The density and the seed of each kernel in some plain layers.

    Args:
        layers: the layers.
        initial_density, seed, zeros_are_dormant: as of `make_growable`.

    Attributes:
        layers: the layers.
        thinned: the layers that lose connections to it.
    """

    def __init__(
        self,
        layers: Sequence[keras.Layer],
        initial_density: float | DensityDistribution,
        seed: Any,
        zeros_are_dormant: bool,
    ):
        if isinstance(initial_density, DensityDistribution):
            distribution = initial_density
        else:
            check_density(initial_density, "initial_density")
            distribution = Uniform(initial_density)
        if zeros_are_dormant and distribution.density != 1:
            raise ValueError(
                "`zeros_are_dormant` says which connections are dormant, and so would "
                "`initial_density`. Received: zeros_are_dormant=True, "
                f"initial_density={initial_density!r}"
            )
        self.layers = list(layers)
        self._zeros_are_dormant = zeros_are_dormant
        kernels = [(layer, kernel) for layer in layers for kernel in _own_kernels(layer, layers)]
        shapes = [tuple(kernel.variable.shape) for _, kernel in kernels]
        densities = _with_exact_total(distribution, shapes)
        seeds: list[int | None] = [None] * len(kernels)
        if seed is not None:
            state = np.random.SeedSequence(checked_integer(seed, "seed", least=0))
            seeds = [int(each) for each in state.generate_state(len(kernels))]
        self._starts: dict[int, list[tuple[float, int | None]]] = {id(x): [] for x in layers}
        for (layer, _), start in zip(kernels, zip(densities, seeds, strict=True), strict=True):
            self._starts[id(layer)].append(start)
        self.thinned = [x for x in layers if any(d < 1 for d, _ in self._starts[id(x)])]

    def __contains__(self, layer: keras.Layer) -> bool:
        return id(layer) in self._starts

    def arguments(self, layer: keras.Layer) -> dict[str, Any]:
        """Those of the growable layer in the place of one with one kernel."""
        ((density, seed),) = self._starts[id(layer)]
        return {"initial_density": density, "seed": seed}

    def mask(self, layer: keras.Layer, kernels: Sequence[Inner]) -> None:
        """Sets the masks of the kernels in a layer, which have all their connections."""
        for kernel, (density, seed) in zip(kernels, self._starts[id(layer)], strict=True):
            if self._zeros_are_dormant:
                kernel.set_mask(kernel.inner.variable.value != 0)
            else:
                count = initial_count(density, kernel.axes)
                kernel.set_mask(seed_mask(kernel.axes, count, seed))


def _own_kernels(layer: keras.Layer, layers: Sequence[keras.Layer]) -> list[InnerKernel]:
    """The kernels in a layer, but for those of others of the layers that it holds."""
    others = {id(each) for each in layers if each is not layer}
    held = [inner for inner in nested_layers(layer) if id(inner) in others]
    taken = {id(inner) for each in held for inner in nested_layers(each)}
    return [kernel for kernel in inner_kernels(layer) if id(kernel.layer) not in taken]


def _with_exact_total(
    distribution: DensityDistribution, shapes: Sequence[tuple[int, ...]]
) -> list[float]:
    """The density of each layer, those of large ones less where small ones keep a connection."""
    densities = distribution(shapes)
    counts = exact_counts(densities, [math.prod(shape) for shape in shapes])
    return [
        density if initial_count(density, KernelAxes(shape)) == count else count / math.prod(shape)
        for density, count, shape in zip(densities, counts, shapes, strict=True)
    ]
