"""The contract that verbs, callbacks, reports and exports speak to."""

import abc
import dataclasses
import math
from collections.abc import Iterable
from typing import NoReturn

import keras
import tensorflow as tf

from keras_grow.compatibility import check_is_keras_model
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.paths import layer_paths, paths_of
from keras_grow.layers.unquantized import refuse
from keras_grow.policies.scores import Score
from keras_grow.policies.view import Connections
from keras_grow.search.atoms import splits_atoms
from keras_grow.search.measurements import Measurements
from keras_grow.search.selection import Candidates


@dataclasses.dataclass(frozen=True)
class StorageChange:
    """Which entries of a variable now stand for other connections than before.

    The optimizer's slots of these entries describe a past that is no longer theirs, and start
    afresh.

    Attributes:
        variable: a trainable variable of the layer.
        indices: int64 tensor of shape `(count,)`, flat row-major indices into it.
        moved_from: int64 tensor of the variable's size, the flat index at which each entry stood
            before, for a layer that moves its weights when connections change; `None` where all
            stay. Slots move with the weights, before those at `indices` start afresh.
    """

    variable: keras.Variable
    indices: tf.Tensor
    moved_from: tf.Tensor | None = None


class Growable(keras.Layer, abc.ABC):
    """A layer whose connections can be dormant, whatever way it stores them.

    Indices are flat, int64, row-major over the kernel. Counts are Python integers.

    Attributes:
        is_sparse: whether the layer holds its active connections only, so that nothing of its
            kernel's size should be made.
        atom_size: how many connections can only come and go together: those at flat indices
            a * atom_size and on, for each integer a.
        shows_activities: whether observers see the inputs that its kernel is applied to, and the
            output gradients.
        is_applied_everywhere: whether every connection is applied at all positions.
        num_positions: at how many places of one sample the kernel is applied, 1 in a dense layer;
            `None` where inputs may have any size.
    """

    is_sparse: bool = False
    atom_size: int = 1
    shows_activities: bool = True
    is_applied_everywhere: bool = True
    num_positions: int | None = 1

    @property
    @abc.abstractmethod
    def kernel_shape(self) -> tuple[int, ...]:
        """The shape of the kernel with every connection in it; `axes` says what they are."""

    @property
    def axes(self) -> KernelAxes:
        """What the axes of the kernel are."""
        return self.axes_for(self.kernel_shape)

    def axes_for(self, shape: tuple[int, ...]) -> KernelAxes:
        """What the axes of a kernel of some shape are: by default inputs and, last, units."""
        return KernelAxes(shape)

    @property
    def fan_in(self) -> int:
        """How many connections lead into a unit, active and dormant."""
        return self.axes.fan_in

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
    def num_free(self) -> int:
        """How many more connections the layer can hold: all dormant ones, if it has no limit."""
        return self.num_connections - self.num_active

    @property
    def density(self) -> float:
        """Active connections over all connections, now."""
        return self.num_active / self.num_connections

    @property
    def l1(self) -> float:
        """The factor of the kernel's L1 regularizer, 0.0 without one."""
        return float(getattr(getattr(self, "kernel_regularizer", None), "l1", 0.0))

    def positions_of(self, indices: tf.Tensor) -> tf.Tensor | None:
        """At how many places of one sample connections are applied.

        Args:
            indices: int64 of shape `(count,)`, flat indices of connections.

        Returns:
            float64 of shape `(count,)`; `None` where `num_positions` is.
        """
        if self.num_positions is None:
            return None
        return tf.fill(tf.shape(indices), tf.constant(self.num_positions, tf.float64))

    def effective_kernel(self) -> tf.Tensor:
        """What multiplies the input: float tensor of `kernel_shape`, 0 at dormant connections."""
        return self._compute_effective_kernel()

    def _compute_effective_kernel(self) -> tf.Tensor:
        """The effective kernel from the layer's variables, whatever an observer would put there."""
        indices, values = self.active_connections()
        flat = tf.scatter_nd(indices[:, None], values, [self.num_connections])
        return tf.reshape(flat, self.kernel_shape)

    @abc.abstractmethod
    def as_rows(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the units see: inputs of the layer as rows that a flat kernel multiplies.

        Args:
            inputs: what the layer is called with.

        Returns:
            Shape `(rows, fan_in)`, a row for each vector of outputs, in the order of the outputs
            and of the flattened kernel axes.
        """

    @abc.abstractmethod
    def active_connections(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Flat indices (int64, ascending) of the active connections, and their weights."""

    @abc.abstractmethod
    def check_finite(self, path: str | None = None) -> None:
        """Raises `ValueError` if a stored weight, dormant ones included, is NaN or infinite.

        Args:
            path: what the error calls the layer; by default its name.
        """

    @abc.abstractmethod
    def view(self, measured: Measurements, indices: tf.Tensor | None = None) -> Connections:
        """What policies see of all connections, or of those at `indices`."""

    @abc.abstractmethod
    def growth_candidates(
        self, count: int, score: Score, measured: Measurements, freed: tf.Tensor | None = None
    ) -> Candidates:
        """The dormant connections of largest score, in the order of their indices.

        They are `count` of them, or as many whole atoms as do not exceed it.

        Args:
            count: integer; more than there are takes all. Room for them is the caller's business.
            score: ranks them.
            measured: what it sees.
            freed: int64, ascending flat indices of active connections that count as dormant: they
                are about to be pruned.
        """

    @abc.abstractmethod
    def pruning_candidates(self, count: int, score: Score, measured: Measurements) -> Candidates:
        """The active connections of smallest score, by index, the scores negated.

        They are `count` of them, or as many whole atoms as do not exceed it.
        """

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
            ValueError: for indices out of range, repeated or active, for a part of an atom, for
                more of them than `num_free`, and for values that are not finite. The layer is left
                as it was.
        """

    @abc.abstractmethod
    def prune_connections(self, indices: tf.Tensor) -> list[StorageChange]:
        """Makes active connections dormant.

        Args:
            indices: integers of shape `(count,)`, flat indices of active connections.

        Returns:
            The entries of the layer's variables whose optimizer slots must start afresh.

        Raises:
            ValueError: for indices out of range, repeated or dormant, and for a part of an atom.
                The layer is left as it was.
        """

    def quantize(self, *args, **kwargs) -> NoReturn:
        """Raises `ValueError`: `keras_grow.quantize(model)` makes a plain copy that is quantized.

        Keras would leave the layer as it is, with a warning.
        """
        refuse(self)

    def check_indices(self, indices: tf.Tensor) -> tf.Tensor:
        """`indices` as int64; raises `ValueError` unless flat, in range, once each, whole atoms."""
        shape, indices = self.kernel_shape, tf.convert_to_tensor(indices)
        if indices.shape.rank != 1 or not (indices.dtype.is_integer or indices.shape == (0,)):
            raise ValueError(
                "`indices` must be flat: integers of shape (count,), row-major over a kernel of "
                f"shape {shape}. Received: {indices.dtype.name} of shape {indices.shape}"
            )
        indices = tf.cast(indices, tf.int64)
        inside = (indices >= 0) & (indices < math.prod(shape))
        if not bool(tf.reduce_all(inside)):
            raise ValueError(
                f"`indices` must lie from 0 to {math.prod(shape) - 1} for layer {self.name!r} "
                f"with a kernel of shape {shape}. Received: {indices[~inside][:5].numpy()}"
            )
        # What a choice gives ascends; `tf.unique` takes most of a pruning's time.
        if not bool(tf.reduce_all(indices[1:] > indices[:-1])):
            unique, _ = tf.unique(indices)
            if len(unique) != len(indices):
                raise ValueError(
                    "`indices` must name each connection once. Received: "
                    f"{len(indices) - len(unique)} repetitions among {len(indices)}"
                )
        if splits_atoms(indices, self.atom_size):
            raise ValueError(
                f"The connections of layer {self.name!r} come and go {self.atom_size} at a time: "
                f"those at flat indices {self.atom_size} * a and on, for each integer a. Received: "
                f"{len(indices)} `indices`, of some of these only a part. Name all, or make a copy "
                "whose units have inputs of their own: `keras_grow.make_sparse(model, "
                "group_size=1)`."
            )
        return indices

    def check_values(
        self, indices: tf.Tensor, values: tf.Tensor | None, dtype: tf.DType
    ) -> tf.Tensor:
        """`values` in `dtype`, 0 by default; raises `ValueError` unless finite, one per index."""
        values = tf.zeros(tf.shape(indices), dtype) if values is None else tf.cast(values, dtype)
        if values.shape != indices.shape:
            raise ValueError(
                "`values` must hold one weight per index. "
                f"Received: values of shape {values.shape} for {len(indices)} indices"
            )
        if not bool(tf.reduce_all(tf.math.is_finite(values))):
            raise ValueError(
                f"Connections can't wake with a weight that is NaN or infinite. Received: {values}"
            )
        return values

    def check_can_wake(self, indices: tf.Tensor, values: tf.Tensor) -> None:
        """Raises `ValueError` where the layer can't store some weights of connections that wake.

        A change of several layers asks each before it changes the first.

        Args:
            indices: int64 of shape `(count,)`, flat indices.
            values: floats of shape `(count,)`, the weights.
        """
        self.check_values(indices, values, self.kernel_variables[0].dtype)


def growable_layers(model: keras.Model) -> list[Growable]:
    """Every growable layer of `model`, nested ones included, each once, in the model's order.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: if it has no growable layer, or one that is not built.
    """
    check_is_keras_model(model)
    paths = layer_paths(model)
    layers = [layer for layer in paths if isinstance(layer, Growable)]
    if not layers:
        raise ValueError(
            "The model has no growable layer. Build it from `keras_grow.GrowableDense`, or convert "
            "it with `keras_grow.make_growable(model)`. Received: a model with layers "
            f"{[layer.name for layer in model.layers]}"
        )
    unbuilt = [paths[layer] for layer in layers if not layer.built]
    if unbuilt:
        raise ValueError(
            "Growable layers must be built before their connections can be counted, grown or "
            f"pruned. Received: unbuilt layers {unbuilt}. Call the model on a batch, or build it."
        )
    return layers


def check_finite(model: keras.Model, layers: Iterable[Growable]) -> None:
    """Raises `ValueError` if a stored weight of some layers of `model` is NaN or infinite."""
    layers = list(layers)
    for layer, path in zip(layers, paths_of(model, layers), strict=True):
        layer.check_finite(path)


@dataclasses.dataclass(frozen=True)
class Weights:
    """A variable of two axes and more.

    Attributes:
        path: that of the layer that has it, and its name.
        size: how many weights it has.
    """

    path: str
    size: int


def weights_outside(model: keras.Layer) -> dict[int, Weights]:
    """The kernels, tables and the like of a model that do not grow, by the `id` of the variable.

    They are its variables of two axes and more, without biases.
    """
    paths = layer_paths(model)
    growing = {
        id(variable)
        for layer in paths
        if isinstance(layer, Growable) and layer.built
        for variable in (*layer.weights, *layer.kernel_variables)
    }
    return {
        id(variable): Weights(
            "/".join(filter(None, (path, variable.name))), variable.value.shape.num_elements()
        )
        for layer, path in paths.items()  # Those further inside come later.
        for variable in layer.weights
        if len(variable.shape) > 1 and variable.name != "bias" and id(variable) not in growing
    }
