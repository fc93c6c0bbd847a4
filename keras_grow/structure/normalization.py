"""What a BatchNormalization behind a layer makes of the layer's weights."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.structure.graph import Graph


def output_scales(model: keras.Model, layers: Sequence[Growable]) -> dict[Growable, tf.Tensor]:
    """What the normalisation behind each layer multiplies its units by at inference.

    Args:
        model: a built Sequential or functional model.
        layers: growable layers of it.

    Returns:
        For each layer a float32 tensor of shape `(units,)`: `gamma / sqrt(moving_variance +
        epsilon)` where one BatchNormalization alone reads the layer's units and the layer has no
        activation of its own, else 1.

    Raises:
        UnitsNotFollowed: a `ValueError`, for a subclassed model.
    """
    graph = Graph(model)
    return {layer: _output_scale(graph, layer) for layer in layers}


def _output_scale(graph: Graph, layer: Growable) -> tf.Tensor:
    units = layer.axes.num_units
    made = {stream for step in graph.steps if step.layer is layer for stream in step.outputs}
    readers = [step.layer for step in graph.steps if not made.isdisjoint(step.inputs)]
    reading = list({id(reader): reader for reader in readers}.values())
    if not made.isdisjoint(graph.outputs):
        reading = []
    is_linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    is_normalised = len(reading) == 1 and type(reading[0]) is keras.layers.BatchNormalization
    if not (is_linear and is_normalised and tuple(reading[0].moving_variance.shape) == (units,)):
        return tf.ones((units,))
    (normalization,) = reading
    variance = tf.cast(normalization.moving_variance.value, tf.float32)
    scale = tf.math.rsqrt(variance + normalization.epsilon)
    if normalization.gamma is None:
        return scale
    return scale * tf.cast(normalization.gamma.value, tf.float32)
