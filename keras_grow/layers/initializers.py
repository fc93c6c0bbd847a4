"""Initialisers that know which connections are active."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_grow")
class ActiveFanIn(keras.initializers.Initializer):
    """Scales another initialiser to the number of inputs that each unit really has.

    The usual initialisers choose the variance for the fan-in of a dense kernel. A unit with few
    active inputs then starts too quiet. This one multiplies each unit's weights by
    `sqrt(fan_in / active_fan_in)`, which keeps the variance of the pre-activation.

    Args:
        initializer: a Keras initialiser or its name, scaled to the fan-in.

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

    def __call__(self, shape, dtype=None, mask=None):
        """Returns a kernel of `shape`, units last.

        Args:
            shape: the kernel's shape.
            dtype: the kernel's dtype.
            mask: bool array of `shape`, the active connections; `None` for all.
        """
        kernel = self.initializer(shape, dtype=dtype)
        if mask is None:
            return kernel
        active_fan_in = mask.sum(axis=tuple(range(mask.ndim - 1))).clip(min=1)
        scale = (math.prod(shape[:-1]) / active_fan_in) ** 0.5
        return kernel * ops.cast(scale, kernel.dtype)

    def get_config(self):
        return {"initializer": keras.initializers.serialize(self.initializer)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.initializers.deserialize(config["initializer"]))
