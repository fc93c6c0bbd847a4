"""Layers whose kernels are masked where they stand, in models that no copy can be made of."""

import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_grow.keras_private import add_inside, is_keras_own, remove_inside
from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.inner_kernel import Inner, MaskedInner
from keras_grow.layers.kernel_types import inner_kernels, kernels_of
from keras_grow.layers.masked_calls import call_masked, mask_kernels
from keras_grow.layers.paths import layers_in

_NAME = "masked_kernels"


def mask_in_place(layer: keras.Layer) -> list[Inner]:
    """Masks the kernels of a layer, which stays the object it is: all of them active.

    Its variables stay too, so that an optimizer goes on with them. It is called with its effective
    kernels from now on, whoever calls it.

    Args:
        layer: one of `maskable_layers`.
    """
    kernels = mask_kernels(layer, MaskedInner, 1.0, None)
    add_inside(layer, _NAME, kernels)
    call = layer.call
    # Keras reads from `call` which arguments there are.
    vars(layer)["call"] = functools.wraps(call)(functools.partial(_call, layer, call))
    return kernels


def unmask_in_place(layer: keras.Layer) -> None:
    """Undoes `mask_in_place`: dormant weights stay 0, and are trained from now on."""
    for kernel in masked_in_place(layer):
        kernel.release()
    del vars(layer)["call"]
    remove_inside(layer, _NAME)


def masked_in_place(layer: keras.Layer) -> list[Inner]:
    """The growable kernels that a layer got in place, none for others."""
    return [] if isinstance(layer, GrowableKernels) else getattr(layer, _NAME, [])


def maskable_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """The layers in a model of any kind that apply kernels, each as a whole, each once.

    They are Keras's own layers, such as a recurrent one with its cell, and layers of one's own that
    have a kernel. Growable layers are passed by.
    """
    seen: set[int] = set()

    def visit(layer: keras.Layer) -> Iterator[keras.Layer]:
        if id(layer) in seen or isinstance(layer, Growable | GrowableKernels):
            return
        seen.add(id(layer))
        is_model = isinstance(layer, keras.Model)
        is_whole = isinstance(layer, keras.layers.RNN) or bool(kernels_of(layer))
        if is_whole or (is_keras_own(layer) and not is_model and not _passes_on(layer)):
            if masked_in_place(layer) or any(True for _ in inner_kernels(layer)):
                yield layer
            return
        for inner in layers_in(layer):
            yield from visit(inner)

    yield from visit(layer)


def _call(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
    return call_masked(layer, layer, call, args, kwargs)


def _passes_on(layer: keras.Layer) -> bool:
    """Whether a layer of Keras's calls layers that it was given."""
    return isinstance(layer, keras.layers.Wrapper | keras.layers.Pipeline)
