"""GrowableDense: a Dense layer whose connections can be dormant."""

import keras

from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.plain_kernel import PlainKernel


@keras.saving.register_keras_serializable(package="keras_grow")
class GrowableDense(PlainKernel, DenseLike):
    r"""A `keras.layers.Dense` whose connections can be dormant, grow and be pruned.

    $$ y = \mathrm{activation}(x (m \odot W) + b) $$

    with a bool mask $m$, True = active. It is trained, saved and called as Dense is. At density 1
    its outputs are Dense's to the bit (without XLA), and so are gradients and training, but for
    kernels of a million connections and more, whose sums may be rounded otherwise. What a dormant
    connection stores reaches no output, loss or gradient; regularizers and constraints act on
    the effective kernel $m \odot W$, and stored values are set back to 0 after every update.

    Args:
        units: positive integer, the size of the output's last axis.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
            `keras.layers.Dense`. `kernel_initializer=keras_grow.ActiveFanIn("he_normal")` scales
            to the inputs that each unit really has.
        initial_density: float from 0 to 1, the share of connections that start active: an exact
            count, at random, at least one input per unit where the count allows; one connection at
            least, unless it is 0.
        seed: non-negative integer that fixes which; `None` follows
            `keras.utils.set_random_seed`.

    Input shape:
        `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`.

    Attributes:
        kernel: variable of shape `(inputs, units)`, what is stored.
        kernel_mask: non-trainable bool variable of shape `(inputs, units)`.
        bias: variable of shape `(units,)`, or `None`.
        num_connections, num_active, density: counts, now.

    Raises:
        ValueError: for units, densities or seeds out of range.

    Example:

    >>> import numpy as np
    >>> import keras_grow
    >>> layer = keras_grow.GrowableDense(4, initial_density=0.25, seed=0)
    >>> layer(np.ones((2, 8), "float32")).shape
    TensorShape([2, 4])
    >>> layer.num_active, layer.num_connections
    (8, 32)

    Reference: Dai, Yin, Jha, "NeST: A Neural Network Synthesis Tool Based on a Grow-and-Prune
    Paradigm", arXiv:1711.02017.
    """
