"""The units of a layer, to count their connections."""

from keras_grow import growable_layers
from keras_grow.neurons.units import Units, sole_units
from keras_grow.structure.unit_graph import UnitGraph


def units_of(model, layer) -> Units:
    """The units of a layer of a model, given itself or by its name."""
    layer = model.get_layer(layer) if isinstance(layer, str) else layer
    return sole_units(UnitGraph(model), layer, growable_layers(model))
