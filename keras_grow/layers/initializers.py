"""Initializers that know which connections are active."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_grow.kernel_axes import KernelAxes


@keras.saving.register_keras_serializable(package="keras_grow")
class ActiveFanIn(keras.initializers.Initializer):
    """Scales another initializer to the number of inputs that each unit really has.

    The usual initializers choose the variance for the fan-in of a dense kernel. A unit with few
    active inputs then starts too quiet. This one multiplies each unit's weights by
    `sqrt(fan_in / active_fan_in)`, which keeps the variance of the pre-activation.

    Args:
        initializer: a Keras initializer or its name, scaled to the fan-in.

    Example:

    >>> import keras_grow
    >>> layer = keras_grow.GrowableDense(
    ...     100, kernel_initializer=keras_grow.ActiveFanIn("he_normal"), initial_density=0.1
    ... )

    Reference: Evci et al., "Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win",
    arXiv:2010.03533, section 3.1.
    """

    def __init__(self, initializer: str | keras.initializers.Initializer = "glorot_uniform"):
        self.initializer = keras.initializers.get(initializer)

    def __call__(self, shape, dtype=None, mask=None, axes=None):
        """Returns a kernel of `shape`.

        Args:
            shape: the kernel's shape.
            dtype: the kernel's dtype.
            mask: bool array of `shape`, the active connections; `None` for all.
            axes: the `KernelAxes`; by default units are the last axis.
        """
        kernel = self.initializer(shape, dtype=dtype)
        if mask is None:
            return kernel
        return self.rescaled(kernel, mask, KernelAxes(tuple(shape)) if axes is None else axes)

    def rescaled(self, kernel: Any, mask: np.ndarray, axes: KernelAxes) -> Any:
        """A kernel that was drawn for all connections, for those that are active."""
        gain = _gain(axes, axes.count_by_unit(np.flatnonzero(mask)))
        return kernel * ops.cast(axes.per_unit(gain), kernel.dtype)

    def get_config(self):
        return {"initializer": keras.initializers.serialize(self.initializer)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.initializers.deserialize(config["initializer"]))


def _gain(axes: KernelAxes, active_fan_in: np.ndarray) -> np.ndarray:
    return (axes.fan_in / active_fan_in.clip(min=1)) ** 0.5


_WEIGHT_BY_WEIGHT = (
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    keras.initializers.Constant,
    keras.initializers.Zeros,
    keras.initializers.Ones,
)


def draw(
    initializer: keras.initializers.Initializer,
    axes: KernelAxes,
    connections: np.ndarray,
    dtype: str | None,
) -> Any:
    """Weights for some connections of a kernel, as the initializer would draw them for all.

    Args:
        initializer: one that draws weights one by one, or `ActiveFanIn` of one.
        axes: the axes of the kernel.
        connections: flat indices of the connections that get a weight, all that are active.
        dtype: the kernel's dtype.

    Returns:
        Floats of shape `(count,)`.

    Raises:
        ValueError: for an initializer that makes a kernel as a whole.
    """
    count = len(connections)
    if isinstance(initializer, ActiveFanIn):
        weights = draw(initializer.initializer, axes, connections, dtype)
        gain = _gain(axes, axes.count_by_unit(connections))
        return weights * ops.cast(gain[axes.units_of(connections)], weights.dtype)
    if isinstance(initializer, _WEIGHT_BY_WEIGHT):
        return initializer((count,), dtype=dtype)
    if isinstance(initializer, keras.initializers.VarianceScaling):
        if count == 0:
            return ops.zeros((0,), dtype)
        fan_in, fan_out = axes.fan_in, axes.fan_out
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        # The fan of a list of weights is its length.
        in_a_list = keras.initializers.VarianceScaling(
            scale=initializer.scale * count / max(1.0, fans[initializer.mode]),
            mode="fan_in",
            distribution=initializer.distribution,
            seed=initializer.seed,
        )
        return in_a_list((count,), dtype=dtype)
    raise ValueError(
        "Connections need an initializer that draws weights one by one: VarianceScaling "
        "(Glorot, He, LeCun), a normal, uniform or constant one, or keras_grow.ActiveFanIn of "
        "these. "
        f"Received: kernel_initializer={initializer!r}"
    )
