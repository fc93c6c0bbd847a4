"""What the topology of a kernel tells of its connections, tile by tile."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_grow.policies.topology import Topology, TopologyStatistic
from keras_grow.search.tiled_array import Block, TiledArray

# How many left nodes a kernel that is looked at as a whole is computed for at a time.
_ROWS = 512


class TopologyArray(TiledArray):
    """A topology statistic of one kernel, computed where it is asked for.

    Args:
        statistic: what is computed.
        topology: of the kernel.
    """

    dtype = tf.float32
    num_terms = 1

    def __init__(self, statistic: TopologyStatistic, topology: Topology):
        self._statistic, self._topology = statistic, topology
        self.shape = topology.shape
        # No bound is known.
        self.row_norms, self.column_norms = (tf.fill([n], np.inf) for n in self.shape)

    def tiles(self, blocks: Sequence[Block]) -> Iterator[tf.Tensor]:
        for rows, columns in blocks:
            yield self._statistic.tile(self._topology, rows, columns)

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        rows, columns = indices // self.shape[1], indices % self.shape[1]
        needed, of_rows = tf.unique(rows, tf.int64)
        values = tf.zeros(tf.shape(indices))
        for start in range(0, len(needed), _ROWS):
            tile = self._statistic.tile(
                self._topology, needed[start : start + _ROWS], self._columns
            )
            here = tf.where(of_rows // _ROWS == start // _ROWS)
            row, column = tf.gather_nd(of_rows, here) - start, tf.gather_nd(columns, here)
            found = tf.gather_nd(tile, tf.stack([row, column], axis=1))
            values = tf.tensor_scatter_nd_update(values, here, found)
        return values

    def whole(self) -> tf.Tensor:
        """The statistic of all connections: float32 of `shape`."""
        rows = tf.range(self.shape[0], dtype=tf.int64)
        blocks = [
            (rows[start : start + _ROWS], self._columns) for start in range(0, len(rows), _ROWS)
        ]
        return tf.concat([tf.zeros((0, self.shape[1])), *self.tiles(blocks)], axis=0)

    @property
    def _columns(self) -> tf.Tensor:
        return tf.range(self.shape[1], dtype=tf.int64)
