"""What was done to connections, layer by layer."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.paths import paths_of


@dataclasses.dataclass(frozen=True)
class LayerChange:
    """What growth or pruning did to one layer.

    Attributes:
        name: the layer's path in the model.
        indices: int64 tensor, the flat indices of the changed connections, ascending.
        num_active: how many connections of the layer are active now.
    """

    name: str
    indices: tf.Tensor = dataclasses.field(repr=False)
    num_active: int

    @property
    def count(self) -> int:
        """How many connections changed."""
        return len(self.indices)


@dataclasses.dataclass(frozen=True)
class ChangeRecord:
    """What a call of `grow` or `prune` did; its `str` says it in a line.

    Attributes:
        layers: a `LayerChange` for each layer that took part, in the model's order.
        num_active: active connections of these layers, now.
        num_connections: all their connections.
        seconds: how long it took.
        loss: the mean loss on the growth data before the change, or `None` if it was not measured.
        is_complete: whether all connections were ranked; False where the time given to the search
            in a sparse layer ran out, and the best found until then were taken.
        num_rounded: how many connections fewer changed than were asked for, because those of layers
            with a `group_size`, or of a pattern's blocks, come and go together, or because a
            pattern has room for no more.
    """

    layers: tuple[LayerChange, ...]
    num_active: int
    num_connections: int
    seconds: float
    loss: float | None
    is_complete: bool = True
    num_rounded: int = 0

    @property
    def count(self) -> int:
        """How many connections changed."""
        return sum(layer.count for layer in self.layers)

    @property
    def density(self) -> float:
        """Active connections over all connections, now."""
        return self.num_active / self.num_connections

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        loss += "" if self.is_complete else ", search incomplete"
        rounded = f" ({self.num_rounded:,} fewer than asked)" if self.num_rounded else ""
        return (
            f"{self.count:,} connections changed{rounded}, {self.num_active:,} of "
            f"{self.num_connections:,} active ({self.density:.2%}){loss}, {self.seconds:.2f} s"
        )


@dataclasses.dataclass(frozen=True)
class ExchangeRecord:
    """What a call of `drop_and_grow` did; its `str` says it in a line.

    Connections that were dropped and came back at once are in neither list.

    Attributes:
        pruned, grown: a `LayerChange` for each layer that took part, in the model's order.
        num_active: active connections of these layers, now.
        num_connections: all their connections.
        seconds: how long it took.
        loss: the mean loss on the growth data before the change, or `None` if it was not measured.
        is_complete: as in `ChangeRecord`.
    """

    pruned: tuple[LayerChange, ...]
    grown: tuple[LayerChange, ...]
    num_active: int
    num_connections: int
    seconds: float
    loss: float | None
    is_complete: bool = True

    @property
    def count(self) -> int:
        """How many connections came that were dormant before."""
        return sum(layer.count for layer in self.grown)

    @property
    def density(self) -> float:
        """Active connections over all connections, now."""
        return self.num_active / self.num_connections

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        loss += "" if self.is_complete else ", search incomplete"
        return (
            f"{sum(layer.count for layer in self.pruned):,} connections pruned, {self.count:,} "
            f"grown, {self.num_active:,} of {self.num_connections:,} active "
            f"({self.density:.2%}){loss}, {self.seconds:.2f} s"
        )


def record(
    model: keras.Model,
    layers: Sequence[Growable],
    chosen: Sequence[tf.Tensor],
    seconds: float,
    loss: float | None,
    is_complete: bool = True,
    num_asked: int = 0,
) -> ChangeRecord:
    """The record of a change that has been made.

    Args:
        model, layers: the model, and the layers that took part.
        chosen: the flat indices of each layer's connections that changed.
        seconds, loss, is_complete: see `ChangeRecord`.
        num_asked: how many connections should change.
    """
    changes = tuple(
        LayerChange(path, indices, layer.num_active)
        for path, layer, indices in zip(paths_of(model, layers), layers, chosen, strict=True)
    )
    return ChangeRecord(
        changes,
        sum(change.num_active for change in changes),
        sum(layer.num_connections for layer in layers),
        seconds,
        loss,
        is_complete,
        max(0, num_asked - sum(map(len, chosen))) if is_complete else 0,
    )
