"""What the callbacks share that change connections by a schedule."""

import abc
import math
from collections.abc import Sequence

from keras_grow.callbacks.amounts import Schedule, count_at, sole_amount
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.quiet import as_quiet_as_fit
from keras_grow.callbacks.scheduled import Scheduled
from keras_grow.connections.acted_on import changeable_layers, optimizer_of
from keras_grow.connections.record import ChangeRecord, ExchangeRecord
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.policies.densities import DensityDistribution
from keras_grow.policies.patterns import Pattern

Amounts = dict[str, Schedule | DensityDistribution | Pattern | None]
"""How much to change, by the names of arguments of `grow` or `prune`; one is given."""


class ConnectionChange(Scheduled):
    """Grows or prunes connections by a schedule of one of several amounts."""

    _participle: str
    _noun: str
    meter: GradientMeter

    def __init__(
        self,
        amounts: Amounts,
        when: Epochs | Steps | None,
        layers: Sequence[str | Growable] | None,
    ):
        """Takes how much to change, by the names of arguments of `grow` or `prune`."""
        super().__init__(when)
        self._amount_name, self._amount = sole_amount(amounts)
        self.layers = layers

    @abc.abstractmethod
    def _change_by(self, moment: int, **amount) -> ChangeRecord | ExchangeRecord | None:
        """Makes the change; called with the moment, and one of the amounts by its name."""

    def _change(self, moment):
        if self._amount_name == "count":
            amount = count_at(self._amount, moment)
            if amount == 0:
                return None
        else:
            amount = value_at(self._amount, moment)
        with as_quiet_as_fit(self.params, self.meter):
            return self._change_by(moment, **{self._amount_name: amount})

    def _check(self):
        optimizer_of(self.model, None, changeable_layers(self.model, self.layers))

    def _log(self, logs):
        num_active, num_connections = self._counts()
        logs["connections"] = num_active
        logs["density"] = num_active / num_connections
        logs[f"{self._participle}_connections"] = sum(record.count for record in self._records)
        logs[f"{self._noun}_seconds"] = sum(record.seconds for record in self._records)

    def _loss_before(self) -> float:
        """The loss on the growth data before the last change of the epoch, NaN where none was.

        What an earlier epoch measured is not repeated: a run that is resumed would not know it.
        """
        losses = [record.loss for record in self._records if record.loss is not None]
        return losses[-1] if losses else math.nan

    def _asked(self):
        num_active, num_connections = self._counts()
        return (
            f" Asked for {self._amount_name}={self._amount}; {num_active:,} of "
            f"{num_connections:,} connections are active (density "
            f"{num_active / num_connections:.4g}), as before."
        )

    def _counts(self) -> tuple[int, int]:
        layers = changeable_layers(self.model, self.layers)
        return (
            sum(layer.num_active for layer in layers),
            sum(layer.num_connections for layer in layers),
        )


def value_at(schedule: Schedule | DensityDistribution | Pattern, moment: int):
    """What a schedule says at an epoch or step; a distribution or pattern is the same at all."""
    if isinstance(schedule, DensityDistribution) or not callable(schedule):
        return schedule
    return float(schedule(moment))
