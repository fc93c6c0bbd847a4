"""What a graph of units consists of: kernels in calls, and groups of units that are tied."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.structure.graph import Stream
from keras_grow.structure.wirings import NOWHERE, Between


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """Where the units of a group stand in a kernel, or in a layer that passes them on.

    Attributes:
        layer: the layer with the kernel; of a layer with several, the growable layer of one of
            them, or a `KernelIn` where it is plain.
        path: its path in the model.
        indices: int64 array of shape `(units, copies)`: for each unit its numbers among the units
            of the kernel; for a kernel that reads the group, among its inputs. There is one copy,
            unless a Flatten laid several positions side by side, a head has several dimensions, or
            the like.
        between: where the kernel stands in its layer; nowhere, for a layer that passes units on.
        owner: the layer of the model that has the kernel.
        units: what the units are called: by the path of the layer that makes them, and their side
            if they stand inside it, as "attention/heads" do.
    """

    layer: Any
    path: str
    indices: np.ndarray = dataclasses.field(repr=False)
    between: Between = NOWHERE
    owner: Any = None
    units: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Entries:
    """Where the units of a group stand in a variable: flat indices, `(units, copies)`."""

    variable: keras.Variable
    indices: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class KernelCall:
    """Between which units a kernel stands in a call of its layer.

    Attributes:
        layer: the layer with the kernel, or what stands for it, see `End.layer`.
        path: its path.
        between: where it stands in the layer that is called.
        reads, makes: int64 arrays of shape `(inputs,)` and `(units,)`: the numbers of the units
            that each of the kernel's inputs, and units, belongs to, by their side. One that stands
            for several sides together, a head and a dimension of it, belongs to one of each.
        streams: the tensors of the layer's sides in this call.
        positions: at how many places of one sample the kernel is applied.
    """

    layer: Any
    path: str
    between: Between
    reads: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    makes: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    streams: Mapping[str, Stream] = dataclasses.field(repr=False)
    positions: int


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Units that stand alike in the same layers; each can only come and go in all of them at once.

    Attributes:
        count: how many units, each of which may go without the others.
        made_by: the kernels that make the units: one, or all ends of additions.
        read_by: the kernels that read them.
        biases: their entries of the biases that are added where they are made.
        passed: the other layers with weights that they pass, such as normalizations.
        why_fixed: what is in the way of a change, `None` if nothing is.
        moves: whether a unit is pooled, repeated or moved on its way to a reader.
        adds: whether its makers are added up, and not multiplied or compared.
        roots: int64 array of shape `(units,)`, what the `UnitGraph` calls them.
    """

    count: int
    made_by: tuple[End, ...]
    read_by: tuple[End, ...]
    biases: tuple[Entries, ...]
    passed: tuple[End, ...]
    why_fixed: str | None
    moves: bool
    adds: bool
    roots: np.ndarray = dataclasses.field(repr=False)

    def __str__(self) -> str:
        makers, readers, passed = (
            ", ".join(repr(end.path) for end in ends) or "nothing"
            for ends in (self.made_by, self.read_by, self.passed)
        )
        through = f", through {passed}" if self.passed else ""
        fixed = f"; they can't change: {self.why_fixed}" if self.why_fixed else ""
        return f"{self.count} units of {makers}{through}, read by {readers}{fixed}"
