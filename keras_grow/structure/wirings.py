"""Between which units the kernels of a layer stand: a table of wirings, one entry a layer type.

A layer has sides: what it is given and what it makes, and what stands only inside it, such as the
heads of an attention. Each entry of a kernel stands between an entry of what it reads and one of
what it makes:

    Dense      input --kernel--> output
    LSTM       input --kernel--> 4 x output <--recurrent_kernel-- output
    attention  query --> heads x key_size <-- key    value --> heads x value_size --> output

A number in the place of a side is a count that is always there, as of the gates of an LSTM. Units
of a side come and go in all kernels and biases of the layer that name it.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from keras_grow.layers.growable import Growable
from keras_grow.structure.constants import Kernel
from keras_grow.structure.kernels import attribute_of
from keras_grow.structure.rules import UnitsMixed

INPUT, OUTPUT = "input", "output"

Side = str | int
Axis = tuple[Side, ...]
"""What an axis counts: the entries of sides, the last of them fastest."""
Layout = tuple[Axis, ...]
"""What the axes of a variable count."""


@dataclasses.dataclass(frozen=True)
class Between:
    """Where a kernel stands in a layer.

    Attributes:
        attribute: the attribute of the layer that holds it, "cell.kernel" of one inside it.
        reads, makes: what its inputs and its units are.
        layout: what its axes count.
        read_at: the attribute that holds the layer, inside this one or itself (""), whose input is
            what the kernel reads; `None` where there is none.
        made_at: likewise, whose output is what it makes.
        positions: the side whose tensor has a position for each at which the kernel is applied;
            `None` where rows are looked up.
        biases: how many biases each unit of it has.
        is_affine: whether the bias and activation of the layer that holds it come right behind it.
        read_repeats: how many of the kernel's inputs each entry of that input stands for.
        is_reversed: whether it is read from its units to its inputs, as a tied embedding is.
    """

    attribute: str
    reads: Axis
    makes: Axis
    layout: Layout
    read_at: str | None = None
    made_at: str | None = None
    positions: str | None = OUTPUT
    biases: int = 0
    is_affine: bool = True
    read_repeats: int = 1
    is_reversed: bool = False


NOWHERE = Between("", (), (), ())


@dataclasses.dataclass(frozen=True)
class Product:
    """What a layer computes beside its kernels, for each position the product of some sizes.

    Attributes:
        positions: at how many places of one sample.
        window: how many places of the input each of them sees.
        axis: the sizes.
        has_weights: whether there is a weight for each, shared by all positions.
    """

    positions: int
    window: int
    axis: Axis
    has_weights: bool = False


@dataclasses.dataclass(frozen=True)
class Tie:
    """Entries of two sides that are one and the same, pair by pair."""

    one: str
    units: np.ndarray
    other: str
    others: np.ndarray

    def turned(self) -> "Tie":
        """The same from the other side."""
        return Tie(self.other, self.others, self.one, self.units)


class Wiring(abc.ABC):
    """Between which sides the kernels of a type of layers stand.

    Attributes:
        filters: as of `UnitRule`.
    """

    filters: ClassVar[Mapping[str, str]] = {}

    def why_not(self, layer: Any) -> str | None:
        """Why the units of a layer can't be followed, `None` if they can."""
        return None

    def inputs(
        self, layer: Any, names: Sequence[str], options: Mapping[str, Any]
    ) -> Mapping[str, int]:
        """Which tensors a call is given are which sides.

        Args:
            layer: the layer.
            names: as which argument each tensor is given.
            options: the arguments of the call that are no tensors.

        Returns:
            The number of a tensor for each side; what is not among them is needed as it is.
        """
        return {INPUT: 0}

    def outputs(self, layer: Any, options: Mapping[str, Any], count: int) -> Sequence[str | None]:
        """Which side each tensor is that a call makes; `None` for one that is needed as it is.

        Args:
            layer, options: as in `inputs`.
            count: how many tensors it makes.
        """
        if count != 1:
            raise UnitsMixed("it makes more than its output")
        return [OUTPUT]

    def sides(self, layer: Any) -> Mapping[str, int]:
        """How many entries the sides have that its variables name."""
        found: dict[str, int] = {}
        layouts = [(each.attribute, each.layout) for each in self.kernels(layer)]
        for attribute, layout in (*layouts, *self.others(layer).items()):
            if attribute_of(layer, attribute) is None and attribute != "kernel":
                continue  # A bias that it does without.
            for axis, size in zip(layout, shape_of(layer, attribute), strict=True):
                whole = math.prod(side for side in axis if not isinstance(side, str))
                names = [side for side in axis if isinstance(side, str)]
                if len(names) == 1:
                    found.setdefault(names[0], size // whole)
        return found

    def ties(self, layer: Any) -> Sequence[Tie]:
        """Which entries of its sides are one and the same."""
        return ()

    @abc.abstractmethod
    def kernels(self, layer: Any) -> Sequence[Between]:
        """The kernels that mix units."""

    def in_call(self, layer: Any, options: Mapping[str, Any]) -> Sequence[Between]:
        """Those that are applied in a call; the arguments are as in `inputs`."""
        return self.kernels(layer)

    def others(self, layer: Any) -> Mapping[str, Layout]:
        """What the axes of its other variables count, by attribute: biases, and what filters."""
        return {}

    def products(self, layer: Any, shapes: Mapping[str, Sequence[int | None]]) -> Sequence[Product]:
        """What it computes beside its kernels in a call, given the shapes of its sides."""
        return ()

    def biases(self, layer: Any) -> Sequence[str]:
        """Which of `others` are biases."""
        return [name for name in self.others(layer) if "bias" in name]

    def changes(self, layer: Any, counts: Mapping[str, int]) -> dict[str, Any]:
        """Arguments of a copy of the layer whose sides have other numbers of entries."""
        return {}

    def inside(self, layer: Any, counts: Mapping[str, int]) -> Mapping[str, dict[str, Any]]:
        """The same of layers that it is given, by the attributes that hold them."""
        return {}

    def scales(self, layer: Any, copy: Any) -> Mapping[str, float]:
        """By what variables of a copy with other sides are multiplied, by their attributes."""
        return {}

    def constants(
        self,
        layer: Any,
        kernels: Mapping[str, Kernel],
        given: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """What the layer makes, at inference, of units that are constant.

        Args:
            layer: the layer.
            kernels: its kernels by attribute.
            given: for each side of `inputs` float64 of shape `(units,)`, NaN where a unit varies.

        Returns:
            The same for other sides, by their names, and for what a kernel makes that is no side by
            itself, by the kernel's attribute. What is not among them varies.
        """
        return {}

    def needs(
        self, layer: Any, kernels: Mapping[str, Kernel]
    ) -> Sequence[tuple[str, np.ndarray, str, np.ndarray]]:
        """Entries of sides that are needed for others beside those that kernels read.

        Args:
            layer, kernels: as in `constants`.

        Returns:
            Pairs of a side and its entries, then the side and the entries for which they are
            needed, one by one.
        """
        return ()


def num_positions(shape: Sequence[int | None]) -> int:
    """How many positions a tensor has beside batch and units; 1 for an axis of unknown size."""
    return math.prod(size or 1 for size in shape[1:-1])


def shape_of(layer: Any, attribute: str) -> tuple[int, ...]:
    """The shape of a kernel of a layer, growable or not."""
    if isinstance(layer, Growable) and attribute == "kernel":
        return layer.axes.shape
    return tuple(attribute_of(layer, attribute).shape)


def num_biases(layer: Any) -> int:
    """How many biases each unit of a layer has: two in a GRU's cell, else one or none."""
    bias = getattr(layer, "bias", None)
    return 0 if bias is None else 2 if len(bias.shape) == 2 and hasattr(layer, "reset_after") else 1


def zeros_of(constants: np.ndarray) -> np.ndarray:
    """0 where a unit is 0 whatever the model is given, NaN elsewhere."""
    return np.where(constants == 0, 0.0, np.nan)
