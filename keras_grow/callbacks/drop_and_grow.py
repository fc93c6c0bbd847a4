"""DropAndGrowCallback: connections that go and come inside `model.fit`."""

from collections.abc import Sequence
from typing import Any

from keras_grow.callbacks.amounts import Schedule
from keras_grow.callbacks.connections import ConnectionChange, value_at
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.quiet import search_as_quiet_as_fit
from keras_grow.connections.acted_on import check_policy
from keras_grow.connections.drop_and_grow import drop_and_grow
from keras_grow.connections.record import ExchangeRecord
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern
from keras_grow.policies.sparse_training import Method
from keras_grow.search.tiled_search import TiledSearch

# As many as a mean gradient needs to be better than one batch's.
_NUM_SAMPLES = 1000


class DropAndGrowCallback(ConnectionChange):
    """Calls `keras_grow.drop_and_grow` while `model.fit` trains: dynamic sparse training.

    The compiled training step is never traced again. Into each epoch's logs go `connections` and
    `density` at its end, and `exchanged_connections`, `exchange_seconds` and `exchange_loss` (the
    loss on the growth data before the last exchange; NaN where none was measured) of the epoch;
    put this callback before those that read logs.

    Args:
        data: growth data, as in `keras_grow.drop_and_grow`; it is read each time.
        fraction: the share of each layer's active connections that are dropped: a number, or a
            callable of the epoch or step; nothing is done where it is 0. RigL's cosine is
            `keras.optimizers.schedules.CosineDecay(0.3, epochs)`.
        density: the density to prune to before: a number, a callable of the epoch or step such as
            `PolynomialDecay(0.5, epochs, end_learning_rate=0.1, power=3)` (the cubic one) or
            `keras_grow.densities.SigmoidDecay(0.5, epochs, 0.1)`, or a distribution; `None` keeps
            the count.
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second. Connections that come in the last epochs have no time to learn: give a `stop`,
            after three quarters of the training say.
        meter: as in `keras_grow.drop_and_grow`, but that by default 1,000 samples are drawn anew
            each time where `data` is a tuple of arrays, so that exchanges take little time.
        method, pattern, per_layer, layers, search: as in `keras_grow.drop_and_grow`.

    Example:

    ```python
    model.fit(
        x,
        y,
        epochs=40,
        callbacks=[
            keras_grow.DropAndGrowCallback(
                method=keras_grow.sparse_training.SET(), when=keras_grow.Epochs(stop=30)
            )
        ],
    )
    ```
    """

    _participle = "exchanged"
    _noun = "exchange"

    def __init__(
        self,
        data: Any = None,
        *,
        fraction: Schedule = 0.3,
        density: Schedule | DensityDistribution | None = None,
        when: Epochs | Steps | None = None,
        method: Method | None = None,
        pattern: Pattern | None = None,
        per_layer: bool = False,
        layers: Sequence[str | Growable] | None = None,
        meter: GradientMeter | None = None,
        search: TiledSearch | None = None,
    ):
        super().__init__({"fraction": fraction}, when, layers)
        if pattern is not None:
            check_policy(pattern, Pattern, "pattern")
        self.data = data
        self.density = density
        self.method = method
        self.pattern = pattern
        self.per_layer = per_layer
        if meter is None:
            # Of other data what is given is measured; a part of it can't be drawn.
            meter = GradientMeter(num_samples=_NUM_SAMPLES if isinstance(data, tuple) else None)
        self.meter = meter
        self.search = search

    def _change_by(self, moment: int, **amount) -> ExchangeRecord | None:
        if amount["fraction"] == 0:
            return None
        return drop_and_grow(
            self.model,
            self.data,
            **amount,
            density=None if self.density is None else value_at(self.density, moment),
            method=self.method,
            pattern=self.pattern,
            per_layer=self.per_layer,
            layers=self.layers,
            meter=self.meter,
            search=search_as_quiet_as_fit(self.params, self.search),
        )

    def _log(self, logs):
        super()._log(logs)
        logs["exchange_loss"] = self._loss_before()
