"""GrowthCallback: growth inside `model.fit`."""

from collections.abc import Sequence
from typing import Any

from keras_grow.callbacks.amounts import Schedule
from keras_grow.callbacks.connections import Amounts, ConnectionChange
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.quiet import search_as_quiet_as_fit
from keras_grow.connections.acted_on import check_policy
from keras_grow.connections.growing import grow
from keras_grow.connections.record import ChangeRecord
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.scores import Score
from keras_grow.policies.start_values import StartValue
from keras_grow.search.tiled_search import TiledSearch


class GrowthCallback(ConnectionChange):
    """Calls `keras_grow.grow` while `model.fit` trains.

    Growth never traces the compiled training step again. Into each epoch's logs go
    `connections` and `density` at its end, and `grown_connections`, `growth_seconds` and
    `growth_loss` (the loss on the growth data at its last growth, NaN without one) of the epoch, so
    that History, the progress bar, TensorBoard, CSVLogger and EarlyStopping see them; put this
    callback before those in the list. A callback that never fell due in a training says so at its
    end. It can be copied (`copy.deepcopy`, which shares the data) and pickled (with arrays as
    data), and takes no model along.

    Args:
        data: growth data, as in `keras_grow.grow`. A callback cannot see the data of `fit`. It is
            read at each growth: a generator would be empty the second time.
        count: how many connections to grow each time: an integer, or a callable of the epoch or
            step that returns one.
        density: instead of `count`, the density to reach: a number from 0 to 1, a callable of the
            epoch or step such as a `keras.optimizers.schedules.LearningRateSchedule`, or a
            distribution such as `keras_grow.densities.ErdosRenyi`. Nothing is grown at moments at
            which the network is as dense already.
        pattern: as in `keras_grow.grow`, beside one of these or alone.
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second.
        per_layer, layers, score, start_value, meter, search: as in `keras_grow.grow`.

    Example:

    ```python
    # From 10% to 30% over epochs 1 to 8.
    density = keras.optimizers.schedules.PolynomialDecay(0.1, 8, end_learning_rate=0.3)
    model.fit(
        x, y, epochs=20, callbacks=[keras_grow.GrowthCallback((x, y), density=density)]
    )
    ```
    """

    _participle = "grown"
    _noun = "growth"

    def __init__(
        self,
        data: Any = None,
        *,
        count: Schedule | None = None,
        density: Schedule | DensityDistribution | None = None,
        pattern: Pattern | None = None,
        when: Epochs | Steps | None = None,
        per_layer: bool = False,
        layers: Sequence[str | Growable] | None = None,
        score: Score | None = None,
        start_value: StartValue | None = None,
        meter: GradientMeter | None = None,
        search: TiledSearch | None = None,
    ):
        if pattern is not None:
            check_policy(pattern, Pattern, "pattern")
        amounts: Amounts = {"count": count, "density": density}
        if pattern is not None and count is None and density is None:
            amounts = {"pattern": pattern}
        super().__init__(amounts, when, layers)
        self.data = data
        self.pattern = pattern
        self.per_layer = per_layer
        self.score = score
        self.start_value = start_value
        self.meter = GradientMeter() if meter is None else meter
        self.search = search

    def _change_by(self, moment: int, **amount) -> ChangeRecord:
        return grow(
            self.model,
            self.data,
            **{"pattern": self.pattern} | amount,
            per_layer=self.per_layer,
            layers=self.layers,
            score=self.score,
            start_value=self.start_value,
            meter=self.meter,
            search=search_as_quiet_as_fit(self.params, self.search),
        )

    def _log(self, logs):
        super()._log(logs)
        logs["growth_loss"] = self._loss_before()
