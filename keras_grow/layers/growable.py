"""The contract that verbs, callbacks, reports and exports speak to."""

import abc
import dataclasses

import keras
import tensorflow as tf

from keras_grow.compatibility import check_is_keras_model
from keras_grow.connections.scores import Score
from keras_grow.connections.selection import Proposal
from keras_grow.connections.view import Connections


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured of one layer, and when; layers make `Connections` of it.

    Attributes:
        layer_index: the layer's position among the growable layers of its model.
        step: how many steps the optimizer had made.
        gradient: mean dL/dW over the growth data, in the kernel's shape, or `None`.
        input_rms: the root mean square of each input over the data, shape `(inputs,)`, or `None`.
    """

    layer_index: int = 0
    step: int = 0
    gradient: tf.Tensor | None = None
    input_rms: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class StorageChange:
    """Which entries of a variable now stand for other connections than before.

    The optimizer's slots of these entries describe a past that is no longer theirs, and start
    afresh.

    Attributes:
        variable: a trainable variable of the layer.
        indices: int64 tensor of shape `(count,)`, flat row-major indices into it.
    """

    variable: keras.Variable
    indices: tf.Tensor


class Growable(keras.Layer, abc.ABC):
    """A layer whose connections can be dormant, whatever way it stores them.

    Indices are flat, int64, row-major over (input, unit). Counts are Python integers.
    """

    @property
    @abc.abstractmethod
    def kernel_shape(self) -> tuple[int, ...]:
        """The shape of the kernel with every connection in it, units last."""

    @property
    @abc.abstractmethod
    def kernel_variables(self) -> tuple[keras.Variable, ...]:
        """The variables that make the effective kernel, those of the connections included."""

    @property
    @abc.abstractmethod
    def num_connections(self) -> int:
        """How many connections there are, active and dormant."""

    @property
    @abc.abstractmethod
    def num_active(self) -> int:
        """How many connections are active now."""

    @property
    def density(self) -> float:
        """Active connections over all connections, now."""
        return self.num_active / self.num_connections

    @abc.abstractmethod
    def active_connections(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Flat indices (int64, ascending) of the active connections, and their weights."""

    @abc.abstractmethod
    def check_finite(self) -> None:
        """Raises `ValueError` if a stored weight, dormant ones included, is NaN or infinite."""

    @abc.abstractmethod
    def view(self, evidence: Evidence, indices: tf.Tensor | None = None) -> Connections:
        """What policies see of all connections, or of those at `indices`."""

    @abc.abstractmethod
    def propose_growth(self, count: int, score: Score, evidence: Evidence) -> Proposal:
        """The `count` dormant connections of largest score, best first."""

    @abc.abstractmethod
    def propose_pruning(self, count: int, score: Score, evidence: Evidence) -> Proposal:
        """The `count` active connections of smallest score, smallest first, scores negated."""

    @abc.abstractmethod
    def grow_connections(
        self, indices: tf.Tensor, values: tf.Tensor | None = None, gradient: tf.Tensor | None = None
    ) -> list[StorageChange]:
        """Makes dormant connections active.

        Args:
            indices: integers of shape `(count,)`, flat indices of dormant connections.
            values: floats of shape `(count,)`, their weights; 0 by default.
            gradient: floats of shape `(count,)`, their dL/dW, for layers whose dead units need a
                direction to wake in.

        Returns:
            The entries of the layer's variables whose optimizer slots must start afresh.

        Raises:
            ValueError: for indices out of range, repeated or active, and for values that are not
                finite. The layer is left as it was.
        """

    @abc.abstractmethod
    def prune_connections(self, indices: tf.Tensor) -> list[StorageChange]:
        """Makes active connections dormant.

        Args:
            indices: integers of shape `(count,)`, flat indices of active connections.

        Returns:
            The entries of the layer's variables whose optimizer slots must start afresh.

        Raises:
            ValueError: for indices out of range, repeated or dormant. The layer is left as it was.
        """


def growable_layers(model: keras.Model) -> list[Growable]:
    """Every growable layer of `model`, nested ones included, each once, in the model's order.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: if it has no growable layer, or one that is not built.
    """
    check_is_keras_model(model)
    layers = [layer for layer in nested_layers(model) if isinstance(layer, Growable)]
    if not layers:
        raise ValueError(
            "The model has no growable layer. Build it from `keras_grow.GrowableDense`, or convert "
            "it with `keras_grow.make_growable(model)`. Received: a model with layers "
            f"{[layer.name for layer in model.layers]}"
        )
    unbuilt = [layer.name for layer in layers if not layer.built]
    if unbuilt:
        raise ValueError(
            "Growable layers must be built before their connections can be counted, grown or "
            f"pruned. Received: unbuilt layers {unbuilt}. Call the model on a batch, or build it."
        )
    return layers


def nested_layers(layer: keras.Layer) -> list[keras.Layer]:
    """`layer` and all layers inside it, each once, in the order in which they were added."""
    found: dict[keras.Layer, None] = {}

    def visit(layer: keras.Layer) -> None:
        if layer not in found:
            found[layer] = None
            # Only models have a public list of the layers inside them; wrappers have not.
            for child in layer.layers if isinstance(layer, keras.Model) else layer._layers:
                visit(child)

    visit(layer)
    return list(found)
