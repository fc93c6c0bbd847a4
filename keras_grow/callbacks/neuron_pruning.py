"""NeuronPruningCallback: neurons that are pruned inside `model.fit`."""

from collections.abc import Sequence
from typing import Any

from keras_grow.callbacks.amounts import Schedule, count_at, sole_amount
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.quiet import as_quiet_as_fit
from keras_grow.callbacks.scheduled import Scheduled
from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.layers.growable import Growable
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.budgets import Budget
from keras_grow.neurons.pruning import prune_neurons
from keras_grow.neurons.scores import NeuronScore


class NeuronPruningCallback(Scheduled):
    """Calls `keras_grow.prune_neurons` while `model.fit` trains.

    Pruning never traces the compiled training step again: pruned units are dormant, and
    `keras_grow.compact` removes them afterwards. Into each epoch's logs go `pruned_neurons` and
    `neuron_pruning_seconds`; put this callback before those that read logs.

    Args:
        data: data to measure outputs on, as in `keras_grow.prune_neurons`. It is read at each
            pruning.
        count: how many units to remove each time: an integer, or a callable of the epoch or step
            that returns one.
        density: instead of `count`, the share of units to leave: a number, or a callable of the
            epoch or step. Nothing is pruned at moments at which the network is that small already.
        threshold: instead of these, the score below which units are removed: a number, or a
            callable of the epoch or step.
        budget: instead of these, how much of the network may be left, with a number or a schedule
            as its share: of the network with all its units, whenever it is asked. Nothing is pruned
            at moments at which the network is within it.
        when: `keras_grow.Epochs(...)` or `keras_grow.Steps(...)`, by default every epoch from the
            second.
        per_group, multiple_of, through_normalization, layers, score, meter: as in
            `keras_grow.prune_neurons`.

    Example:

    ```python
    # Half of the FLOPs, over epochs 1 to 8.
    share = keras.optimizers.schedules.PolynomialDecay(1.0, 8, end_learning_rate=0.5)
    budget = keras_grow.budgets.FLOPs(share)
    pruning = keras_grow.NeuronPruningCallback((x, y), budget=budget)
    model.fit(x, y, epochs=12, callbacks=[pruning])
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 4.
    """

    def __init__(
        self,
        data: Any,
        *,
        count: Schedule | None = None,
        density: Schedule | None = None,
        threshold: Schedule | None = None,
        budget: Budget | None = None,
        when: Epochs | Steps | None = None,
        per_group: bool = False,
        multiple_of: int = 1,
        through_normalization: bool = False,
        layers: Sequence[str | Growable] | None = None,
        score: NeuronScore | None = None,
        meter: GradientMeter | None = None,
    ):
        super().__init__(when)
        amounts = {"count": count, "density": density, "threshold": threshold, "budget": budget}
        self._amount_name, self._amount = sole_amount(amounts)
        if budget is not None:
            check_policy(budget, Budget, "budget")
        self.data = data
        self.per_group = per_group
        self.multiple_of = multiple_of
        self.through_normalization = through_normalization
        self.layers = layers
        self.score = score
        self.meter = GradientMeter() if meter is None else meter

    def _change(self, moment):
        amount = self._amount
        if self._amount_name == "count":
            amount = count_at(amount, moment)
            if amount == 0:
                return None
        elif isinstance(amount, Budget):
            amount = amount.at(moment)
        elif callable(amount):
            amount = float(amount(moment))
        with as_quiet_as_fit(self.params, self.meter):
            return prune_neurons(
                self.model,
                **{self._amount_name: amount},
                per_group=self.per_group,
                multiple_of=self.multiple_of,
                through_normalization=self.through_normalization,
                layers=self.layers,
                score=self.score,
                data=self.data,
                meter=self.meter,
            )

    def _check(self):
        optimizer_of(self.model, None, changeable_layers(self.model, self.layers))

    def _log(self, logs):
        logs["pruned_neurons"] = sum(record.count for record in self._records)
        logs["neuron_pruning_seconds"] = sum(record.seconds for record in self._records)
