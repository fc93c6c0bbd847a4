"""NeST's Policy 5: convolutions that leave out parts of their maps.

A room of its own: no other part of the package knows of it.
"""

from keras_grow.areas.layer import PartialAreaConv2D
from keras_grow.areas.pruning import AreaChange, AreaRecord, make_partial_area, prune_areas

__all__ = ["AreaChange", "AreaRecord", "PartialAreaConv2D", "make_partial_area", "prune_areas"]
