"""The topology of a kernel: which of its connections are active, and nothing of their weights."""

import abc
from collections.abc import Callable, Hashable

import numpy as np
import tensorflow as tf

from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.statistic import Statistic


class Topology:
    """The bipartite graph of a kernel's active connections, as sparse matrices of zeros and ones.

    Its left nodes are what a unit reads: inputs, of a convolution each at each place of the window.
    Its right nodes are the units.

    Args:
        axes: the axes of the kernel, of which those of units come last.
        connections: int64 of shape `(num_active,)`, flat indices, ascending.

    Attributes:
        shape: a pair of integers, how many nodes there are left and right.
        degrees: float32 of shapes `(left,)` and `(right,)`, how many connections each node has.

    Raises:
        ValueError: for a kernel with axes behind those of its units.
    """

    def __init__(self, axes: KernelAxes, connections: np.ndarray | tf.Tensor):
        if axes.units != tuple(range(-len(axes.units), 0)):
            raise ValueError(
                "A topology is read off kernels whose last axes are those of units. Received: a "
                f"kernel of shape {axes.shape} with units along {axes.units}. Name other layers by "
                "`layers=`, or use a score that sees no topology."
            )
        connections = np.asarray(connections)
        self.shape = axes.size // axes.num_units, axes.num_units
        left, right = np.divmod(connections, self.shape[1])
        ones = tf.ones(len(connections))
        self._matrix = tf.SparseTensor(np.stack([left, right], axis=1), ones, self.shape)
        sizes = zip((left, right), self.shape, strict=True)
        self._starts, degrees = [], []
        for nodes, size in sizes:
            degree = np.bincount(nodes, minlength=size)
            self._starts.append(np.concatenate([[0], np.cumsum(degree)]))
            degrees.append(tf.constant(degree, tf.float32))
        self.degrees = tuple(degrees)
        self._neighbors = right, left[np.argsort(right, kind="stable")]
        self._last: dict[Hashable, tuple[np.ndarray, tf.Tensor]] = {}

    def times(self, dense: tf.Tensor, side: int) -> tf.Tensor:
        """For each node of a side the sum over its neighbors of rows of `dense`.

        Args:
            dense: float32 of shape `(other side, columns)`.
            side: 0 for the left nodes, 1 for the right ones.

        Returns:
            float32 of shape `(side, columns)`.
        """
        return tf.sparse.sparse_dense_matmul(self._matrix, dense, adjoint_a=side == 1)

    def neighbors(self, node: int, side: int) -> np.ndarray:
        """The nodes of the other side to which a node has an active connection, ascending."""
        starts = self._starts[side]
        return self._neighbors[side][starts[node] : starts[node + 1]]

    def adjacency(self, nodes: np.ndarray | tf.Tensor, side: int) -> tf.Tensor:
        """Which nodes of the other side are neighbors: float32 of shape `(nodes, other side)`."""
        of_nodes = [self.neighbors(node, side) for node in np.asarray(nodes)]
        block = np.zeros((len(of_nodes), self.shape[1 - side]), np.float32)
        rows = np.repeat(np.arange(len(of_nodes)), [len(each) for each in of_nodes])
        block[rows, np.concatenate([np.zeros(0, np.int64), *of_nodes])] = 1
        return tf.constant(block)

    def common_neighbors(self, nodes: np.ndarray | tf.Tensor, side: int) -> tf.Tensor:
        """How many neighbors each node of a side shares with some: float32, `(side, nodes)`."""
        return self.times(tf.transpose(self.adjacency(nodes, side)), side)

    def last(self, key: Hashable, nodes: tf.Tensor, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        """What `make` gives, or gave the last time under `key`, if that was for the same nodes.

        Neighboring tiles ask for the same rows, or the same columns.
        """
        numbers = np.asarray(nodes)
        known = self._last.get(key)
        if known is None or not np.array_equal(known[0], numbers):
            known = self._last[key] = numbers, make()
        return known[1]


class TopologyStatistic(Statistic, abc.ABC):
    """What is known of a connection from which others of its kernel are active.

    It is looked up where connections are about to change, behind what is dropped.
    """

    @abc.abstractmethod
    def tile(self, topology: Topology, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        """The statistic of all connections from some left nodes to some right ones.

        Args:
            topology: of one kernel.
            left, right: int64 of shapes `(rows,)` and `(columns,)`, numbers of nodes.

        Returns:
            float32 of shape `(rows, columns)`; what it says of active connections is not used.
        """
