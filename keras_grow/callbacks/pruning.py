"""PruningCallback: pruning inside `model.fit`."""

from collections.abc import Sequence
from typing import Any

from keras_grow.callbacks.amounts import Schedule
from keras_grow.callbacks.connections import ConnectionChange
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.connections.acted_on import check_policy
from keras_grow.connections.pruning import prune
from keras_grow.connections.record import ChangeRecord
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.scores import Score


class PruningCallback(ConnectionChange):
    """Calls `keras_grow.prune` while `model.fit` trains.

    Pruning never traces the compiled training step again. Into each epoch's logs go
    `connections` and `density` at its end, and `pruned_connections` and `pruning_seconds` of the
    epoch; put this callback before those that read logs.

    Args:
        count: how many connections to prune each time: an integer, or a callable of the epoch or
            step that returns one.
        density: instead of `count`, the density to reach: a number from 0 to 1, a callable of the
            epoch or step, or a distribution such as `keras_grow.densities.ErdosRenyi`. Nothing is
            pruned at moments at which the network is as sparse already.
        threshold: instead of these, the score below which connections are pruned: a number, or a
            callable of the epoch or step.
        pattern: instead of these, what each layer's connections must lie in, such as
            `keras_grow.patterns.NM(2, 4)`.
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second.
        per_layer, layers, score, data, meter: as in `keras_grow.prune`.

    Example:

    ```python
    # The cubic schedule of Zhu & Gupta (arXiv:1710.01878), from 100% to 5% over epochs 1 to 10.
    density = keras.optimizers.schedules.PolynomialDecay(
        1.0, 10, end_learning_rate=0.05, power=3.0
    )
    model.fit(x, y, epochs=20, callbacks=[keras_grow.PruningCallback(density=density)])
    ```
    """

    _participle = "pruned"
    _noun = "pruning"

    def __init__(
        self,
        *,
        count: Schedule | None = None,
        density: Schedule | DensityDistribution | None = None,
        threshold: Schedule | None = None,
        pattern: Pattern | None = None,
        when: Epochs | Steps | None = None,
        per_layer: bool = False,
        layers: Sequence[str | Growable] | None = None,
        score: Score | None = None,
        data: Any = None,
        meter: GradientMeter | None = None,
    ):
        if pattern is not None:
            check_policy(pattern, Pattern, "pattern")
        amounts = {"count": count, "density": density, "threshold": threshold, "pattern": pattern}
        super().__init__(amounts, when, layers)
        self.per_layer = per_layer
        self.score = score
        self.data = data
        self.meter = GradientMeter() if meter is None else meter

    def _change_by(self, moment: int, **amount) -> ChangeRecord:
        return prune(
            self.model,
            **amount,
            per_layer=self.per_layer,
            layers=self.layers,
            score=self.score,
            data=self.data,
            meter=self.meter,
        )
