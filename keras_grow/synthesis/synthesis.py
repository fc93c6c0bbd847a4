"""NeST's whole recipe on one model: growth of connections and neurons, pruning in stages."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_grow.as_it_was import Snapshot
from keras_grow.callbacks.growth import GrowthCallback
from keras_grow.callbacks.moments import Epochs
from keras_grow.callbacks.neurons import NeuronGrowthCallback
from keras_grow.callbacks.pruning import PruningCallback
from keras_grow.integers import checked_integer
from keras_grow.layers.growable import growable_layers
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.neurons.dead import remove_dead_neurons
from keras_grow.synthesis.recipe import GrowthPhase, Judgment, PruningStage, Recipe


@dataclasses.dataclass(frozen=True)
class PhaseRecord:
    """What one phase of a recipe did.

    Attributes:
        name: "growth" or "pruning".
        epochs: how long it trained.
        num_active: active connections of all growable layers at its end.
        density: the same over all connections.
        logs: the logs of its last epoch.
        is_accepted: whether its network was kept.
    """

    name: str
    epochs: int
    num_active: int
    density: float
    logs: dict[str, float] = dataclasses.field(repr=False)
    is_accepted: bool = True


@dataclasses.dataclass(frozen=True)
class SynthesisRecord:
    """What a recipe did; its `str` is a table.

    Attributes:
        phases: a `PhaseRecord` for each, in order.
        history: the logs of every epoch, by name, as Keras's `History` has them; of logs that
            only some phases have, the others are NaN.
        peak_connections: the most active connections of an epoch.
        seconds: wall time.
    """

    phases: tuple[PhaseRecord, ...]
    history: dict[str, list[float]] = dataclasses.field(repr=False)
    peak_connections: int
    seconds: float

    def __str__(self) -> str:
        lines = ["phase      epochs      active  density  last logs"]
        for phase in self.phases:
            shown = {
                name: value
                for name, value in phase.logs.items()
                if name.removeprefix("val_") in ("loss", "accuracy")
            }
            logs = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            lines.append(
                f"{phase.name:9}  {phase.epochs:6}  {phase.num_active:10,}  {phase.density:7.2%}  "
                f"{logs}{'' if phase.is_accepted else ', not accepted'}"
            )
        lines.append(
            f"at most {self.peak_connections:,} active connections, {self.seconds:.0f} seconds"
        )
        return "\n".join(lines)


def synthesize(
    model: keras.Model,
    data: Any,
    recipe: Recipe,
    *,
    growth_data: Any = None,
    validation_data: Any = None,
    batch_size: int = 128,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    meter: GradientMeter | None = None,
    verbose: str | int = "auto",
) -> SynthesisRecord:
    """Grows a compiled model and prunes it in stages, training throughout: NeST's recipe.

    The model should start sparse, from its layers' `initial_density`; NeST starts at 10%. It is
    trained by `model.fit` with the optimizer it was compiled with. The optimizer's learning rate
    holds in the growth phase; in each stage it falls to 0 along half a cosine, and at the end it
    is what it was. (An optimizer with a learning rate schedule of its own keeps that.)

    Args:
        model: a built and compiled model with growable layers, changed in place.
        data: training data: `(x, y)`, `(x, y, sample_weight)`, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches.
        recipe: what to do; see `Recipe`.
        growth_data: what growth measures gradients, and pruning activations, on: a large part of
            the training set, by default `data`.
        validation_data: as in `fit`, for `until` and `accept`.
        batch_size: samples per batch where `data` is a tuple of arrays.
        callbacks: further Keras callbacks, given to every call of `fit`.
        meter: the settings of measurements, by default `keras_grow.GradientMeter()`.
        verbose: as in `fit`.

    Returns:
        A `SynthesisRecord`. `print(keras_grow.report(model))` shows the network.

    Raises:
        TypeError, ValueError: for a model that is not compiled or has no growable layers, a
            recipe that has nothing to do, and data that does not fit.

    Example:

    ```python
    recipe = keras_grow.synthesis.Recipe.to_density(0.03)
    print(keras_grow.synthesis.synthesize(model, (x, y), recipe, validation_data=(x_val, y_val)))
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017: a seed architecture, one growth phase
    (Policy 1), one pruning phase (Policy 4). The paper gives no numbers of epochs; the defaults
    are this package's.
    """
    return _Synthesis(
        model,
        data,
        data if growth_data is None else growth_data,
        GradientMeter() if meter is None else meter,
        {"validation_data": validation_data, "verbose": verbose},
        batch_size,
        list(callbacks),
    ).run(recipe)


class _Synthesis:
    """One run of a recipe."""

    def __init__(self, model, data, growth_data, meter, options, batch_size, callbacks):
        growable_layers(model)
        if not model.compiled:
            raise ValueError(
                "Only a compiled model can be trained. Received: a model that is not compiled. "
                "Call `model.compile` first."
            )
        self._model, self._growth_data, self._meter = model, growth_data, meter
        self._callbacks = callbacks
        self._options = options
        if isinstance(data, tuple):
            names = ("x", "y", "sample_weight")
            batch_size = checked_integer(batch_size, "batch_size")
            self._options = {**options, **dict(zip(names, data)), "batch_size": batch_size}
        else:
            self._options = {**options, "x": data}
        self._epoch = 0
        self._logs: list[dict[str, float]] = []

    def run(self, recipe: Recipe) -> SynthesisRecord:
        started = time.perf_counter()
        phases = [] if recipe.growth is None else [self._grow(recipe.growth)]
        for stage in recipe.stages:
            variables = [*self._model.variables, *self._model.optimizer.variables]
            before = Snapshot(variables, on_host=True)
            phase = self._prune(stage)
            is_accepted = recipe.accept is None or bool(recipe.accept(phase.logs))
            phases.append(dataclasses.replace(phase, is_accepted=is_accepted))
            if not is_accepted:
                before.restore()
                break
        names = dict.fromkeys(name for logs in self._logs for name in logs)
        history = {name: [logs.get(name, math.nan) for logs in self._logs] for name in names}
        peak = max((int(logs["connections"]) for logs in self._logs), default=0)
        return SynthesisRecord(tuple(phases), history, peak, time.perf_counter() - started)

    def _grow(self, phase: GrowthPhase) -> PhaseRecord:
        first, seed_density = self._epoch, self._density()
        share = max(1, phase.epochs - 1)

        def density(epoch: int) -> float:
            return seed_density + (phase.density - seed_density) * min(1, (epoch - first) / share)

        growth = GrowthCallback(
            self._growth_data,
            density=density,
            when=Epochs(start=first + 1),
            score=phase.score,
            start_value=phase.start_value,
            meter=self._meter,
        )
        neurons = [
            NeuronGrowthCallback(
                self._growth_data,
                name,
                _in_parts(count, first + 1, share),
                when=Epochs(start=first + 1),
                initializer=phase.neuron_initializer,
                meter=self._meter,
            )
            for name, count in phase.neurons.items()
        ]
        until = [] if phase.until is None else [_StopWhen(phase.until)]
        # Neurons first: connections then fill up to the density.
        return self._fit("growth", phase.epochs, [*neurons, growth, *until])

    def _prune(self, stage: PruningStage) -> PhaseRecord:
        first, density_before = self._epoch, self._density()

        def density(epoch: int) -> float:
            left = 1 - (epoch - first + 1) / stage.pruning_epochs
            return stage.density + (density_before - stage.density) * left**3

        pruning = PruningCallback(
            density=density,
            when=Epochs(start=first, stop=first + stage.pruning_epochs),
            score=stage.score,
            data=self._growth_data,
            meter=self._meter,
        )
        num_epochs = stage.pruning_epochs + stage.retraining_epochs
        annealing = _CosineAnnealing(first, num_epochs)
        phase = self._fit("pruning", num_epochs, [pruning, annealing])
        if stage.removes_dead_neurons:
            remove_dead_neurons(self._model)
            num_active = sum(layer.num_active for layer in growable_layers(self._model))
            phase = dataclasses.replace(phase, num_active=num_active, density=self._density())
        return phase

    def _fit(self, name: str, num_epochs: int, callbacks: list) -> PhaseRecord:
        history = self._model.fit(
            **self._options,
            initial_epoch=self._epoch,
            epochs=self._epoch + num_epochs,
            callbacks=[*callbacks, *self._callbacks],
        ).history
        num_done = len(history["loss"])
        self._epoch += num_done
        self._logs += [
            {name: float(values[i]) for name, values in history.items()} for i in range(num_done)
        ]
        layers = growable_layers(self._model)
        num_active = sum(layer.num_active for layer in layers)
        return PhaseRecord(name, num_done, num_active, self._density(), self._logs[-1])

    def _density(self) -> float:
        layers = growable_layers(self._model)
        return sum(layer.num_active for layer in layers) / sum(
            layer.num_connections for layer in layers
        )


def _in_parts(count: int, first: int, num_epochs: int) -> Callable[[int], int]:
    """Equal parts of a count for some epochs, the larger ones first; 0 for others."""
    part, rest = divmod(count, num_epochs)

    def in_epoch(epoch: int) -> int:
        number = epoch - first
        return part + (number < rest) if 0 <= number < num_epochs else 0

    return in_epoch


class _StopWhen(keras.callbacks.Callback):
    """Ends `fit` after the first epoch for whose logs a judgment is true."""

    def __init__(self, judgment: Judgment):
        super().__init__()
        self._judgment = judgment

    def on_epoch_end(self, epoch, logs=None):
        if self._judgment(logs or {}):
            self.model.stop_training = True


class _CosineAnnealing(keras.callbacks.Callback):
    """Lets the learning rate fall to 0 along half a cosine, over some epochs.

    It is set before each execution of steps, a function of the epoch and the step in it.
    """

    def __init__(self, first_epoch: int, num_epochs: int):
        super().__init__()
        self._first_epoch, self._num_epochs = first_epoch, num_epochs

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        # A schedule of the optimizer's own can't be set, and is not ours to replace.
        settings = optimizer.get_config()
        settings = settings.get("inner_optimizer", {}).get("config", settings)
        self._peak = None
        if isinstance(settings.get("learning_rate"), (int, float)):
            self._peak = float(optimizer.learning_rate)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._anneal(0.0)

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.params.get("steps")
        if steps:
            self._anneal(batch / steps)

    def on_train_end(self, logs=None):
        if self._peak is not None:
            self.model.optimizer.learning_rate = self._peak

    def _anneal(self, share_of_epoch: float) -> None:
        if self._peak is None:
            return
        done = (self._epoch - self._first_epoch + share_of_epoch) / self._num_epochs
        self.model.optimizer.learning_rate = self._peak * 0.5 * (1 + math.cos(math.pi * done))
