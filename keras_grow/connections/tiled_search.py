"""The exact best of a layer's dormant connections, without ever holding all their scores."""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.scores import Score
from keras_grow.connections.selection import Proposal
from keras_grow.connections.tiled_gradient import Block, TiledGradient
from keras_grow.connections.view import Connections

# A search that takes longer shows its progress.
_PATIENCE_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class TiledSearch:
    """How growth finds the best dormant connections of sparse layers.

    Scores are computed one tile of the kernel at a time, and the best found so far are kept. No
    entry of the gradient $G = X^T D$ exceeds the product of the norms of its input's activities
    and its unit's stimulations over the growth data. Tiles are visited in the order of that
    bound, and the search ends at the first that can't hold one of the best. What it finds is
    exact.

    Args:
        max_bytes: the memory that the activities X and D of all sparse layers of a model may
            take, with the tiles made of them. Where the growth data has more, the model is run
            over it again for each part of the gradient that fits. Beside it, the search holds
            about 50 bytes for each connection that grows.
        max_seconds: after that time growth takes the best found so far, and its record says that
            the search is incomplete; `None` for no limit. It counts the search, not the
            measurement; several sparse layers share it.
        tile_shape: a tile's inputs and units.
        verbose: 0 shows no progress, 1 shows it, "auto" shows it when the search takes long.

    Raises:
        ValueError: for limits that are not positive.

    Reference: the bound is the Cauchy-Schwarz inequality; the order of the visit is that of the
    threshold algorithm of Fagin, Lotem, Naor, "Optimal Aggregation Algorithms for Middleware",
    2003.
    """

    max_bytes: int = 2**30
    max_seconds: float | None = None
    tile_shape: tuple[int, int] = (512, 4096)
    verbose: str | int = "auto"

    def __post_init__(self):
        limits = {"max_bytes": self.max_bytes, "max_seconds": self.max_seconds}
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={limit!r}")
        if len(self.tile_shape) != 2 or not all(
            isinstance(side, int) and side > 0 for side in self.tile_shape
        ):
            raise ValueError(
                "`tile_shape` must be two positive integers, inputs and units. "
                f"Received: tile_shape={self.tile_shape!r}"
            )
        if self.verbose not in (0, 1, "auto"):
            raise ValueError(
                f'`verbose` must be 0, 1 or "auto". Received: verbose={self.verbose!r}'
            )


def best_dormant(
    shape: tuple[int, int],
    active: tf.Tensor,
    count: int,
    score: Score,
    *,
    gradient: TiledGradient | None = None,
    input_rms: tf.Tensor | None = None,
    l1: float = 0.0,
    layer_index: int = 0,
    step: int = 0,
    search: TiledSearch | None = None,
) -> Proposal:
    """The `count` dormant connections of largest score, best first; ties go to the lower index.

    Args:
        shape: the kernel's shape, `(inputs, units)`.
        active: int64 of shape `(num_active,)`, ascending flat indices of active connections.
        count: integer; more than are dormant takes all.
        score: sees tiles of the kernel in which every weight is 0 and no connection is active,
            as dormant ones are; it must judge each connection by itself.
        gradient: mean dL/dW, for a score that needs it.
        input_rms: floats of shape `(inputs,)`, for a score that needs them.
        l1, layer_index, step: see `Connections`.
        search: settings, by default `TiledSearch()`.

    Raises:
        ValueError: for scores that are NaN or infinite, or of another shape than the tile's.
    """
    search = TiledSearch() if search is None else search
    num_inputs, num_units = shape
    active = np.asarray(active)
    if gradient is not None:
        for norms in (gradient.row_norms, gradient.column_norms):
            _check_finite(tf.reduce_all(tf.math.is_finite(norms)))
    best = _BestSoFar(min(count, num_inputs * num_units - len(active)))
    blocks = _Blocks(shape, gradient, search.tile_shape)

    # Dormant connections all look alike; one array of them serves all tiles of a size.
    @functools.cache
    def dormant(size: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        dtype = tf.float32 if gradient is None else gradient.dtype
        return tf.zeros(size, dtype), tf.zeros(size, bool)

    def view(
        values: tf.Tensor | None, size: tuple[int, ...], rms: Any = None, first_index: int = 0
    ) -> Connections:
        weight, is_active = dormant(tuple(size))
        return Connections(
            weight=weight,
            active=is_active,
            gradient=values,
            input_rms=None if rms is None else tf.cast(rms, weight.dtype)[:, None],
            l1=l1,
            layer_index=layer_index,
            first_index=first_index,
            step=step,
        )

    score_bounds = None
    if gradient is not None and score.increases_with_gradient:
        bounds = blocks.bounds(gradient)
        score_bounds = score(view(bounds, bounds.shape)).numpy()
        _check_finite(np.isfinite(score_bounds).all())

    def take(block: Block, tile: tf.Tensor | None) -> None:
        rows, columns = block
        rms = None if input_rms is None else tf.gather(input_rms, rows)
        first_index = int(rows[0] * num_units + columns[0])
        scores = score(view(tile, (len(rows), len(columns)), rms, first_index))
        if scores.shape != (len(rows), len(columns)):
            raise ValueError(
                "A score must return one number per connection. Received: scores of shape "
                f"{scores.shape}, expected {(len(rows), len(columns))}"
            )
        if score_bounds is None:  # Else finite bounds have shown it.
            _check_finite(tf.reduce_all(tf.math.is_finite(scores)))
        if tf.reduce_max(scores) < best.threshold:
            return
        places = tf.where(tf.reshape(scores >= best.threshold, [-1]))[:, 0]
        found = tf.gather(tf.reshape(scores, [-1]), places).numpy()
        places = places.numpy()
        rows, columns = rows.numpy(), columns.numpy()
        indices = rows[places // len(columns)] * num_units + columns[places % len(columns)]
        is_dormant = ~_contains(active, indices)
        best.add(found[is_dormant], indices[is_dormant])

    started = time.perf_counter()
    progress, position, is_complete = None, 0, best.count == 0
    at_once = 1 if gradient is None else gradient.tiles_at_once
    while not is_complete:
        asked: list[Block] = []
        while position < len(blocks) and len(asked) < at_once:
            # Blocks come by descending bound: after the first that can't compete, none can.
            if score_bounds is not None and score_bounds[position] < best.threshold:
                position = len(blocks)
                break
            asked.append(blocks[position])
            position += 1
        tiles: Iterator = iter([None] * len(asked)) if gradient is None else gradient.tiles(asked)
        for block, tile in zip(asked, tiles, strict=True):
            take(block, tile)
        seconds = time.perf_counter() - started
        is_complete = position == len(blocks)
        is_long = search.verbose == "auto" and seconds > _PATIENCE_SECONDS
        if progress is None and (search.verbose == 1 or is_long):
            progress = keras.utils.Progbar(len(blocks), unit_name="tile")
        if progress is not None:
            progress.update(position, finalize=is_complete)
        if search.max_seconds is not None and seconds > search.max_seconds:
            break
    scores, indices = best.sorted()
    return Proposal(tf.constant(scores), tf.constant(indices, tf.int64), is_complete)


def _check_finite(is_finite: bool | tf.Tensor) -> None:
    if not bool(is_finite):
        raise ValueError(
            "Scores must be finite. Received: NaN or infinite scores. A diverged weight or "
            "gradient is the usual cause."
        )


class _Blocks:
    """The tiles of a kernel, those with the largest bound on |gradient| first."""

    def __init__(
        self, shape: tuple[int, int], gradient: TiledGradient | None, tile_shape: tuple[int, int]
    ):
        sides = []
        for axis, (size, step) in enumerate(zip(shape, tile_shape, strict=True)):
            order, largest = tf.range(size, dtype=tf.int64), np.zeros(-(-size // step))
            if gradient is not None:
                norms = gradient.row_norms if axis == 0 else gradient.column_norms
                order = tf.argsort(norms, direction="DESCENDING", stable=True)
                order = tf.cast(order, tf.int64)
                largest = tf.gather(norms, order[::step]).numpy()
            sides.append((order, step, largest))
        (self._rows, self._height, of_rows), (self._columns, self._width, of_columns) = sides
        self._num_across = len(of_columns)
        bounds = np.outer(of_rows, of_columns).reshape(-1)
        self._order = np.argsort(-bounds, kind="stable")
        self._bounds = bounds[self._order]

    def bounds(self, gradient: TiledGradient) -> tf.Tensor:
        """An upper bound on |gradient| in each tile, in the order of the tiles."""
        # The norms, and the sums they bound, are rounded: a sum of T terms by up to T / 2 ulps.
        rounding = np.finfo(gradient.dtype.as_numpy_dtype).eps
        margin = 1 + 2 * (gradient.num_terms + 16) * rounding
        return tf.constant(self._bounds * margin, gradient.dtype)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> Block:
        down, across = divmod(int(self._order[position]), self._num_across)
        rows = self._rows[down * self._height : (down + 1) * self._height]
        return rows, self._columns[across * self._width : (across + 1) * self._width]


class _BestSoFar:
    """The best candidates seen; ties go to the lower index."""

    def __init__(self, count: int):
        self.count = count
        self.threshold = -math.inf
        self._last_tie = -1
        self._scores: list[np.ndarray] = []
        self._indices: list[np.ndarray] = []
        self._num_held = 0

    def add(self, scores: np.ndarray, indices: np.ndarray) -> None:
        """Takes in candidates; those that can't be among the best are dropped sooner or later."""
        if self.threshold > -math.inf:
            competes = (scores > self.threshold) | (indices < self._last_tie)
            scores, indices = scores[competes], indices[competes]
        self._scores.append(scores)
        self._indices.append(indices)
        self._num_held += len(scores)
        # Each time costs as much as there are; waiting keeps the threshold low.
        if self._num_held >= self.count + self.count // 8 + 1:
            self._keep_best()

    def _keep_best(self) -> None:
        scores, indices = np.concatenate(self._scores), np.concatenate(self._indices)
        if len(scores) >= self.count:
            threshold = np.partition(scores, len(scores) - self.count)[len(scores) - self.count]
            above, ties = scores > threshold, np.flatnonzero(scores == threshold)
            num_ties = self.count - np.count_nonzero(above)
            ties = ties[np.argpartition(indices[ties], num_ties - 1)[:num_ties]]
            kept = np.concatenate([np.flatnonzero(above), ties])
            self.threshold, self._last_tie = threshold, indices[ties].max()
            scores, indices = scores[kept], indices[kept]
        self._scores, self._indices, self._num_held = [scores], [indices], len(scores)

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The scores and indices of the best, best first."""
        if self.count == 0 or not self._scores:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        self._keep_best()
        scores, indices = self._scores[0], self._indices[0]
        order = np.lexsort((indices, -scores))
        return scores[order], indices[order]


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each of `values` is among `ascending`."""
    if len(ascending) == 0:
        return np.zeros(values.shape, bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values
