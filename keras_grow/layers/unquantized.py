"""What `quantize` answers where a mask stands: Keras would pass the layer by, or lose the mask."""

from typing import Any, NoReturn

import keras

# What the layer had in the place of the function that refuses.
_OWN = "_keras_grow_own"


def refuse(layer: keras.Layer) -> NoReturn:
    """Raises the `ValueError` of a layer that can't be quantized as it is."""
    raise ValueError(
        "A layer with dormant connections is quantized as a plain one. Received: `quantize` of "
        f"layer {layer.name!r}, a {type(layer).__name__}. Use `keras_grow.quantize(model)`, which "
        "makes a plain copy that keeps every zero. `model.quantize` may have changed plain layers "
        "before it reached this one: load or make the model anew."
    )


def refuse_in(layer: keras.Layer) -> None:
    """Has a layer of another kind, whose kernel is masked, refuse to be quantized."""
    own = vars(layer).get("quantize")
    if hasattr(own, _OWN):
        return

    def quantize(*args: Any, **kwargs: Any) -> NoReturn:
        refuse(layer)

    setattr(quantize, _OWN, own)
    vars(layer)["quantize"] = quantize


def allow_in(layer: keras.Layer) -> None:
    """Undoes `refuse_in`."""
    refusal = vars(layer).get("quantize")
    if hasattr(refusal, _OWN):
        vars(layer)["quantize"] = getattr(refusal, _OWN)
