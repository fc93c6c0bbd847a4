"""The exact best of a layer's dormant connections, without ever holding all their scores."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.integers import as_integer
from keras_grow.policies.scores import Score
from keras_grow.policies.statistics import Gradient, Statistic
from keras_grow.policies.view import Connections
from keras_grow.search.selection import Candidates
from keras_grow.search.tiled_array import Block, TiledArray, Values, tiles

# A search that takes longer shows its progress.
_PATIENCE_SECONDS = 2.0
# A tile's sides are cut to multiples of this, for which products of matrices are made.
_SIDE_STEP = 64
# No stored kernel is cut into fewer tiles along a side than this.
_LEAST_ACROSS = 4
# An accelerator may round the factors of a float32 product to bfloat16, each by up to 2**-9.
_ROUNDED_FACTORS = 2.0**-7


@dataclasses.dataclass(frozen=True)
class TiledSearch:
    """How growth finds the best dormant connections of sparse layers.

    Scores are computed one tile of the kernel at a time, and the best found so far are kept. No
    entry of the gradient $G = X^T D$ exceeds the product of the norms of its input's activities
    and its unit's output gradients over the growth data, the samples scaled to make that bound
    close. Tiles are visited in the order of the bound, and the search ends at the first that
    can't hold one of the best. What it finds is exact.

    Args:
        max_bytes: the memory that the activities X and D of all sparse layers of a model may
            take, with the tiles made of them. Where the growth data has more, the model is run
            over it again for each part of the gradient that fits. Beside it, the search holds
            about 50 bytes for each connection that grows.
        max_seconds: after that time growth takes the best found so far, and its record says that
            the search is incomplete; `None` for no limit. It counts the search, not the
            measurement; several sparse layers share it.
        tile_shape: a tile's inputs and units, at most; small kernels are cut finer.
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
        sides = [as_integer(side) for side in self.tile_shape]
        if len(sides) != 2 or any(side is None or side <= 0 for side in sides):
            raise ValueError(
                "`tile_shape` must be two positive integers, inputs and units. "
                f"Received: tile_shape={self.tile_shape!r}"
            )
        object.__setattr__(self, "tile_shape", tuple(sides))
        if self.verbose not in (0, 1, "auto"):
            raise ValueError(
                f'`verbose` must be 0, 1 or "auto". Received: verbose={self.verbose!r}'
            )


def best_dormant(
    shape: tuple[int, int],
    active: tf.Tensor,
    count: int,
    score: Score,
    statistics: Mapping[Statistic, Values] | None = None,
    *,
    l1: float = 0.0,
    layer_index: int = 0,
    step: int = 0,
    search: TiledSearch | None = None,
) -> Candidates:
    """The `count` dormant connections of largest score; ties go to the lower index.

    Args:
        shape: the kernel's shape, `(inputs, units)`.
        active: int64 of shape `(num_active,)`, ascending flat indices of active connections.
        count: integer; more than are dormant takes all.
        score: sees connections whose weight is 0 and none of which is active, as dormant ones
            are; it must judge each by itself. It sees them tile by tile, or, if it increases with
            the gradient, in rows of those whose gradient is large enough.
        statistics: what was measured; the score sees of it what it names. A gradient is tiled.
        l1, layer_index, step: see `Connections`.
        search: settings, by default `TiledSearch()`.

    Raises:
        ValueError: for scores that are NaN or infinite, or of another shape than what they judge.
    """
    search = TiledSearch() if search is None else search
    # More may be there for another policy's sake.
    seen = {statistic: (statistics or {})[statistic] for statistic in score.statistics}
    gradient: Any = seen.get(Gradient())
    # Where a score sees something else too, the gradient alone does not tell what competes.
    by_gradient = set(seen) == {Gradient()} and score.increases_with_gradient
    num_units = shape[1]
    tiled = [values for values in seen.values() if isinstance(values, TiledArray)]
    dtype = tiled[0].dtype if tiled else tf.float32
    at_once = min((values.tiles_at_once for values in tiled), default=1)
    blocks = _Blocks(shape, gradient, search.tile_shape, at_once)
    best = _BestSoFar(count, math.prod(shape), np.asarray(active))

    # Dormant connections all look alike; one array of them serves all tiles of a size.
    @functools.lru_cache(4)
    def dormant(size: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros(size, dtype), tf.zeros(size, bool)

    def judge(parts: dict[Statistic, tf.Tensor], size: tuple, first_index: int) -> tf.Tensor:
        weight, is_active = dormant(size)
        scores = score(
            Connections(
                weight=weight,
                active=is_active,
                statistics={each: tf.cast(part, dtype) for each, part in parts.items()},
                l1=l1,
                layer_index=layer_index,
                first_index=first_index,
                step=step,
            )
        )
        if tuple(scores.shape) != size:
            raise ValueError(
                "A score must return one number per connection. Received: scores of shape "
                f"{scores.shape}, expected {size}"
            )
        _check_finite(tf.reduce_all(tf.math.is_finite(scores)))
        return scores

    def take(block: Block, parts: dict[Statistic, tf.Tensor]) -> None:
        rows, columns = block
        size, first_index = (len(rows), len(columns)), int(rows[0] * num_units + columns[0])
        # Few entries of a tile compete, which |gradient| tells as well as the score, and sooner.
        key = tf.abs(parts[Gradient()]) if by_gradient else judge(parts, size, first_index)
        key = tf.reshape(key, [-1])
        places = tf.where(key > best.floor(blocks.lowest_index(block)))[:, 0]
        key = tf.gather(key, places)
        rows = tf.gather(rows, places // size[1])
        columns = tf.gather(columns, places % size[1])
        indices = rows * num_units + columns
        scores = key
        if by_gradient:
            scores = judge({Gradient(): key}, (len(rows),), first_index)
        best.add(key.numpy(), scores.numpy(), indices.numpy())

    started = time.perf_counter()
    progress, position, is_complete = None, 0, best.count == 0
    while not is_complete:
        asked: list[Block] = []
        while position < len(blocks) and len(asked) < at_once:
            block = blocks.competing(position, best) if by_gradient else blocks[position]
            position += 1
            if block is not None:
                asked.append(block)
        arrays = {statistic: tiles(values, asked) for statistic, values in seen.items()}
        for block in asked:
            take(block, {statistic: next(parts) for statistic, parts in arrays.items()})
        seconds = time.perf_counter() - started
        is_complete = position == len(blocks)
        is_long = search.verbose == "auto" and seconds > _PATIENCE_SECONDS
        if progress is None and (search.verbose == 1 or is_long):
            progress = keras.utils.Progbar(len(blocks), unit_name="tile")
        if progress is not None:
            progress.update(position, finalize=is_complete)
        if search.max_seconds is not None and seconds > search.max_seconds:
            break
    scores, indices = best.by_index()
    return Candidates(tf.constant(scores), tf.constant(indices, tf.int64), is_complete)


class _BestSoFar:
    """The best dormant candidates seen; ties go to the lower index.

    Each comes with a score and with a key of which its score is a non-decreasing function: the
    score itself or |gradient|. What is known of keys that are too small saves later tiles work.
    """

    def __init__(self, count: int, num_connections: int, active: np.ndarray):
        self.count = min(count, num_connections - len(active))
        self._active = active
        self._threshold, self._last_tie = -math.inf, num_connections
        self._floor = self._tied_floor = -math.inf
        self._scores: list[np.ndarray] = []
        self._indices: list[np.ndarray] = []
        self._num_held = 0

    def floor(self, lowest_index: int) -> float:
        """The key up to which no candidate competes whose index is `lowest_index` or higher."""
        return self._tied_floor if lowest_index > self._last_tie else self._floor

    def add(self, keys: np.ndarray, scores: np.ndarray, indices: np.ndarray) -> None:
        """Takes in candidates; those that can't be among the best are dropped sooner or later."""
        is_tied = (scores == self._threshold) & (indices < self._last_tie)
        competes = np.flatnonzero((scores > self._threshold) | is_tied)
        competes = competes[~_contains(self._active, indices[competes])]
        self._scores.append(scores[competes])
        self._indices.append(indices[competes])
        self._num_held += len(competes)
        # Each time costs as much as there are; waiting keeps the threshold low.
        if self._num_held >= self.count + self.count // 8 + 1:
            self._keep_best()
        self._floor = max(self._floor, np.max(keys[scores < self._threshold], initial=-np.inf))
        at_most = np.max(keys[scores <= self._threshold], initial=-np.inf)
        self._tied_floor = max(self._tied_floor, at_most)

    def _keep_best(self) -> None:
        scores, indices = np.concatenate(self._scores), np.concatenate(self._indices)
        if len(scores) >= self.count:
            threshold = np.partition(scores, len(scores) - self.count)[len(scores) - self.count]
            above, ties = scores > threshold, np.flatnonzero(scores == threshold)
            num_ties = self.count - np.count_nonzero(above)
            ties = ties[np.argpartition(indices[ties], num_ties - 1)[:num_ties]]
            kept = np.concatenate([np.flatnonzero(above), ties])
            self._threshold, self._last_tie = threshold, indices[ties].max()
            scores, indices = scores[kept], indices[kept]
        self._scores, self._indices, self._num_held = [scores], [indices], len(scores)

    def by_index(self) -> tuple[np.ndarray, np.ndarray]:
        """The scores and indices of the best, by index."""
        if self.count == 0 or not self._scores:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        self._keep_best()
        scores, indices = self._scores[0], self._indices[0]
        order = np.argsort(indices)
        return scores[order], indices[order]


class _Blocks:
    """The tiles of a kernel, those with the largest bound on |gradient| first.

    Without a gradient they come in the order of their indices.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        gradient: TiledArray | None,
        tile_shape: tuple[int, int],
        at_once: int,
    ):
        self._num_units, self._tile_shape = shape[1], tile_shape
        norms = [np.zeros(size) for size in shape]
        if gradient is not None:
            norms = [gradient.row_norms.numpy(), gradient.column_norms.numpy()]
            norms = [side.astype(np.float64) for side in norms]
            _check_finite(all(np.isfinite(side).all() for side in norms))
        self._orders = [np.argsort(-side, kind="stable") for side in norms]
        # From here on in descending order.
        self._norms = [side[order] for side, order in zip(norms, self._orders, strict=True)]
        if gradient is not None:
            self._set_margin(gradient)
            # The first tile is ranked in full, which in a small kernel would be most of the work.
            # Where tiles are asked for together, each asking costs a pass, and large ones are best.
            if at_once == 1:
                largest = (_round_up(-(-size // _LEAST_ACROSS)) for size in shape)
                height, width = map(min, tile_shape, largest)
                self._tile_shape = tile_shape = height, width
        of_rows, of_columns = (
            side[::step] for side, step in zip(self._norms, tile_shape, strict=True)
        )
        self._num_across = len(of_columns)
        self._visits = np.argsort(-np.outer(of_rows, of_columns).reshape(-1), kind="stable")

    def _set_margin(self, gradient: TiledArray) -> None:
        """Makes the norms bound the gradient as it is computed, with all rounding."""
        # A sum of T terms is rounded by up to T / 2 ulps of the bound, and so were the norms.
        limits = np.finfo(gradient.dtype.as_numpy_dtype)
        margin = 1 + 2 * (gradient.num_terms + 16) * limits.eps
        if gradient.dtype != tf.float64:
            margin += _ROUNDED_FACTORS
        self._norms[0] *= margin
        # What is within the bound can't overflow, and needs no look of its own.
        _check_finite(self._norms[0][0] * self._norms[1][0] < limits.max)

    def __len__(self) -> int:
        return len(self._visits)

    def __getitem__(self, position: int) -> Block:
        rows, columns = (
            tf.constant(order[part])
            for order, part in zip(self._orders, self._parts(position), strict=True)
        )
        return rows, columns

    def _parts(self, position: int) -> tuple[slice, slice]:
        """Where the tile lies among the sorted rows and columns."""
        corner = divmod(int(self._visits[position]), self._num_across)
        down, across = (
            slice(i * step, (i + 1) * step)
            for i, step in zip(corner, self._tile_shape, strict=True)
        )
        return down, across

    def competing(self, position: int, best: _BestSoFar) -> Block | None:
        """The rows and columns of a tile whose |gradient| may be large enough."""
        block = self[position]
        floor = best.floor(self.lowest_index(block))
        rows, columns = (
            norms[part] for norms, part in zip(self._norms, self._parts(position), strict=True)
        )
        if rows[0] * columns[0] <= floor:
            return None
        height = _round_up(int(np.count_nonzero(rows * columns[0] > floor)))
        width = _round_up(int(np.count_nonzero(rows[0] * columns > floor)))
        return block[0][:height], block[1][:width]

    def lowest_index(self, block: Block) -> int:
        """No entry of a tile has a lower flat index."""
        rows, columns = (side.numpy() for side in block)
        return int(rows.min()) * self._num_units + int(columns.min())


def _round_up(size: int) -> int:
    return -(-size // _SIDE_STEP) * _SIDE_STEP


def _check_finite(is_finite: bool | tf.Tensor) -> None:
    if not bool(is_finite):
        raise ValueError(
            "Scores must be finite. Received: NaN or infinite scores. A diverged weight or "
            "gradient is the usual cause."
        )


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each of `values` is among `ascending`."""
    if len(ascending) == 0:
        return np.zeros(values.shape, bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values
