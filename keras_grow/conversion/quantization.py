"""Grown models in integers: Keras's own quantization, which must keep every zero."""

import collections
import warnings
from typing import Any

import keras
import numpy as np

from keras_grow.compatibility import check_is_keras_model
from keras_grow.conversion.conversion import make_plain
from keras_grow.conversion.reach import is_growable
from keras_grow.layers.kernel_types import InnerKernel, inner_kernels
from keras_grow.layers.paths import nested_layers
from keras_grow.structure.cloning import check_convertible, clone_with

_MODES = ("int8", "int4")
_OTHERS = {
    "gptq": "it makes up for rounding in all other weights, dormant ones too",
    "awq": "it makes up for rounding in all other weights, dormant ones too",
    "float8": "it goes on training all weights, dormant ones too",
}


def quantize(
    model: keras.Model,
    mode: str = "int8",
    *,
    config: Any = None,
    filters: Any = None,
    verify: Any = True,
) -> keras.Model:
    """A plain copy of a grown model whose kernels Keras has quantized; every zero stays a zero.

    Growable layers become Keras's own first (`make_plain`), then `model.quantize` does its work:
    Dense, EinsumDense (attention is made of them) and Embedding layers store integers of 8 or 4
    bits and a scale for each unit, and compute with activations that are rounded as they come. What
    Keras has no integers for, such as convolutions and recurrent layers, stays as it is, and a
    warning names it: `export_litert(model, path, dtype="int8")` stores all kernels in 8 bits.

    Keras 3.15 loads no `.keras` file with quantized layers inside another layer, such as an
    attention: keep the grown model, and export the quantized one.

    Grow and prune first, train to the end, and quantize last: a quantized layer is not trained, and
    the copy has forgotten which connections were dormant. Zeros take as many bits as other
    numbers; `compact` before, where units have gone.

    Args:
        model: a built Sequential or functional model, growable or plain.
        mode: "int8" or "int4".
        config: a `keras.quantizers.QuantizationConfig` of that mode, for other quantizers.
        filters: which layers, as `keras.Model.quantize` takes it; all of them by default.
        verify: how the plain copy is checked before it is quantized, as in `make_plain`.

    Returns:
        A new model, not compiled, of Keras's own layers.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for other modes ("gptq" and "awq" make up for rounding in weights that must
            stay 0), quantizers that give a zero another value, a model of which nothing can be
            quantized, layers that compute in float16, and as `make_plain`.

    Example:

    ```python
    keras_grow.quantize(keras_grow.compact(grown).model).save("small.keras")
    ```
    """
    check_is_keras_model(model)
    mode = getattr(config, "mode", mode)
    if mode not in _MODES:
        why = f": {_OTHERS[mode]}" if mode in _OTHERS else ""
        raise ValueError(
            f"Zeros are kept by the modes {list(_MODES)}. Received: mode={mode!r}{why}. Choose one "
            "of them, or quantize a plain copy, `keras_grow.make_plain(model)`, knowing that "
            "dormant connections may wake."
        )
    plain = _plain_copy(model, verify)
    kernels = list(inner_kernels(plain))
    for kernel in kernels:
        _check_keeps_zeros(kernel, config)
    sizes = [kernel.variable.value.shape.num_elements() for kernel in kernels]
    options = {"config": config, "filters": filters}
    with warnings.catch_warnings():
        # Layers that have nothing to quantize are named too, such as Flatten.
        warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
        plain.quantize(mode, **{name: o for name, o in options.items() if o is not None})
    left: collections.Counter[str] = collections.Counter()
    for kernel, size in zip(kernels, sizes, strict=True):
        if getattr(kernel.layer, "quantization_mode", None) is None:
            left[f"{kernel.path!r} ({type(kernel.layer).__name__})"] += size
    if sum(left.values()) == sum(sizes):
        raise ValueError(
            "Keras quantizes Dense, EinsumDense and Embedding layers. Received: a model of whose "
            f"kernels none was quantized: {', '.join(left) or 'it has none'}. "
            "`keras_grow.export_litert(model, path, dtype='int8')` stores all kernels in 8 bits."
        )
    if left and filters is None:
        warnings.warn(
            f"{sum(left.values()) / sum(sizes):.1%} of the weights stay as they are, Keras has no "
            f"integers for them: {', '.join(left)}. `keras_grow.export_litert(model, path, "
            "dtype='int8')` stores all kernels in 8 bits; `filters` says what you expect.",
            stacklevel=2,
        )
    return plain


def _plain_copy(model: keras.Model, verify: Any) -> keras.Model:
    if any(is_growable(layer) for layer in nested_layers(model)):
        return make_plain(model, verify=verify)
    check_convertible(model)
    return clone_with(model, lambda layer, inside: None, lambda old, new: None)


def _check_keeps_zeros(kernel: InnerKernel, config: Any) -> None:
    """Raises `ValueError` if the quantizer of a config gives a zero of a kernel another value."""
    quantizer = getattr(config, "weight_quantizer", None)
    if quantizer is None:  # Keras's own are symmetric, or have a zero point.
        return
    weights = np.asarray(kernel.variable.value)
    integers, _ = quantizer(weights, to_numpy=True)
    num_lost = np.count_nonzero(np.asarray(integers)[weights == 0])
    if num_lost:
        raise ValueError(
            f"A quantizer must keep 0 at 0. Received: a `weight_quantizer` that gives {num_lost} "
            f"zeros of {kernel.path!r} another value. Use a symmetric one, such as "
            "`keras.quantizers.AbsMaxQuantizer`."
        )
