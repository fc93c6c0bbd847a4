"""A recipe of synthesis: what is grown and pruned, how far, and when it ends."""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_grow.integers import checked_integer
from keras_grow.neurons.initializers import NeuronInitializer
from keras_grow.policies.scores import ActivationMagnitude, GradientMagnitude, Score
from keras_grow.policies.start_values import StartValue

Judgment = Callable[[Mapping[str, float]], bool]
"""A function of the logs of an epoch, metrics of validation data included."""


@dataclasses.dataclass(frozen=True)
class GrowthPhase:
    """Training while connections and neurons grow, a part before each epoch but the first.

    Args:
        density: the density to reach, in (0, 1], of all growable layers together.
        epochs: positive integer, how long; the density rises linearly.
        neurons: how many neurons are born in all, by the names of layers, into their dormant
            units (`keras_grow.widen` makes room). Their connections count in the density.
        neuron_initializer: chooses these, by default
            `keras_grow.neuron_initializers.BridgingGradient()`.
        until: growth, and the phase, end after the first epoch for whose logs this is true, such
            as `lambda logs: logs["val_accuracy"] > 0.98`; by default after all epochs.
        score, start_value: see `keras_grow.grow`.
    """

    density: float = 0.3
    epochs: int = 9
    until: Judgment | None = None
    score: Score = dataclasses.field(default_factory=GradientMagnitude)
    start_value: StartValue | None = None
    neurons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    neuron_initializer: NeuronInitializer | None = None

    def __post_init__(self):
        _check_density(self.density)
        _check_epochs(self.epochs, 1, "epochs")
        if self.neurons and self.epochs == 1:
            raise ValueError(
                "Neurons are born before each epoch but the first. Received: epochs=1, "
                f"neurons={self.neurons}"
            )


@dataclasses.dataclass(frozen=True)
class PruningStage:
    """Pruning to a density in rounds of an epoch each, then retraining.

    The density falls along a cubic curve (Zhu & Gupta, arXiv:1710.01878, equation 1): fast while
    many connections are left, slowly at the end.

    Args:
        density: the density to reach, in (0, 1): of all growable layers together. As in
            `keras_grow.prune`, each layer keeps its last connection.
        pruning_epochs: positive integer, the rounds of pruning, an epoch of training each.
        retraining_epochs: non-negative integer, how long the network trains on as it is.
        score: what ranks connections, by default `keras_grow.scores.ActivationMagnitude()`.
        removes_dead_neurons: whether the stage ends with `keras_grow.remove_dead_neurons`, which
            leaves the function as it was and may leave fewer connections than `density`, and
            layers without any.
    """

    density: float
    pruning_epochs: int = 12
    retraining_epochs: int = 18
    score: Score = dataclasses.field(default_factory=ActivationMagnitude)
    removes_dead_neurons: bool = True

    def __post_init__(self):
        _check_density(self.density)
        _check_epochs(self.pruning_epochs, 1, "pruning_epochs")
        _check_epochs(self.retraining_epochs, 0, "retraining_epochs")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What `synthesize` does: a growth phase, then stages of pruning.

    Args:
        growth: the growth phase, or `None` for none: for a model that is dense already.
        stages: the stages of pruning, each sparser than the one before.
        accept: judges the last logs of a stage. At the first stage that is not accepted the
            recipe ends, and the network of the stage before comes back. By default all stages
            are made. NeST prunes on as long as retraining restores the accuracy, which is
            `lambda logs: logs["val_accuracy"] >= 0.98`.
    """

    growth: GrowthPhase | None = dataclasses.field(default_factory=GrowthPhase)
    stages: Sequence[PruningStage] = ()
    accept: Judgment | None = None

    def __post_init__(self):
        densities = [stage.density for stage in self.stages]
        if any(a <= b for a, b in itertools.pairwise(densities)):
            raise ValueError(
                "Each stage must be sparser than the one before. "
                f"Received: stages of densities {densities}"
            )

    @classmethod
    def to_density(cls, density: float, grown_density: float = 0.3, **settings: Any) -> "Recipe":
        """A recipe that grows to one density and halves it, stage by stage, down to another.

        Args:
            density: the density to end with.
            grown_density: the density to grow to, above it.
            **settings: of each `PruningStage`.
        """
        _check_density(density)
        if not density < grown_density <= 1:
            raise ValueError(
                "The recipe must end sparser than growth leaves the network. "
                f"Received: density={density}, grown_density={grown_density}"
            )
        num_stages = max(1, round(math.log2(grown_density / density)))
        densities = np.geomspace(grown_density, density, num_stages + 1)[1:]
        stages = [PruningStage(float(d), **settings) for d in densities]
        return cls(GrowthPhase(grown_density), stages)


def _check_density(density: float) -> None:
    if isinstance(density, bool) or not isinstance(density, numbers.Real) or not 0 < density <= 1:
        raise ValueError(
            f"`density` must be a number above 0 and at most 1. Received: density={density!r}"
        )


def _check_epochs(epochs: int, least: int, name: str) -> None:
    checked_integer(epochs, name, least)
