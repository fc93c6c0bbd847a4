"""GrowableKernels: any Keras layer, with kernels whose connections can be dormant."""

import functools
from typing import Any, ClassVar, NoReturn

import keras
import tensorflow as tf

from keras_grow.integers import checked_integer
from keras_grow.keras_private import add_inside
from keras_grow.layers.inner_kernel import Inner, MaskedInner, WeightNormInner
from keras_grow.layers.kernel_types import is_built
from keras_grow.layers.masked_calls import call_masked, mask_kernels
from keras_grow.layers.unquantized import refuse
from keras_grow.policies.densities import check_initial_density


@keras.saving.register_keras_serializable(package="keras_grow")
class GrowableKernels(keras.layers.Wrapper):
    r"""A Keras layer whose kernels' connections can be dormant, grow and be pruned.

    The layer stays what it is: it is called with the effective kernels $m \odot W$ in the place of
    its variables, so that it computes as it always does, by the same operations. It may be a
    recurrent layer, an attention, a convolution of any kind, an embedding, or a block of layers:
    all kernels inside it that `keras_grow.kernel_types` lists grow. Each is a growable layer of
    its own for every verb, called by its path: `"lstm/recurrent_kernel"`.

    Everything else is as in `keras_grow.GrowableDense`: at density 1 outputs, gradients and
    training are those of the layer (without XLA); what a dormant connection stores reaches nothing;
    regularizers and constraints act on effective kernels.

    Args:
        layer: a layer; it belongs to the wrapper from now on. Where it is built, its dormant
            weights become 0.
        initial_density: as in `GrowableDense`, of each kernel.
        seed: non-negative integer that fixes which; each kernel's own derives from it.

    Call arguments:
        Those of the layer.

    Attributes:
        layer: the layer.
        masked_kernels: the growable kernels, once built, in the order of the layers inside.

    Raises:
        ValueError: for a layer without a known kernel, densities or seeds out of range, and kernels
            that can't be masked: those with LoRA, or quantized.

    Example:

    >>> import numpy as np
    >>> import keras, keras_grow
    >>> layer = keras_grow.GrowableKernels(keras.layers.LSTM(4), initial_density=0.25, seed=0)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 4])
    >>> [(kernel.name, kernel.num_active) for kernel in layer.masked_kernels]
    [('kernel', 12), ('recurrent_kernel', 16)]
    """

    kernel_class: ClassVar[type[Inner]] = MaskedInner

    def __init__(self, layer, *, initial_density=1.0, seed=None, **kwargs):
        if isinstance(initial_density, dict):
            initial_density = keras.saving.deserialize_keras_object(initial_density)
        check_initial_density(initial_density)
        if not isinstance(layer, keras.Layer):
            raise ValueError(f"Expected a Keras layer whose kernels grow. Received: {layer!r}")
        # Keras reads from `call` which arguments there are, masks of timesteps among them.
        vars(self)["call"] = functools.wraps(layer.call)(functools.partial(self._call))
        kwargs.setdefault("dtype", getattr(layer, "dtype_policy", None))
        super().__init__(layer, **kwargs)
        self.initial_density = initial_density
        self.seed = None if seed is None else checked_integer(seed, "seed", least=0)
        # The layer itself casts what it is given, or not.
        self.autocast = layer.autocast
        self.supports_masking = layer.supports_masking
        self.masked_kernels: list[Inner] = []
        if is_built(layer):
            self.build()

    def __call__(self, *args, **kwargs):
        if not self.built:
            self._build_for(args, kwargs)
        return super().__call__(*args, **kwargs)

    def _build_for(self, args: Any, kwargs: Any) -> None:
        """Builds the layer as a call would, without what a call does to its state."""

        def symbol(value: Any) -> Any:
            if isinstance(value, keras.KerasTensor) or not hasattr(value, "shape"):
                return value
            dtype = keras.backend.standardize_dtype(value.dtype)
            is_sparse = isinstance(value, tf.SparseTensor)
            return keras.KerasTensor(value.shape, dtype, is_sparse)

        if not is_built(self.layer):
            self.layer(
                *keras.tree.map_structure(symbol, args), **keras.tree.map_structure(symbol, kwargs)
            )
        self.build()

    def build(self, *shapes, **named_shapes):
        if not self.layer.built:
            self.layer.build(*shapes, **named_shapes)
        if not is_built(self.layer) and len(shapes) == 1:
            self.layer(keras.KerasTensor(shapes[0], self.layer.compute_dtype))
        kernels = mask_kernels(self.layer, self.kernel_class, self.initial_density, self.seed)
        add_inside(self, "masked_kernels", kernels)
        self.built = True

    def quantize(self, *args, **kwargs) -> NoReturn:
        """Raises `ValueError`, as `Growable.quantize` does."""
        refuse(self)

    def get_build_config(self):
        return None  # The layer is built by what it is loaded with, or by the first call.

    def _call(self, *args, **kwargs):
        return call_masked(self, self.layer, self.layer, args, kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs, previous_mask):
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self):
        return {
            **super().get_config(),
            "initial_density": keras.saving.serialize_keras_object(self.initial_density),
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_grow")
class WeightNormKernels(GrowableKernels):
    r"""A Keras layer whose growable kernels have their directions and lengths learned apart.

    $$ w = \frac{g}{\lVert v \rVert} v $$

    with the norm per unit over the active entries of $v$, for each kernel inside the layer; its
    variables store $v$. Everything else is as in `keras_grow.GrowableKernels` and
    `keras_grow.WeightNormDense`.

    Args:
        layer, initial_density, seed: as in `GrowableKernels`.

    Example:

    >>> import numpy as np
    >>> import keras, keras_grow
    >>> layer = keras_grow.WeightNormKernels(keras.layers.GRU(4))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 4])

    Reference: Salimans, Kingma, arXiv:1602.07868, equations 2 and 3.
    """

    kernel_class = WeightNormInner
