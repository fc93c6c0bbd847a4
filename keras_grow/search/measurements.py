"""What was measured of a layer, and how policies get to see it."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from keras_grow.policies.scores import Score
from keras_grow.policies.start_values import StartValue
from keras_grow.policies.statistics import Statistic
from keras_grow.policies.view import Connections
from keras_grow.search.tiled_array import Values, entries
from keras_grow.search.tiled_search import TiledSearch
from keras_grow.search.topology_array import TopologyArray


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What was measured of one layer, and when; layers make `Connections` of it.

    Attributes:
        layer_index: the layer's position among the growable layers of its model.
        step: how many steps the optimizer had made.
        statistics: for each statistic floats that broadcast against the kernel; of a sparse layer
            they may be a `TiledArray`.
        search: how a sparse layer looks for its best dormant connections, `None` for defaults.
    """

    layer_index: int = 0
    step: int = 0
    statistics: Mapping[Statistic, Values] = dataclasses.field(default_factory=dict)
    search: TiledSearch | None = None

    def seen_by(self, policy: Score | StartValue) -> "Measurements":
        """What a policy gets to see: the statistics that it names."""
        named = {each: self.statistics[each] for each in policy.statistics}
        return dataclasses.replace(self, statistics=named)

    def connections(
        self,
        weight: tf.Tensor,
        active: tf.Tensor,
        kernel_shape: tuple[int, ...],
        l1: float,
        indices: tf.Tensor | None = None,
    ) -> Connections:
        """What policies see of the connections of a kernel, all or those at flat `indices`.

        Args:
            weight, active, l1: see `Connections`.
            kernel_shape: the shape of the kernel with every connection in it.
            indices: int64 of shape `(count,)`.
        """
        statistics = {}
        for statistic, values in self.statistics.items():
            if indices is not None:
                values = entries(values, kernel_shape, indices)
            elif isinstance(values, TopologyArray):
                values = tf.reshape(values.whole(), kernel_shape)
            statistics[statistic] = tf.cast(values, weight.dtype)
        return Connections(
            weight, active, statistics, l1=l1, layer_index=self.layer_index, step=self.step
        )
