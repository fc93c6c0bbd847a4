"""Which layers a bridging gradient can be measured between."""

from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import Growable
from keras_grow.neurons.units import Units
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.unit_groups import End

# Numbers of a bridging gradient: 512 MB in float32, and ranking them takes as much again.
_LARGEST_GRADIENT = 2**27

_BY_TRIAL = "`keras_grow.grow_feature_maps` tries random weights wherever units are followed."


def bridgeable(units: Units, graph: UnitGraph) -> tuple[list[End], list[End]]:
    """The layers that a bridge leads from the inputs of, and those that read the units.

    Args:
        units: units that can change, called after the layer that they are to grow in.
        graph: the graph of the model's units.

    Returns:
        The ends of the layers that make the units, that layer first, and of those that read them.

    Raises:
        ValueError: where no bridge can lead over the units, saying why.
    """
    layer, readers = units.layer, list(units.group.read_by)
    if not readers:
        raise ValueError(
            "Neurons grow in a layer that other layers read. Received: layer "
            f"{layer.name!r}, read by none"
        )
    for end in readers:
        if not isinstance(end.layer, Growable):
            kind = type(end.owner).__name__
            raise ValueError(
                "The layers that read the neurons must be growable, so that their connections can "
                f"wake. Received: layer {layer.name!r}, read by {end.path!r}, a plain {kind}. "
                "Convert it with `keras_grow.make_growable(model)`."
            )
    for each in (layer, *(end.layer for end in readers)):
        if not isinstance(each, DenseLike):
            raise ValueError(
                "Neurons grow between growable dense layers. Received: layer "
                f"{each.name!r} of class {type(each).__name__}. {_BY_TRIAL}"
            )
        if len(graph.kernels[id(each)]) > 1:
            raise ValueError(
                "Neurons grow between layers that the model calls once. Received: layer "
                f"{each.name!r}, which it calls {len(graph.kernels[id(each)])} times. {_BY_TRIAL}"
            )
    positions = _positions(graph, layer)
    shapes = [_positions(graph, end.layer) for end in readers]
    moves = units.group.moves or any(end.indices.shape[1] > 1 for end in readers)
    if moves or any(shape != positions for shape in shapes):
        raise ValueError(
            "Neurons grow where each of their outputs is read once. Received: layer "
            f"{layer.name!r}, pooled, repeated or flattened on the way to "
            f"{[end.path for end in readers]}. {_BY_TRIAL}"
        )
    if not units.group.adds:
        raise ValueError(
            "Neurons grow where what they bring is added. Received: layer "
            f"{layer.name!r}, multiplied or compared with others on the way to "
            f"{[end.path for end in readers]}, where a newborn would bring nothing. {_BY_TRIAL}"
        )
    makers = [end for end in units.group.made_by if end.layer is layer]
    makers += [
        end
        for end in units.group.made_by
        if end.layer is not layer
        and isinstance(end.layer, DenseLike)
        and len(graph.kernels[id(end.layer)]) == 1
        and _positions(graph, end.layer) == positions
    ]
    num_inputs = sum(end.layer.axes.num_inputs for end in makers)
    num_units = sum(end.layer.axes.num_units for end in readers)
    size = num_inputs * num_units
    if size > _LARGEST_GRADIENT:
        raise ValueError(
            f"The bridging gradient would have {num_inputs} x {num_units} = {size:,} "
            f"numbers, more than the {_LARGEST_GRADIENT:,} that are held. Received: layers "
            f"{[end.path for end in makers]} and {[end.path for end in readers]}. Grow connections "
            "instead: `keras_grow.grow` wakes units too, and never holds its gradient."
        )
    return makers, readers


def _positions(graph: UnitGraph, layer: Growable) -> tuple[int | None, ...]:
    """The axes of positions that a layer which is called once is applied at."""
    (step,) = graph.kernels[id(layer)]
    return step.outputs[0].shape[1:-1]
