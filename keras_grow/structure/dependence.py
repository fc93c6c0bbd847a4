"""Which of a model's outputs still depend on what it is given, as its connections are now."""

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.masked import Masked
from keras_grow.search.flat_arrays import in_place
from keras_grow.structure.cloning import is_graph
from keras_grow.structure.graph import Graph, Step, Stream
from keras_grow.structure.kernels import has_kernel, why_not_resizable
from keras_grow.structure.rules import UnitsMixed, keeps_units_apart, places_behind


class Dependence:
    """Which outputs of a model depend on an input, followed through growable layers.

    It errs on one side: what might depend on an input counts as if it did. Where calls join or
    mix units, all that they make depends on an input if anything does that they read.

    Args:
        model: a built model. Of a subclassed one nothing is known, and nothing is cut off.
    """

    def __init__(self, model: keras.Model):
        self._graph: Graph | None = None
        if not is_graph(model):
            return
        self._graph = Graph(model)
        self._keeps_apart = {
            id(step.layer): keeps_units_apart(getattr(step.layer, "activation", None))
            for step in self._graph.steps
            if has_kernel(step.layer)
        }

    def cut_off(self) -> list[tuple[str, np.ndarray]]:
        """Which units depend on no input, before an activation that mixes them, such as softmax.

        Returns:
            For each output of the model the path of the layer that makes it, and a bool array of
            shape `(units,)`.
        """
        if self._graph is None:
            return []
        self._varies = {stream: _all(stream, True) for stream in self._graph.inputs}
        before_mixing = dict(self._varies)
        makers: dict[Stream, str] = {}
        for step in self._graph.steps:
            for output in step.outputs:
                makers[output] = step.path
                self._varies[output], before_mixing[output] = self._behind(step, output)
                if type(step.layer) in (keras.layers.Activation, keras.layers.Softmax):
                    before_mixing[output] = before_mixing[step.inputs[0]]
        outputs = [stream for stream in self._graph.outputs if stream in makers]
        return [(makers[stream], ~before_mixing[stream]) for stream in outputs]

    def _behind(self, step: Step, output: Stream) -> tuple[np.ndarray, np.ndarray]:
        """Which units of a call's output depend on an input, and before its activation."""
        sources = [self._varies[stream] for stream in step.inputs]
        all_or_none = _all(output, any(source.any() for source in sources))
        if len(step.outputs) != 1 or any(stream.count == 0 for stream in (*step.inputs, output)):
            return all_or_none, all_or_none
        layer = step.layer
        is_followed = isinstance(layer, Growable) and has_kernel(layer)
        if is_followed and why_not_resizable(layer) is None:
            fed = _fed(layer, sources[0])
            return (fed if self._keeps_apart[id(layer)] else _all(output, any(fed))), fed
        try:
            places = places_behind(layer, [stream.shape for stream in step.inputs])
        except UnitsMixed:
            return all_or_none, all_or_none
        behind = _all(output, False)
        for source, at in zip(sources, places, strict=True):
            behind[at] |= source[:, None]
        return behind, behind


def _all(stream: Stream, value: bool) -> np.ndarray:
    return np.full(max(1, stream.count), value)


def _fed(layer: Growable, source: np.ndarray) -> np.ndarray:
    """Which units of a layer have an active connection from an input that depends on one."""
    axes = layer.axes
    if isinstance(layer, Masked):
        mask = in_place(layer.kernel_mask.value)
        if isinstance(mask, np.ndarray):
            mask = mask if source.all() else mask & axes.per_input(tf.constant(source)).numpy()
            return np.any(mask, axis=axes.over_inputs()).reshape(-1)
        mask = mask & axes.per_input(tf.constant(source))
        return tf.reduce_any(mask, axis=axes.over_inputs()).numpy().reshape(-1)
    connections = layer.active_connections()[0]
    is_fed = np.zeros(axes.num_units, bool)
    is_from = source[np.asarray(axes.inputs_of(connections))]
    is_fed[np.asarray(axes.units_of(connections))[is_from]] = True
    return is_fed
