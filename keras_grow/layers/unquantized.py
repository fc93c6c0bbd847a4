"""What `quantize` answers where a mask stands: Keras would pass the layer by, or lose the mask."""

import functools
from typing import Any, NoReturn

import keras


def refuse(layer: keras.Layer, *args: Any, **kwargs: Any) -> NoReturn:
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
    if not isinstance(own, _Refusal):
        vars(layer)["quantize"] = _Refusal(layer, own)


def allow_in(layer: keras.Layer) -> None:
    """Undoes `refuse_in`."""
    refusal = vars(layer).get("quantize")
    if isinstance(refusal, _Refusal):
        vars(layer)["quantize"] = refusal.own


class _Refusal(functools.partial):
    """The `quantize` of a layer that refuses it; `own` is what it had."""

    own: Any

    def __new__(cls, layer: keras.Layer, own: Any):
        refusal = super().__new__(cls, refuse, layer)
        refusal.own = own
        return refusal
