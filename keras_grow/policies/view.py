"""What a policy gets to see of a layer's connections."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from keras_grow.policies.statistics import Statistic


@dataclasses.dataclass(frozen=True)
class Connections:
    """Some connections of one layer, as scores and start values see them.

    Every array holds one number per connection. Their common shape is the kernel's where a
    whole layer is ranked, `(count,)` where the chosen connections get their start values, and a
    tile of the kernel where a layer never holds all of it. A policy that works element by
    element therefore serves all three.

    A statistic that the policy names is read as `connections[statistic]`: floats of the common
    shape, or of one that broadcasts against it where all units, or all inputs, have the same.

    Attributes:
        weight: float, the effective kernel; 0 at dormant connections.
        active: bool, True where the connection takes part.
        statistics: what was measured for the policy, an array for each statistic.
        l1: the factor of the kernel's L1 regularizer, 0.0 without one.
        layer_index: the layer's position among the growable layers of its model.
        first_index: the flat index of the first of them, which tells a layer's tiles apart.
        step: how many steps the optimizer had made, 0 without an optimizer.
    """

    weight: tf.Tensor
    active: tf.Tensor
    statistics: Mapping[Statistic, tf.Tensor] = dataclasses.field(default_factory=dict)
    l1: float = 0.0
    layer_index: int = 0
    first_index: int = 0
    step: int = 0

    def __getitem__(self, statistic: Statistic) -> tf.Tensor:
        if statistic not in self.statistics:
            raise ValueError(
                "A policy sees the statistics that it names. Received: a look at "
                f"{statistic!r}, expected one of {list(self.statistics)}. Add it to the class: "
                f"`statistics = ({statistic!r},)`."
            )
        return self.statistics[statistic]
