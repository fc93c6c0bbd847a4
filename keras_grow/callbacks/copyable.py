"""Callbacks that can be copied and pickled before and after `fit`, as tuners do for each trial."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_grow.keras_private import MODEL_OF_A_CALLBACK
from keras_grow.measuring.gradients import GradientMeter


class CopyableCallback(keras.callbacks.Callback):
    """A callback whose copies have its settings, and neither a model nor an unfinished run.

    `copy.deepcopy` shares what the settings refer to: growth data, schedules, scores. What the
    callback has recorded is copied. Pickling carries arrays; it refuses datasets and generators,
    which can't be carried, by name.
    """

    _OF_A_RUN: tuple[str, ...] = ()
    """Names of attributes that are `None` outside of `fit`."""
    _RECORDED: tuple[str, ...] = ()
    """Names of attributes that hold what has been recorded."""

    def __deepcopy__(self, memo: dict) -> "CopyableCallback":
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for name, value in self._settings().items():
            is_own = name in self._RECORDED or isinstance(value, GradientMeter)
            made.__dict__[name] = copy.deepcopy(value, memo) if is_own else value
        return made

    def __getstate__(self) -> dict[str, Any]:
        settings = self._settings()
        for name, value in settings.items():
            if isinstance(value, tf.data.Dataset | Iterator):
                raise pickle.PicklingError(
                    f"A {type(value).__name__} can't be pickled. Received: `{name}` of a "
                    f"{type(self).__name__}. Pass arrays, or a `keras.utils.PyDataset` that can be "
                    "pickled."
                )
        return settings

    def _settings(self) -> dict[str, Any]:
        of_a_run = (*MODEL_OF_A_CALLBACK, *self._OF_A_RUN)
        return {name: None if name in of_a_run else value for name, value in vars(self).items()}
