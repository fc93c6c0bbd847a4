"""The table of wirings: one entry a layer type."""

from typing import Any

import keras

from keras_grow.structure.kernels import has_kernel, why_not_followed
from keras_grow.structure.rules import computing
from keras_grow.structure.wired_attention import Attention, GroupedQueryAttention
from keras_grow.structure.wired_convolutions import Einsum, Grouped, Held, Separable, Transposed
from keras_grow.structure.wired_embeddings import Embedding, ReversibleEmbedding
from keras_grow.structure.wired_recurrence import RECURRENT, Bidirectional
from keras_grow.structure.wirings import INPUT, OUTPUT, Between, Wiring, num_biases

_layers = keras.layers


class OneKernel(Wiring):
    """A kernel that reads what the layer is given and makes its output, as Dense has."""

    def why_not(self, layer):
        return why_not_followed(layer)

    def kernels(self, layer):
        return [Between("kernel", (INPUT,), (OUTPUT,), (), read_at="", biases=num_biases(layer))]

    def sides(self, layer):
        return {}

    def others(self, layer):
        return {"bias": ((OUTPUT,),)}

    def changes(self, layer, counts):
        name = "filters" if hasattr(layer, "filters") else "units"
        return {name: counts[OUTPUT]} if OUTPUT in counts else {}


_WIRINGS: dict[type, Wiring] = {
    _layers.Conv1DTranspose: Transposed(),
    _layers.Conv2DTranspose: Transposed(),
    _layers.Conv3DTranspose: Transposed(),
    _layers.SeparableConv1D: Separable(),
    _layers.SeparableConv2D: Separable(),
    _layers.EinsumDense: Einsum(),
    _layers.Embedding: Embedding(),
    **RECURRENT,
    _layers.Bidirectional: Bidirectional(),
    _layers.MultiHeadAttention: Attention(),
    _layers.GroupQueryAttention: GroupedQueryAttention(),
}
if hasattr(_layers, "ReversibleEmbedding"):  # Since Keras 3.13 or so.
    _WIRINGS[_layers.ReversibleEmbedding] = ReversibleEmbedding()


def wiring_for(layer: Any) -> Wiring | None:
    """How the kernels of a layer are wired; `None` where it has none, or none is known."""
    inner = computing(layer)
    if has_kernel(inner):
        one = OneKernel() if inner is layer else Held()
        return Grouped() if getattr(inner, "groups", 1) > 1 else one
    return _WIRINGS.get(type(inner))
