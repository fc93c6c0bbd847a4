"""What verbs raise beside `ValueError` and `TypeError`; each is a `ValueError`."""

from keras_grow.connections.amounts import CapacityUsedUp, NothingToChange
from keras_grow.export.verification import NotVerified
from keras_grow.measuring.agreement import CopyDiffers
from keras_grow.structure.graph import UnitsNotFollowed
from keras_grow.structure.rules import UnitsMixed

__all__ = [
    "CapacityUsedUp",
    "CopyDiffers",
    "NotVerified",
    "NothingToChange",
    "UnitsMixed",
    "UnitsNotFollowed",
]
