r"""Link prediction after Cannistraci and Hebb: which connections a topology lacks.

A path of three active connections leads from input u over a unit t and an input z to unit v. The
nodes t and z on such paths are the local community of u and v. The more of its links such a node
has inside of it, and the fewer outside, the more the community wants a link from u to v.

In a bipartite graph the links of z inside are those to neighbors of u, $i_z = |N(z) \cap N(u)|$,
and those outside all others but the one to v, $e_z = |N(z)| - i_z - 1$; of t likewise with v and u.
"""

import numpy as np
import tensorflow as tf

from keras_grow.policies.topology import Topology, TopologyStatistic


class CH2L3n(TopologyStatistic):
    r"""The sum over the nodes of the local community of their links inside over those outside.

    $$ s_{uv} = \sum_{z} \frac{1 + i_z}{1 + e_z} $$

    over all t and z on paths of three connections from u to v. It takes four products of the matrix
    of zeros and ones, of which one factor is sparse.

    Reference: Zhang et al., "Brain network science modelling of sparse neural networks enables
    Transformers and LLMs to perform as fully connected", arXiv:2501.19107, equation 3.
    """

    def tile(self, topology: Topology, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        of_left = self._over_community(topology, left, 0)
        of_right = self._over_community(topology, right, 1)
        return tf.gather(tf.transpose(of_left), right, axis=1) + tf.gather(of_right, left)

    def _over_community(self, topology: Topology, nodes: tf.Tensor, side: int) -> tf.Tensor:
        """Sums over the community's nodes of one side: float32 of shape `(other side, nodes)`."""

        def sums() -> tf.Tensor:
            shared, outside = _links(topology, nodes, side)
            return topology.times(tf.where(shared > 0, (1 + shared) / outside, 0), 1 - side)

        return topology.last((self, side), nodes, sums)


class CH3L3p(TopologyStatistic):
    r"""The sum over paths of three connections that leave their community by few links.

    $$ s_{uv} = \sum_{t, z} \frac{1}{\sqrt{(1 + e_t)(1 + e_z)}} $$

    over all paths u, t, z, v. It takes time with the cube of the degree for each node.

    Reference: Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape
    intelligence brain-inspired theory for ultra-sparse advantage in deep learning", ICLR 2024;
    Muscoloni et al., "Adaptive network automata modelling of complex networks", 2020.
    """

    def tile(self, topology: Topology, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        into = topology.adjacency(right, 1)  # (columns, left nodes)
        of_units = self._outside(topology, right, 1)  # (right nodes, columns)
        of_inputs = self._outside(topology, left, 0)  # (left nodes, rows)
        rows = [tf.zeros((0, len(right)))]
        for place, node in enumerate(np.asarray(left)):
            units = topology.neighbors(node, 0)
            # From u over each of its units t: all z that t has, as far as they lead to v.
            weights = topology.adjacency(units, 1) * of_inputs[:, place]
            paths = tf.matmul(weights, into, transpose_b=True)
            row = tf.reduce_sum(paths * tf.gather(of_units, units), axis=0)
            rows.append(row[None])
        return tf.concat(rows, axis=0)

    def _outside(self, topology: Topology, nodes: tf.Tensor, side: int) -> tf.Tensor:
        def weights() -> tf.Tensor:
            shared, outside = _links(topology, nodes, side)
            return tf.where(shared > 0, tf.math.rsqrt(outside), 0)

        return topology.last((self, side), nodes, weights)


def _links(topology: Topology, nodes: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Links of all nodes of a side inside the community of each of `nodes`, and 1 + those outside.

    Returns:
        Two float32 tensors of shape `(side, nodes)`.
    """
    shared = topology.common_neighbors(nodes, side)
    # The link to the other end is among those outside of `shared`, and stands for the 1.
    return shared, tf.maximum(topology.degrees[side][:, None] - shared, 1)
