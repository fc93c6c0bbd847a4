"""NeuronGrowthCallback: neurons that are born inside `model.fit`."""

from collections.abc import Callable
from typing import Any

from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.quiet import as_quiet_as_fit
from keras_grow.callbacks.scheduled import Scheduled
from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.births import grow_neurons
from keras_grow.neurons.initializers import NeuronInitializer


class NeuronGrowthCallback(Scheduled):
    """Calls `keras_grow.grow_neurons` while `model.fit` trains.

    Births never trace the compiled training step again, as neurons are born into dormant units;
    `keras_grow.widen` makes more of them. Into each epoch's logs go `born_neurons` and
    `birth_seconds`; put this callback before those that read logs.

    Args:
        data: growth data, as in `keras_grow.grow_neurons`. It is read at each birth.
        layer: the path or name of the layer in which they are born, or the layer.
        count: how many each time: an integer, or a callable of the epoch or step that returns one.
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second.
        initializer, meter: as in `keras_grow.grow_neurons`.

    Example:

    ```python
    births = keras_grow.NeuronGrowthCallback((x, y), "hidden", count=5)
    model.fit(x, y, epochs=9, callbacks=[births])
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 2.
    """

    def __init__(
        self,
        data: Any,
        layer: str | Growable,
        count: int | Callable[[int], float] = 1,
        *,
        when: Epochs | Steps | None = None,
        initializer: NeuronInitializer | None = None,
        meter: GradientMeter | None = None,
    ):
        super().__init__(when)
        self.data = data
        self.layer = layer
        self.count = count if callable(count) else checked_integer(count, "count")
        self.initializer = initializer
        self.meter = GradientMeter() if meter is None else meter

    def _change(self, moment):
        count = round(self.count(moment)) if callable(self.count) else self.count
        if count == 0:
            return None
        with as_quiet_as_fit(self.params, self.meter):
            return grow_neurons(
                self.model,
                self.data,
                self.layer,
                count,
                initializer=self.initializer,
                meter=self.meter,
            )

    def _log(self, logs):
        logs["born_neurons"] = sum(record.count for record in self._records)
        logs["birth_seconds"] = sum(record.seconds for record in self._records)
