"""What GrowthCallback and PruningCallback share."""

import abc
import warnings
from collections.abc import Callable

import keras

from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.change import (
    CapacityUsedUp,
    ChangeRecord,
    NothingToChange,
    changeable_layers,
    optimizer_of,
)
from keras_grow.connections.densities import DensityDistribution
from keras_grow.optimizer_slots import steps_made

Schedule = float | int | Callable[[int], float]
"""A number, or any callable of the epoch or step, `LearningRateSchedule`s included."""


class ScheduledChange(abc.ABC, keras.callbacks.Callback):
    """Changes the model's connections at certain moments, and logs what it did.

    It acts before epochs or steps, never after: what a checkpoint saves is then the network
    that was measured, and nothing is grown and never trained. It keeps no state that a resumed
    run would miss: what it does is a function of the epoch, or of the optimizer's step.
    """

    _participle: str
    _noun: str

    def __init__(
        self,
        amounts: dict[str, Schedule | DensityDistribution | None],
        when: Epochs | Steps | None,
        layers,
    ):
        """Takes how much to change, by the names of arguments of `grow` or `prune`."""
        super().__init__()
        given = {name: amount for name, amount in amounts.items() if amount is not None}
        if len(given) != 1:
            names = [f"`{name}`" for name in amounts]
            received = ", ".join(f"{name}={amount}" for name, amount in amounts.items())
            raise ValueError(
                f"Pass exactly one of {', '.join(names[:-1])} and {names[-1]}. Received: {received}"
            )
        ((self._amount_name, self._amount),) = given.items()
        self.when = Epochs() if when is None else when
        if not isinstance(self.when, (Epochs, Steps)):
            raise TypeError(
                f"`when` must be a keras_grow.Epochs or a keras_grow.Steps. Received: when={when!r}"
            )
        self.layers = layers
        self._records: list[ChangeRecord] = []
        self._last_loss = float("nan")

    @abc.abstractmethod
    def _change(self, **amount) -> ChangeRecord:
        """Grows or prunes; called with `count`, `density` or another of the amounts."""

    def on_train_begin(self, logs=None):
        # A subclassed model may be built, and have its layers, only after the first batch.
        if self.model.built:
            optimizer_of(self.model, None, changeable_layers(self.model, self.layers))

    def on_epoch_begin(self, epoch, logs=None):
        self._records = []
        self._step_at_epoch_begin = steps_made(self.model.optimizer)
        if isinstance(self.when, Epochs) and self.when.is_due(epoch):
            self._change_at(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if not isinstance(self.when, Steps):
            return
        step = self._step_at_epoch_begin + batch
        if self.when.is_due(step, self._last_execution(batch)):
            self._change_at(step)

    def _last_execution(self, batch: int) -> int:
        """How many steps the execution before this batch made; an epoch's last may be short."""
        full = self.model.steps_per_execution
        steps_per_epoch = self.params.get("steps")
        if batch > 0 or steps_per_epoch is None:
            return full
        return steps_per_epoch % full or full

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        layers = changeable_layers(self.model, self.layers)
        num_active = sum(layer.num_active for layer in layers)
        logs["connections"] = num_active
        logs["density"] = num_active / sum(layer.num_connections for layer in layers)
        logs[f"{self._participle}_connections"] = sum(record.count for record in self._records)
        logs[f"{self._noun}_seconds"] = sum(record.seconds for record in self._records)
        self._add_logs(logs)

    def _add_logs(self, logs: dict) -> None:
        """Adds what only one of the callbacks knows."""

    def _change_at(self, moment: int) -> None:
        amount = _value(self._amount, moment)
        if self._amount_name == "count":
            amount = int(amount)
            if amount == 0:
                return
        try:
            self._records.append(self._change(**{self._amount_name: amount}))
        except CapacityUsedUp as error:
            warnings.warn(str(error), stacklevel=2)
        except NothingToChange:
            return


def _value(schedule: Schedule | DensityDistribution, moment: int):
    if isinstance(schedule, DensityDistribution) or not callable(schedule):
        return schedule
    return float(schedule(moment))
