"""ScheduledChange: any verb inside `model.fit`, at certain moments."""

import abc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_grow.as_it_was import Snapshot
from keras_grow.callbacks.copyable import CopyableCallback
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.connections.amounts import CapacityUsedUp, NothingToChange
from keras_grow.keras_private import step_counter
from keras_grow.optimizer_slots import steps_made

# What models were before the batch that is about to be trained, if something changed before it.
# One state serves all callbacks of a training: they change the model one after the other.
_before_batch: weakref.WeakKeyDictionary[keras.Model, Snapshot] = weakref.WeakKeyDictionary()
# The callbacks of the last training of each model.
_of_model: weakref.WeakKeyDictionary[keras.Model, weakref.WeakSet] = weakref.WeakKeyDictionary()


def take_back(model: keras.Model) -> None:
    """Undoes what was changed before a batch that there was not, before the model is saved."""
    for callback in _of_model.get(model, ()):
        if callback.model is model:  # It may have trained another one since.
            callback.take_back()


class Scheduled(CopyableCallback, abc.ABC):
    """Changes the model before certain epochs or steps, and logs what it did.

    It acts before epochs or steps, never after: what a checkpoint saves is then the network
    that was measured, and nothing is grown and never trained. It keeps no state that a resumed
    run would miss: what it does is a function of the epoch, or of the optimizer's step.

    Of data whose length is not known Keras begins a batch more than there is, and only then finds
    out. A change before such a batch is taken back, and made before the next epoch's first step.

    Args:
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second.
    """

    _OF_A_RUN = ("_records", "_records_before", "_last_begin", "_steps_ended")

    def __init__(self, when: Epochs | Steps | None = None):
        super().__init__()
        self.when = Epochs() if when is None else when
        if not isinstance(self.when, (Epochs, Steps)):
            raise TypeError(
                f"`when` must be a keras_grow.Epochs or a keras_grow.Steps. Received: when={when!r}"
            )
        self._has_warned = False

    @abc.abstractmethod
    def _change(self, moment: int) -> Any:
        """Makes the change at an epoch or step; returns its record, if there is one."""

    @abc.abstractmethod
    def _log(self, logs: dict) -> None:
        """Adds to an epoch's logs what was done in it."""

    def on_train_begin(self, logs=None):
        self._records: list[Any] = []
        self._num_due = 0
        self._moments: list[int] = []
        self._last_begin: int | None = None
        self._records_before: list[Any] | None = None
        self._is_in_batch = False
        self._steps_ended: tf.Tensor | None = None
        _before_batch.pop(self.model, None)
        _of_model.setdefault(self.model, weakref.WeakSet()).add(self)
        # A subclassed model may be built, and have its layers, only after the first batch.
        if self.model.built:
            self._check()

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
        self.take_back()

    def on_epoch_end(self, epoch, logs=None):
        self.take_back()
        if logs is not None:
            self._log(logs)

    def on_train_end(self, logs=None):
        if isinstance(self.when, Steps):
            self._moments.append(steps_made(self.model.optimizer))
        is_over = (
            self.when.stop is not None and self._moments and self._moments[0] >= self.when.stop
        )
        if self._num_due or self._has_warned or is_over or not self._moments:
            return
        self._has_warned = True
        if isinstance(self.when, Epochs):
            trained = f"epochs {self._moments[0]} to {self._moments[-1]}, counted from 0"
        else:
            trained = f"steps {self._moments[0]} to {self._moments[-1]}"
        warnings.warn(
            f"{type(self).__name__} never fell due. Received: when={self.when}, and a training of "
            f"{trained}.{self._asked()} Train for longer, or let `when` start earlier.",
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

    def _check(self) -> None:
        """Raises before the first epoch what the change would raise later."""

    def _asked(self) -> str:
        """What was asked for and reached, for the warning; a sentence with a space before it."""
        return ""

    def _state(self) -> Snapshot:
        """What a change may touch."""
        variables = list(self.model.variables)
        # Numbers such as the learning rate are other callbacks' business.
        if self.model.optimizer is not None:
            variables += [slot for slot in self.model.optimizer.variables if slot.shape]
        return Snapshot(variables)

    def take_back(self) -> None:
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

    def _change_at(self, moment: int) -> None:
        self._num_due += 1
        try:
            record = self._change(moment)
        except CapacityUsedUp as error:
            warnings.warn(str(error), stacklevel=2)
        except NothingToChange:
            return
        else:
            if record is not None:
                self._records.append(record)


class ScheduledChange(Scheduled):
    """Any change of a model in `model.fit`, before certain epochs or steps.

    Into each epoch's logs go `changed` and `change_seconds`, how much was changed and how long
    that took; put this callback before those that read logs or save the model. It acts before
    epochs or steps, so that a checkpoint holds the network that was measured. It can be copied and
    pickled, if `change` can, and takes no model along.

    Args:
        change: called as `change(model, moment)` with the epoch, or the optimizer's step; returns
            what the verb returned, which has a `count` and `seconds`, or `None`. Nothing happens
            where it raises `keras_grow.errors.NothingToChange`. It keeps the shapes of variables,
            as `grow`, `prune`, `grow_neurons` and `prune_neurons` do.
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second.

    Example:

    ```python
    def prune_two(model, epoch):
        return keras_grow.prune_neurons(model, count=2, data=(x,))


    model.fit(x, y, epochs=9, callbacks=[keras_grow.ScheduledChange(prune_two)])
    ```
    """

    def __init__(
        self, change: Callable[[keras.Model, int], Any], when: Epochs | Steps | None = None
    ):
        super().__init__(when)
        if not callable(change):
            raise TypeError(
                f"`change` must be a function of the model and the moment. Received: {change!r}"
            )
        self.change = change

    def _change(self, moment):
        return self.change(self.model, moment)

    def _log(self, logs):
        logs["changed"] = sum(record.count for record in self._records)
        logs["change_seconds"] = sum(record.seconds for record in self._records)
