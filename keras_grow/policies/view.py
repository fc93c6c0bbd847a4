"""What a policy gets to see of a layer's connections."""

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Connections:
    """Some connections of one layer, as scores and start values see them.

    Every array holds one number per connection. Their common shape is the kernel's where a
    whole layer is ranked, `(count,)` where the chosen connections get their start values, and a
    tile of the kernel where a layer never holds all of it. A policy that works element by
    element therefore serves all three.

    Attributes:
        weight: float, the effective kernel; 0 at dormant connections.
        active: bool, True where the connection takes part.
        gradient: float, mean dL/dW over the growth data with its sign, or `None` where the
            policy did not ask for it (`needs_gradient`).
        input_rms: float, the root mean square of each connection's input over the data, of a
            shape that broadcasts against `weight`, or `None` where the policy did not ask for
            it (`needs_input_rms`).
        output_scale: float, what a BatchNormalization behind the layer multiplies each
            connection's unit by at inference, `gamma / sqrt(moving_variance + epsilon)`, 1 without
            one; of a shape that broadcasts against `weight`, or `None` where the policy did not
            ask for it (`needs_output_scale`).
        l1: the factor of the kernel's L1 regulariser, 0.0 without one.
        layer_index: the layer's position among the growable layers of its model.
        first_index: the flat index of the first of them, which tells a layer's tiles apart.
        step: how many steps the optimizer had made, 0 without an optimizer.
    """

    weight: tf.Tensor
    active: tf.Tensor
    gradient: Any
    input_rms: Any
    output_scale: Any
    l1: float
    layer_index: int
    first_index: int
    step: int
