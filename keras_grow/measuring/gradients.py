"""Growth gradients: dL/dW of every connection, dormant ones included, over the growth data."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.keras_private import compiled_loss
from keras_grow.layers.growable import Growable, check_finite, growable_layers
from keras_grow.layers.observer import observing
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.activities import ActivityRecord, ActivityTap, RowsTap
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.growth_data import batch_size_of
from keras_grow.measuring.loss import check_loss, total_loss, untouched
from keras_grow.search.tiled_gradient import TiledGradient
from keras_grow.search.tiled_search import TiledSearch


@dataclasses.dataclass(frozen=True)
class GrowthGradients:
    """What one pass over the growth data measured.

    Attributes:
        gradients: for each growable layer, its mean dL/dW: a float tensor of its `kernel_shape`,
            or, for a sparse layer, a `TiledGradient` of that shape.
        loss: float, the mean loss over the growth data.
        num_samples: integer, the samples of the growth data.
        batch_size: integer, how many were measured at a time; `None` for data in batches.
    """

    gradients: dict[Growable, tf.Tensor | TiledGradient]
    loss: float
    num_samples: int
    batch_size: int | None = None


class _GrowthTap(ActivityTap):
    """Puts a watched copy of each effective kernel in the place of the layer's own.

    The gradient with respect to the copy is the growth gradient. That of the stored kernel is
    useless: behind a mask it is exactly zero at every dormant connection. The copies are made
    before the forward pass, so that shared layers and layers inside loops use one and the same.
    Of layers that have no dense kernel, the activities are kept.
    """

    def __init__(
        self,
        by_kernel: Sequence[Growable],
        by_activities: Sequence[Growable],
        tape: tf.GradientTape,
    ):
        super().__init__(by_activities, tape)
        self._kernels = {
            layer: tf.convert_to_tensor(layer.effective_kernel()) for layer in by_kernel
        }
        tape.watch(list(self._kernels.values()))

    def kernel(self, layer):
        return self._kernels.get(layer)

    def gradients(self, tape: tf.GradientTape, loss: tf.Tensor) -> tuple[list, list]:
        """dL/dW of the layers by kernel, and the activities of the others, in their order."""
        kernel_gradients, stimulations = tape.gradient(
            loss,
            [list(self._kernels.values()), self.nudges],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        for gradient, kernel in zip(kernel_gradients, self._kernels.values(), strict=True):
            gradient.set_shape(kernel.shape)  # Behind samples of any number it may be unknown.
        return kernel_gradients, self.activities(stimulations)


class GradientMeter:
    r"""Measures growth gradients; holds the settings of the measurement and its compiled step.

    $$ G = \frac{1}{N} \sum_b n_b \frac{\partial L_b}{\partial W} $$

    over batches $b$ of $n_b$ of all $N$ samples, at the effective kernel $W$, of the loss $L$
    that `model.fit` minimises: with sample weights, loss weights, `add_loss` and regularisers.
    Signed gradients are summed, so that for losses that are means over the batch, chunks equal
    the whole. With batch statistics (BatchNormalization in training) G is the mean of
    per-batch gradients. Measuring leaves variables, seeds, metrics and the optimizer as they were.

    Of sparse layers, whose G may be too large to hold, inputs and stimulations are kept instead
    (Hebb's rule, see `hebbian_gradients`), as far as the memory that the search may take allows;
    beyond it they are computed again, one pass over the data for as many parts of G as fit.

    A meter used again with the same model does not trace again; make a new one after changing
    what the model computes (`trainable`, a dtype policy). `class_weight` and a custom `train_step`
    are out of its sight: pass sample weights, or `loss`.

    Args:
        loss: the loss to lower. `None` takes the one the model was compiled with; else a
            `keras.losses.Loss` or its name, a function `(y_true, y_pred)`, or a function
            `(model, x, y, sample_weight)` that runs the model and returns the whole loss.
        training: bool, the mode in which the model runs. Stochastic layers draw from their seed,
            the optimizer's step and the number of the batch.
        batch_size: samples per batch where the growth data is a tuple of arrays; by default as many
            as fit, 1,000 at most: all that the layers compute for a batch may take 1 GiB, which is
            counted in the model's graph and the same each time. `GrowthGradients` and the
            progress say what it was.
        verbose: 0 shows no progress, 1 shows it, "auto" shows it when measuring takes long.

    Example:

    ```python
    meter = keras_grow.GradientMeter(batch_size=500, training=False)
    keras_grow.grow(model, (x, y), count=1000, meter=meter)
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1.
    """

    def __init__(
        self,
        loss: Any = None,
        training: bool = True,
        batch_size: int | None = None,
        verbose: str | int = "auto",
    ):
        self.loss = loss
        self.training = training
        self.batch_size = batch_size
        self.verbose = verbose
        self._compiled: list[tuple[tuple, Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled belongs to a model, which a copy of the settings does not take along.
        return {**vars(self), "_compiled": []}

    def __deepcopy__(self, memo: dict) -> "GradientMeter":
        made = copy.copy(self)  # A loss, or a function, is shared.
        memo[id(self)] = made
        return made

    def measure(
        self,
        model: keras.Model,
        data: Any,
        layers: Sequence[Growable] | None = None,
        optimizer: keras.Optimizer | None = None,
        search: TiledSearch | None = None,
    ) -> GrowthGradients:
        """Measures the growth gradients of `layers`, by default all growable layers of `model`.

        Args:
            model: a built model, compiled unless the meter has a `loss`.
            data: growth data: `(x, y)`, `(x, y, sample_weight)`, a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or an iterable of batches.
            layers: growable layers of the model.
            optimizer: the optimizer of a custom loop, whose step and loss scale count; by default
                the one the model was compiled with, if any.
            search: the settings of the search in sparse layers, whose memory counts.

        Raises:
            TypeError, ValueError: for a model without growable layers or loss, for data that is
                empty, endless or does not fit, and for gradients that are NaN or infinite.
        """
        layers = growable_layers(model) if layers is None else list(layers)
        check_finite(model, layers)
        if optimizer is None and model.compiled:
            optimizer = model.optimizer
        search = TiledSearch() if search is None else search
        by_kernel, by_activities = self._split(layers)
        pass_over_data = self.passes(model, data, by_kernel, by_activities, optimizer)
        record = ActivityRecord(by_activities, search)
        (loss, sums), num_samples = pass_over_data(record.add)
        gradients: dict[Growable, Any] = {
            layer: total / tf.cast(num_samples, total.dtype)
            for layer, total in zip(by_kernel, sums, strict=True)
        }
        gradients |= record.gradients(num_samples, pass_over_data)
        paths = paths_of(model, layers)
        gradients = {
            layer: self._finished(layer, gradients[layer], path)
            for layer, path in zip(layers, paths, strict=True)
        }
        batch_size = self._fitting_batch_size(model, data, by_activities)
        return GrowthGradients(
            gradients,
            float(loss) / num_samples,
            num_samples,
            min(batch_size, num_samples) if isinstance(data, tuple) else None,
        )

    def passes(
        self,
        model: keras.Model,
        data: Any,
        by_kernel: Sequence[Growable],
        by_activities: Sequence[Growable],
        optimizer: keras.Optimizer | None,
    ) -> Callable[[Callable], tuple[Any, int]]:
        """A function that runs the model over the data each time it is called.

        Args:
            model, data, optimizer: see `measure`.
            by_kernel: the layers whose dense dL/dW is summed.
            by_activities: the layers whose activities are handed on.

        Returns:
            A function of `consume`, which it calls with the activities of each batch, by layer
            and call, the stimulations times the batch's size. It returns the sum over samples of
            the loss and of the dense gradients, in a list, and the number of samples.
        """
        step = self._step(model, by_kernel, by_activities, optimizer)
        batch_size = self._fitting_batch_size(model, data, by_activities)
        scale = 1.0 if optimizer is None else float(optimizer.scale_loss(tf.constant(1.0)))

        def pass_over_data(consume):
            def step_at_fitting_scale(sums, *batch):
                # A loss scale that overflows is halved, as the optimizer does in training.
                nonlocal scale
                while True:
                    new_sums, (activities, is_finite) = step(sums, *batch, tf.constant(scale))
                    if scale <= 1.0 or bool(is_finite):
                        break
                    scale /= 2
                consume(activities)
                return new_sums

            return accumulate(step_at_fitting_scale, data, batch_size, self.verbose)

        return pass_over_data

    def _fitting_batch_size(
        self, model: keras.Model, data: Any, by_activities: Sequence[Growable]
    ) -> int:
        return fitting_batch_size(
            model,
            data,
            self.batch_size,
            self.training,
            observer=RowsTap,
            layers=by_activities,
        )

    def _split(self, layers: Sequence[Growable]) -> tuple[list[Growable], list[Growable]]:
        """The layers measured by their kernel, and those measured by their activities."""
        by_kernel = [layer for layer in layers if not layer.is_sparse]
        return by_kernel, [layer for layer in layers if layer.is_sparse]

    def _finished(self, layer: Growable, gradient: Any, path: str) -> Any:
        """The gradient as it is returned, checked."""
        parts = [gradient]
        if isinstance(gradient, TiledGradient):
            parts = [gradient.row_norms, gradient.column_norms]
        if not all(bool(tf.reduce_all(tf.math.is_finite(part))) for part in parts):
            raise ValueError(
                "Growth gradients must be finite. Received: NaN or infinite gradients in layer "
                f"{path!r}. Look for NaN in the growth data, labels out of range, or a diverged "
                "training."
            )
        return gradient

    def _step(
        self,
        model: keras.Model,
        by_kernel: Sequence[Growable],
        by_activities: Sequence[Growable],
        optimizer: keras.Optimizer | None,
    ) -> Any:
        key = (model, optimizer, compiled_loss(model), *by_kernel, None, *by_activities)
        for known, step in self._compiled:
            if len(key) == len(known) and all(a is b for a, b in zip(key, known, strict=True)):
                return step
        step = self._compile(model, by_kernel, by_activities, optimizer)
        # A few, because connections and neurons of one model may grow by turns.
        self._compiled = [*self._compiled[-3:], (key, step)]
        return step

    def _compile(
        self,
        model: keras.Model,
        by_kernel: Sequence[Growable],
        by_activities: Sequence[Growable],
        optimizer: keras.Optimizer | None,
    ) -> Any:
        loss_function = check_loss(model, self.loss)

        def measure(x, y, sample_weight, draw, scale):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tap = _GrowthTap(by_kernel, by_activities, tape)
                with untouched(model, optimizer, draw), observing(tap):
                    loss = total_loss(model, loss_function, x, y, sample_weight, self.training)
                scaled_loss = loss * tf.cast(scale, loss.dtype)
            gradients, activities = tap.gradients(tape, scaled_loss)
            size = batch_size_of(x)
            measured = [*gradients, *(d for calls in activities for _, d in calls)]
            is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in measured])

            def unscaled(gradient):
                return gradient * (tf.cast(size, gradient.dtype) / tf.cast(scale, gradient.dtype))

            loss_sum = tf.cast(loss, tf.float64) * tf.cast(size, tf.float64)
            activities = [[(x, unscaled(d)) for x, d in calls] for calls in activities]
            return [loss_sum, [unscaled(g) for g in gradients]], (activities, is_finite)

        return summed(measure, hands_on=True)


def growth_gradients(
    model: keras.Model,
    data: Any,
    *,
    loss: Any = None,
    training: bool = True,
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> dict[Growable, tf.Tensor | TiledGradient]:
    """The mean dL/dW of every growable layer over the growth data, dormant connections included.

    See `GradientMeter` for what exactly is measured.

    Args:
        model: a built model with growable layers, compiled unless there is a `loss`.
        data: `(x, y)`, `(x, y, sample_weight)`, a `tf.data.Dataset`, a `keras.utils.PyDataset` or
            an iterable of batches: the whole training set, or a large part of it.
        loss, training, batch_size, verbose: see `GradientMeter`.

    Raises:
        TypeError, ValueError: see `GradientMeter.measure`.

    Returns:
        A dict from each growable layer to a float tensor of its `kernel_shape`, with sign; of a
        `SparseDense`, whose gradient may not fit in memory, a `TiledGradient` that gives parts of
        it: `gradient.at(indices)`, `gradient.tiles(blocks)`.

    Example:

    >>> import keras, keras_grow, numpy as np
    >>> layer = keras_grow.GrowableDense(1, initial_density=0.5, seed=0)
    >>> model = keras.Sequential([keras.Input((2,)), layer])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.array([[1.0, 2.0]]), np.array([[3.0]])
    >>> keras_grow.growth_gradients(model, (x, y))[layer].shape
    TensorShape([2, 1])

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 1.
    """
    meter = GradientMeter(loss, training, batch_size, verbose)
    return meter.measure(model, data).gradients
