"""Growth gradients: dL/dW of every connection, dormant ones included, over the growth data."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.keras_private import compiled_loss
from keras_grow.layers.growable import Growable, check_finite, growable_layers
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.accumulation import accumulate
from keras_grow.measuring.activities import ActivityRecord, RowsTap
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.batch_step import Wanted, batch_step
from keras_grow.measuring.growth_data import drawn
from keras_grow.measuring.inputs import input_values
from keras_grow.measuring.loss import check_loss
from keras_grow.optimizer_slots import steps_made
from keras_grow.policies.statistics import Gradient, ProductStatistic, Statistic
from keras_grow.search.tiled_array import TiledArray, Values
from keras_grow.search.tiled_search import TiledSearch


@dataclasses.dataclass(frozen=True)
class MeasuredStatistics:
    """What one pass over the growth data measured.

    Attributes:
        values: of each layer, for each statistic, floats that broadcast against its kernel: of
            `Gradient()` a tensor of its `kernel_shape`, of `InputRMS()` one of shape
            `(inputs, 1)`. Of a sparse layer, a `TiledArray` in the place of what is as large as
            the kernel.
        loss: float, the mean loss over the growth data; `None` where no statistic hangs on it.
        num_samples: integer, the samples of the growth data.
        batch_size: integer, how many were measured at a time; `None` for data in batches.
        num_positions: of each layer whose inputs were measured, the mean number of vectors that
            it puts out per sample; NaN where it is not called.
    """

    values: dict[Growable, dict[Statistic, Values]]
    loss: float | None
    num_samples: int
    batch_size: int | None
    num_positions: dict[Growable, float]

    @property
    def gradients(self) -> dict[Growable, Values]:
        """For each layer its mean dL/dW."""
        return {layer: values[Gradient()] for layer, values in self.values.items()}


class GradientMeter:
    r"""Measures growth gradients; holds the settings of the measurement and its compiled step.

    $$ G = \frac{1}{N} \sum_b n_b \frac{\partial L_b}{\partial W} $$

    over batches $b$ of $n_b$ of all $N$ samples, at the effective kernel $W$, of the loss $L$
    that `model.fit` minimizes: with sample weights, loss weights, `add_loss` and regularizers.
    Signed gradients are summed, so that for losses that are means over the batch, chunks equal
    the whole. With batch statistics (BatchNormalization in training) G is the mean of
    per-batch gradients. Measuring leaves variables, seeds, metrics and the optimizer as they were.

    Of sparse layers, whose G may be too large to hold, inputs and output gradients are kept instead
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
            counted in the model's graph and the same each time. `MeasuredStatistics` and the
            progress say what it was.
        verbose: 0 shows no progress, 1 shows it, "auto" shows it when measuring takes long.
        num_samples: positive integer, how many samples each measurement draws from growth data that
            is a tuple of arrays, anew for each step of the optimizer, so that a change in every few
            steps costs little; by default all are measured.
        seed: non-negative integer; a draw is a function of (seed, step).

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
        *,
        num_samples: int | None = None,
        seed: int = 0,
    ):
        self.num_samples = (
            None if num_samples is None else checked_integer(num_samples, "num_samples")
        )
        self.seed = checked_integer(seed, "seed", least=0)
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
        statistics: Sequence[Statistic] = (Gradient(),),
    ) -> MeasuredStatistics:
        """Measures statistics of `layers`, by default the gradients of all growable layers.

        Args:
            model: a built model, compiled unless the meter has a `loss`.
            data: growth data: `(x, y)`, `(x, y, sample_weight)`, a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or an iterable of batches.
            layers: growable layers of the model.
            optimizer: the optimizer of a custom loop, whose step and loss scale count; by default
                the one the model was compiled with, if any.
            search: the settings of the search in sparse layers, whose memory counts.
            statistics: what to measure, all in one pass: product statistics and input statistics,
                see `keras_grow.statistics`. The latter alone take no loss, and of the data `x`.

        Raises:
            TypeError, ValueError: for a model without growable layers or loss, for data that is
                empty, endless or does not fit, and for gradients that are NaN or infinite.
        """
        layers = growable_layers(model) if layers is None else list(layers)
        if optimizer is None and model.compiled:
            optimizer = model.optimizer
        wanted = Wanted.of(layers, statistics)
        if wanted.takes_loss:
            check_finite(model, layers)
        pass_over_data = self.passes(model, data, wanted, optimizer)
        products = [each for each in statistics if isinstance(each, ProductStatistic)]
        record = ActivityRecord(
            wanted.activities, products, TiledSearch() if search is None else search
        )
        sums, num_samples = pass_over_data(record.add)
        loss, gradient_sums, product_sums, input_sums = sums
        values: dict[Growable, dict[Statistic, Values]] = {layer: {} for layer in layers}
        summed = [*((layer, Gradient()) for layer in wanted.by_kernel), *wanted.products]
        for (layer, product), total in zip(summed, [*gradient_sums, *product_sums], strict=True):
            values[layer][product] = total / tf.cast(num_samples, total.dtype)
        for layer, product, array in record.arrays(num_samples, pass_over_data):
            values[layer][product] = array
        for layer, path in zip(layers, paths_of(model, layers), strict=True):
            for measured, array in values[layer].items():
                _check_finite(measured, array, path)
        num_positions = {}
        for layer, totals in zip(wanted.inputs[0], input_sums, strict=True):
            of_inputs, num_positions[layer] = input_values(layer, totals, wanted.inputs[1])
            values[layer].update(of_inputs)
        batch_size = self._fitting_batch_size(model, data, wanted)
        return MeasuredStatistics(
            values,
            float(loss) / num_samples if wanted.takes_loss else None,
            num_samples,
            min(batch_size, num_samples) if isinstance(data, tuple) else None,
            num_positions,
        )

    def mean_loss(
        self, model: keras.Model, data: Any, optimizer: keras.Optimizer | None = None
    ) -> float:
        """The mean loss over growth data, by forward passes.

        Args:
            model, data, optimizer: as in `measure`.
        """
        pass_over_data = self.passes(model, data, Wanted(loss=True), optimizer)
        (loss, *_), num_samples = pass_over_data(lambda activities: None)
        return float(loss) / num_samples

    def passes(
        self,
        model: keras.Model,
        data: Any,
        wanted: Wanted,
        optimizer: keras.Optimizer | None,
    ) -> Callable[[Callable], tuple[Any, int]]:
        """A function that runs the model over the data each time it is called.

        Args:
            model, data, optimizer: see `measure`.
            wanted: what is measured of which layers.

        Returns:
            A function of `consume`, which it calls with the activities of each batch, by layer
            and call, the output gradients times the batch's size. It returns the sums that
            `batch_step` makes, and the number of samples.
        """
        step = self._step(model, wanted, optimizer)
        if self.num_samples is not None:
            data = drawn(data, self.num_samples, self.seed, steps_made(optimizer))
        batch_size = self._fitting_batch_size(model, data, wanted)
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

    def _fitting_batch_size(self, model: keras.Model, data: Any, wanted: Wanted) -> int:
        training = self.training and wanted.takes_loss
        return fitting_batch_size(
            model, data, self.batch_size, training, observer=RowsTap, layers=wanted.tapped
        )

    def _step(
        self, model: keras.Model, wanted: Wanted, optimizer: keras.Optimizer | None
    ) -> Callable[..., Any]:
        key = (model, optimizer, compiled_loss(model), wanted)
        for known, step in self._compiled:
            if key == known:
                return step
        loss = check_loss(model, self.loss) if wanted.takes_loss else None
        step = batch_step(model, wanted, loss, self.training, optimizer)
        # A few, because connections and neurons of one model may grow by turns.
        self._compiled = [*self._compiled[-3:], (key, step)]
        return step


def _check_finite(statistic: Statistic, values: Values, path: str) -> None:
    parts = [values]
    if isinstance(values, TiledArray):
        parts = [values.row_norms, values.column_norms]
    if not all(bool(tf.reduce_all(tf.math.is_finite(part))) for part in parts):
        what = "Growth gradients" if statistic == Gradient() else f"Values of {statistic!r}"
        raise ValueError(
            f"{what} must be finite. Received: NaN or infinite ones in layer {path!r}. Look for "
            "NaN in the growth data, labels out of range, or a diverged training."
        )


def growth_gradients(
    model: keras.Model,
    data: Any,
    *,
    loss: Any = None,
    training: bool = True,
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> dict[Growable, tf.Tensor | TiledArray]:
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
        `SparseDense`, whose gradient may not fit in memory, a `TiledArray` that gives parts of
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
