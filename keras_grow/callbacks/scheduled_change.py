"""What GrowthCallback and PruningCallback share."""

import abc
import warnings
import weakref
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_grow.as_it_was import Snapshot
from keras_grow.callbacks.copyable import CopyableCallback
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.quiet import as_quiet_as_fit
from keras_grow.connections.change import (
    CapacityUsedUp,
    ChangeRecord,
    NothingToChange,
    changeable_layers,
    optimizer_of,
)
from keras_grow.integers import checked_integer
from keras_grow.keras_private import step_counter
from keras_grow.layers.growable import growable_layers
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.optimizer_slots import steps_made
from keras_grow.policies.densities import DensityDistribution

Schedule = float | int | Callable[[int], float]
"""A number, or any callable of the epoch or step, `LearningRateSchedule`s included."""


# What models were before the batch that is about to be trained, if something changed before it.
# One state serves all callbacks of a training: they change the model one after the other.
_before_batch: weakref.WeakKeyDictionary[keras.Model, Snapshot] = weakref.WeakKeyDictionary()


class ScheduledChange(CopyableCallback, abc.ABC):
    """Changes the model's connections at certain moments, and logs what it did.

    It acts before epochs or steps, never after: what a checkpoint saves is then the network
    that was measured, and nothing is grown and never trained. It keeps no state that a resumed
    run would miss: what it does is a function of the epoch, or of the optimizer's step.

    Of data whose length is not known Keras begins a batch more than there is, and only then finds
    out. A change before such a batch is taken back, and made before the next epoch's first step.
    """

    _OF_A_RUN = ("_records", "_records_before", "_last_begin", "_steps_ended")
    _participle: str
    _noun: str
    meter: GradientMeter

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
        if self._amount_name == "count" and not callable(self._amount):
            self._amount = checked_integer(self._amount, "count")
        self.when = Epochs() if when is None else when
        if not isinstance(self.when, (Epochs, Steps)):
            raise TypeError(
                f"`when` must be a keras_grow.Epochs or a keras_grow.Steps. Received: when={when!r}"
            )
        self.layers = layers
        self._last_loss = float("nan")
        self._has_warned = False

    @abc.abstractmethod
    def _change(self, **amount) -> ChangeRecord:
        """Grows or prunes; called with `count`, `density` or another of the amounts."""

    def on_train_begin(self, logs=None):
        self._records: list[ChangeRecord] = []
        self._num_due = 0
        self._moments: list[int] = []
        self._last_begin: int | None = None
        self._records_before: list[ChangeRecord] | None = None
        self._is_in_batch = False
        self._steps_ended: tf.Tensor | None = None
        _before_batch.pop(self.model, None)
        # A subclassed model may be built, and have its layers, only after the first batch.
        if self.model.built:
            optimizer_of(self.model, None, changeable_layers(self.model, self.layers))

    def on_epoch_begin(self, epoch, logs=None):
        self._records = []
        self._step_at_epoch_begin = steps_made(self.model.optimizer)
        if isinstance(self.when, Epochs):
            self._moments.append(epoch)
            if self.when.is_due(epoch):
                self._change_at(epoch)
        elif not self._moments:
            self._moments.append(self._step_at_epoch_begin)

    def on_train_batch_begin(self, batch, logs=None):
        if not isinstance(self.when, Steps):
            return
        self._is_in_batch = True
        self._begin = self._step_at_epoch_begin + batch
        if self.when.is_due(self._begin, self._last_execution(batch)):
            if self.model not in _before_batch:
                _before_batch[self.model] = self._state()
            self._records_before = list(self._records)
            self._change_at(self._begin)

    def on_train_batch_end(self, batch, logs=None):
        if not isinstance(self.when, Steps):
            return
        self._is_in_batch, self._last_begin, self._records_before = False, self._begin, None
        _before_batch.pop(self.model, None)
        if self.model.optimizer is not None:
            self._steps_ended = tf.identity(step_counter(self.model.optimizer).value)

    @property
    def async_safe(self) -> bool:
        """For Keras: whether it may tell of the ends of batches late, from another thread."""
        return not isinstance(self.when, Steps)

    def on_test_begin(self, logs=None):
        self._take_back()

    def on_epoch_end(self, epoch, logs=None):
        self._take_back()
        if logs is None:
            return
        layers = changeable_layers(self.model, self.layers)
        num_active = sum(layer.num_active for layer in layers)
        logs["connections"] = num_active
        logs["density"] = num_active / sum(layer.num_connections for layer in layers)
        logs[f"{self._participle}_connections"] = sum(record.count for record in self._records)
        logs[f"{self._noun}_seconds"] = sum(record.seconds for record in self._records)
        self._add_logs(logs)

    def on_train_end(self, logs=None):
        if isinstance(self.when, Steps):
            self._moments.append(steps_made(self.model.optimizer))
        is_over = (
            self.when.stop is not None and self._moments and self._moments[0] >= self.when.stop
        )
        if self._num_due or self._has_warned or is_over or not self._moments:
            return
        self._has_warned = True
        layers = changeable_layers(self.model, self.layers)
        num_active = sum(layer.num_active for layer in layers)
        num_connections = sum(layer.num_connections for layer in layers)
        if isinstance(self.when, Epochs):
            trained = f"epochs {self._moments[0]} to {self._moments[-1]}, counted from 0"
        else:
            trained = f"steps {self._moments[0]} to {self._moments[-1]}"
        warnings.warn(
            f"{type(self).__name__} never fell due. Received: when={self.when}, and a training of "
            f"{trained}. Asked for {self._amount_name}={self._amount}; {num_active:,} of "
            f"{num_connections:,} connections are active (density "
            f"{num_active / num_connections:.4g}), as before. Train for longer, or let `when` "
            "start earlier.",
            stacklevel=2,
        )

    def _last_execution(self, batch: int) -> int:
        """How many steps the execution before this batch made; an epoch's last may be short."""
        if self._last_begin is not None:
            return self._begin - self._last_begin
        full = self.model.steps_per_execution
        steps_per_epoch = self.params.get("steps")
        if batch > 0 or steps_per_epoch is None:
            return full
        return steps_per_epoch % full or full

    def _state(self) -> Snapshot:
        """What a change may touch."""
        layers = growable_layers(self.model)
        variables = [variable for layer in layers for variable in layer.variables]
        # Numbers such as the learning rate are other callbacks' business.
        if self.model.optimizer is not None:
            variables += [slot for slot in self.model.optimizer.variables if slot.shape]
        return Snapshot(variables)

    def _take_back(self) -> None:
        """Undoes a change before a batch that there was not, and that batch's step.

        The optimizer may have counted it, as parts of a step need no data and run before Keras
        finds out; the steps to come, and those of a resumed run, are numbered by its counter.
        """
        if self.model in _before_batch:
            _before_batch.pop(self.model).restore()
        if self._records_before is not None:
            self._records, self._records_before = self._records_before, None
            self._num_due -= 1
        if self._is_in_batch and self._steps_ended is not None:
            step_counter(self.model.optimizer).assign(self._steps_ended)
        self._is_in_batch = False

    def _add_logs(self, logs: dict) -> None:
        """Adds what only one of the callbacks knows."""

    def _change_at(self, moment: int) -> None:
        self._num_due += 1
        amount = _value(self._amount, moment)
        if self._amount_name == "count":
            # A schedule computes in floats: 9.999999 means 10.
            amount = round(amount)
            if amount == 0:
                return
        try:
            with as_quiet_as_fit(self.params, self.meter):
                self._records.append(self._change(**{self._amount_name: amount}))
        except CapacityUsedUp as error:
            warnings.warn(str(error), stacklevel=2)
        except NothingToChange:
            return


def _value(schedule: Schedule | DensityDistribution, moment: int):
    if isinstance(schedule, DensityDistribution) or not callable(schedule):
        return schedule
    return float(schedule(moment))
