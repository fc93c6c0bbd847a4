"""What flows into layers, and how the loss responds to what flows out: Hebb's two factors."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.observer import Observer
from keras_grow.policies.statistics import ProductStatistic
from keras_grow.search.tiled_array import (
    Block,
    FactoredArray,
    TiledArray,
    balance,
)
from keras_grow.search.tiled_search import TiledSearch

Activities = tuple[tf.Tensor, tf.Tensor]
"""Inputs x of shape `(rows, fan_in)` and output gradients dL/du of shape `(rows, units)`."""


class GradientTap(Observer):
    """Looks where the loss is to be differentiated: at kernels, and at calls of layers.

    It puts a watched copy of each effective kernel in the place of the layer's own. The gradient
    with respect to the copy is the growth gradient. That of the stored kernel is useless: behind a
    mask it is exactly zero at every dormant connection. The copies are made before the forward
    pass, so that shared layers and layers inside loops use one and the same.

    Args:
        by_kernel: the layers whose kernels it watches.
        by_activities: the layers of which it keeps the inputs x and output gradients dL/du.
        tape: what watches.
    """

    def __init__(
        self,
        by_kernel: Sequence[Growable],
        by_activities: Sequence[Growable],
        tape: tf.GradientTape,
    ):
        self._tape = tape
        self._graph = tf.compat.v1.get_default_graph()
        self._kernels = {
            layer: tf.convert_to_tensor(layer.effective_kernel()) for layer in by_kernel
        }
        tape.watch(list(self._kernels.values()))
        self._calls: dict[Growable, list[tuple[tf.Tensor, tf.Tensor]]] = {
            layer: [] for layer in by_activities
        }

    def kernel(self, layer):
        return self._kernels.get(layer)

    def pre_activation(self, layer, inputs, outputs):
        if layer not in self._calls:
            return outputs
        if tf.compat.v1.get_default_graph() is not self._graph:
            raise ValueError(
                "The Hebbian form can't look into a loop. Received: a call of layer "
                f"{layer.name!r} inside a while loop or a vectorized map. Unroll the loop "
                "(`unroll=True`), or use a masked layer and `growth_gradients`, which can."
            )
        nudge = tf.zeros_like(outputs)
        self._tape.watch(nudge)
        self._calls[layer].append((inputs, nudge))
        return outputs + nudge

    def gradients(self, loss: tf.Tensor) -> tuple[list[tf.Tensor], list[list[Activities]]]:
        """dL/dW of the layers by kernel, and the activities of the others, call by call."""
        kernels = list(self._kernels.values())
        kernel_gradients, output_gradients = self._tape.gradient(
            loss,
            [kernels, [[nudge for _, nudge in calls] for calls in self._calls.values()]],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        # That of an embedding comes as the rows that were looked up.
        kernel_gradients = [tf.convert_to_tensor(gradient) for gradient in kernel_gradients]
        for gradient, kernel in zip(kernel_gradients, kernels, strict=True):
            gradient.set_shape(kernel.shape)  # Behind samples of any number it may be unknown.
        activities = [
            [_as_rows(layer, x, d) for (x, _), d in zip(calls, of_layer, strict=True)]
            for (layer, calls), of_layer in zip(self._calls.items(), output_gradients, strict=True)
        ]
        return kernel_gradients, activities


class RowsTap(Observer):
    """Cuts the inputs of layers into rows as `GradientTap` does, to count what they take.

    The rows of a convolution whose window is 3 x 3 hold nine times as many numbers as its inputs.
    """

    def __init__(self, layers: Sequence[Growable]):
        self._layers = set(layers)

    def pre_activation(self, layer, inputs, outputs):
        if layer in self._layers:
            layer.as_rows(tf.cast(inputs, layer.variable_dtype))
        return outputs


def _as_rows(layer, inputs, output_gradients):
    x, d = (tf.cast(a, layer.variable_dtype) for a in (inputs, output_gradients))
    return layer.as_rows(x), tf.reshape(d, [-1, layer.kernel_shape[-1]])


class ActivityRecord:
    """The factors of statistics of some layers over the growth data, as far as memory allows.

    While all of a statistic's fit into its share of the memory they are kept. Else only their
    norms are, and the statistic is computed by further passes over the data.

    Args:
        layers: the layers, in the order in which `add` gets their activities.
        statistics: what is measured of each.
        search: says how much memory all of them together may take.
    """

    def __init__(
        self,
        layers: Sequence[Growable],
        statistics: Sequence[ProductStatistic],
        search: TiledSearch,
    ):
        self._search = search
        self._records = [
            (position, layer, statistic, _FactorRecord(layer))
            for position, layer in enumerate(layers)
            for statistic in statistics
        ]
        # Half of it, because sorting and cutting the factors copies one of them.
        self._most_bytes = search.max_bytes / (2 * max(1, len(self._records)))

    def add(self, activities: Sequence[Sequence[Activities]]) -> None:
        """Takes in the activities of a batch, by layer and call."""
        for position, _, statistic, record in self._records:
            for x, d in activities[position]:
                record.add(*statistic.factors(x, d), self._most_bytes)

    def arrays(
        self, num_samples: int, pass_over_data: Callable[[Callable], Any]
    ) -> Iterator[tuple[Growable, ProductStatistic, TiledArray]]:
        """The statistics of each layer.

        Args:
            num_samples: the size of the growth data.
            pass_over_data: runs the model over the data once more, and calls its argument with
                each batch's activities, as `add` was.
        """

        def replay_of(position: int, statistic: ProductStatistic) -> Callable[[Callable], None]:
            def replay(consume: Callable[[tf.Tensor, tf.Tensor], None]) -> None:
                def consume_layer(activities):
                    for activity in activities[position]:
                        x, d = statistic.factors(*activity)
                        consume(x, d / num_samples)

                pass_over_data(consume_layer)

            return replay

        for position, layer, statistic, record in self._records:
            replay = replay_of(position, statistic)
            yield layer, statistic, record.array(num_samples, replay, self._tiles_at_once(layer))

    def _tiles_at_once(self, layer: Growable) -> int:
        tile_bytes = math.prod(self._search.tile_shape) * tf.as_dtype(layer.variable_dtype).size
        return max(1, int(self._most_bytes // tile_bytes))


class _FactorRecord:
    def __init__(self, layer: Growable):
        self._shape = (layer.fan_in, layer.kernel_shape[-1])
        zeros = [tf.zeros((size,), layer.variable_dtype) for size in self._shape]
        self._row_squares, self._column_squares = zeros
        self._kept: list[Activities] | None = []
        self._num_bytes = self._num_terms = 0

    def add(self, x: tf.Tensor, d: tf.Tensor, most_bytes: float) -> None:
        # In float64, because squares of float32 underflow.
        sizes = (tf.norm(tf.cast(a, tf.float64), axis=1) for a in (x, d))
        scales = [tf.cast(scale, x.dtype) for scale in balance(*sizes)]
        self._row_squares += tf.reduce_sum(tf.square(x * scales[0][:, None]), axis=0)
        self._column_squares += tf.reduce_sum(tf.square(d * scales[1][:, None]), axis=0)
        self._num_terms += x.shape[0]
        self._num_bytes += (tf.size(x).numpy() + tf.size(d).numpy()) * x.dtype.size
        if self._num_bytes > most_bytes:
            self._kept = None
        if self._kept is not None:
            self._kept.append((tf.transpose(x), tf.transpose(d)))

    def array(
        self, num_samples: int, replay: Callable[[Callable], None], tiles_at_once: int
    ) -> TiledArray:
        dtype = self._row_squares.dtype
        if self._kept is None:
            return RecomputedArray(
                tf.sqrt(self._row_squares),
                tf.sqrt(self._column_squares) / tf.cast(num_samples, dtype),
                self._num_terms,
                replay,
                tiles_at_once,
            )
        kept, self._kept = self._kept, None
        empty = [tf.zeros((size, 0), dtype) for size in self._shape]
        inputs = tf.concat([empty[0], *(x for x, _ in kept)], axis=1)
        output_gradients = [d / tf.cast(num_samples, dtype) for _, d in kept]
        del kept  # Both factors would be in memory twice.
        return FactoredArray(inputs, tf.concat([empty[1], *output_gradients], axis=1))


class RecomputedArray(TiledArray):
    """A statistic whose factors are computed again whenever parts of it are asked for.

    Args:
        row_norms, column_norms: floats of shape `(inputs,)` and `(units,)`, the norms of the
            factors over the growth data.
        num_terms: how many rows the factors have in all.
        replay: runs over the growth data and calls its argument with each batch's factors, of
            shape `(rows, inputs)` and `(rows, units)`.
        tiles_at_once: how many tiles fit into memory together; each asking costs a pass.
    """

    def __init__(
        self,
        row_norms: tf.Tensor,
        column_norms: tf.Tensor,
        num_terms: int,
        replay: Callable[[Callable[[tf.Tensor, tf.Tensor], None]], None],
        tiles_at_once: int,
    ):
        self.shape = row_norms.shape[0], column_norms.shape[0]
        self.dtype = row_norms.dtype
        self.row_norms, self.column_norms = row_norms, column_norms
        self.num_terms = num_terms
        self.tiles_at_once = tiles_at_once
        self._replay = replay

    def tiles(self, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
        sums = [tf.zeros((len(rows), len(columns)), self.dtype) for rows, columns in blocks]

        def add(x, d):
            x, d = tf.transpose(x), tf.transpose(d)
            for i, (rows, columns) in enumerate(blocks):
                part = tf.gather(x, rows), tf.gather(d, columns)
                sums[i] += tf.matmul(*part, transpose_b=True)

        self._replay(add)
        yield from sums

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        total = tf.zeros(tf.shape(indices), self.dtype)

        def add(x, d):
            nonlocal total
            total += FactoredArray(tf.transpose(x), tf.transpose(d)).at(indices)

        self._replay(add)
        return total
