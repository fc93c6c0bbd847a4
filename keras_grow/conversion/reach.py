"""What of a model can be converted, and why the rest can't."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_grow.layers.conv import GrowableConv1D, GrowableConv2D
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.kernel_types import inner_kernels
from keras_grow.layers.paths import find_layers, layer_paths, nested_layers, paths_of
from keras_grow.layers.plain_kernel import PlainKernel
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.structure.cloning import check_convertible, exchangeable_layers

# Layers, and what they become; their subclasses may compute something else.
GROWABLE: Mapping[type, type[PlainKernel]] = {
    SparseDense: GrowableDense,
    keras.layers.Dense: GrowableDense,
    keras.layers.Conv1D: GrowableConv1D,
    keras.layers.Conv2D: GrowableConv2D,
}

LayerChoice = Sequence[str | keras.Layer] | Callable[[keras.Layer], bool] | None
"""Layers or their names, or a function that says of one whether to take it; `None` for all."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `make_growable` reaches of a model, and what it leaves as it is; its `str` says both.

    Weights are counted in variables of two axes and more: kernels and embeddings, not biases or
    what normalizes.

    Attributes:
        reached: the paths of the layers that become growable, or are.
        left: why other weights stay as they are, by the path of their layer; of a layer that is
            reached in part, by that of the variable.
        num_reached: weights of the layers reached.
        num_weights: weights of all layers.
    """

    reached: tuple[str, ...]
    left: Mapping[str, str]
    num_reached: int
    num_weights: int

    @property
    def share(self) -> float:
        """Weights reached over all weights."""
        return self.num_reached / self.num_weights if self.num_weights else 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.share:.1%} of the weights reached, {self.num_reached:,} of "
            f"{self.num_weights:,}, in {len(self.reached)} layers"
        ]
        reasons: dict[str, list[str]] = {}
        for path, reason in self.left.items():
            reasons.setdefault(reason, []).append(path)
        lines += [f"left, {why}: {', '.join(paths)}" for why, paths in reasons.items()]
        return "\n".join(lines)


def plan_conversion(model: keras.Model, layers: LayerChoice = None) -> Conversion:
    """Says what `make_growable` would reach of `model`, and why it would leave the rest.

    Args:
        model, layers: as in `make_growable`.

    Raises:
        TypeError, ValueError: as `make_growable`, but for a model without layers to convert.

    Example:

    ```python
    print(keras_grow.plan_conversion(model))
    ```
    """
    check_convertible(model)
    chosen = {id(layer) for layer in wanted_layers(model, layers, why_not_growable)}
    reached: list[str] = []
    left: dict[str, str] = {}
    num_reached = num_weights = 0
    reachable = exchangeable_layers(model)
    for layer, path in zip(reachable, paths_of(model, reachable), strict=True):
        if isinstance(layer, Growable):
            reached.append(path)
            num_reached += layer.num_connections
            num_weights += layer.num_connections
            continue
        weights = {
            id(each): math.prod(each.shape)
            for each in layer.weights
            if len(each.shape) > 1 and each.dtype != "bool" and each.name != "bias"
        }
        count = sum(weights.values())
        num_weights += count
        if id(layer) in chosen or isinstance(layer, GrowableKernels):
            kernels = {id(variable) for variable in _kernel_variables(layer)}
            reached.append(path)
            num_reached += sum(weights[each] for each in kernels)
            left |= _left_inside(layer, path, set(weights) - kernels)
        elif count:
            left[path] = why_not_growable(layer) or "not asked for"
    return Conversion(tuple(reached), left, num_reached, num_weights)


def wanted_layers(
    model: keras.Model, layers: LayerChoice, why_not: Callable[[keras.Layer], str | None]
) -> list[keras.Layer]:
    """Those layers of `model` that are asked for and can be converted.

    Args:
        model: a built Sequential or functional model.
        layers: which are asked for.
        why_not: why a layer can't be converted, `None` if it can.

    Raises:
        ValueError: for a layer asked for by itself or its name that the model does not have or
            that can't be converted.
    """
    return choose_layers(model, layers, exchangeable_layers(model), why_not)


def choose_layers(
    model: keras.Model,
    layers: LayerChoice,
    reachable: Sequence[keras.Layer],
    why_not: Callable[[keras.Layer], str | None],
) -> list[keras.Layer]:
    """`wanted_layers`, among those layers of the model that can be reached."""
    able = [layer for layer in reachable if why_not(layer) is None]
    if layers is None:
        return able
    if callable(layers):
        return [layer for layer in able if layers(layer)]
    everywhere = nested_layers(model)
    wanted = find_layers(
        model, layers, everywhere, "`layers` must list layers of the model, or be a function."
    )
    for layer, path in zip(wanted, paths_of(model, wanted), strict=True):
        if not any(layer is each for each in reachable):
            raise ValueError(
                "Layers inside a layer of another kind can't be exchanged. Received: layer "
                f"{path!r}. Write the definition of that layer with the layers you want."
            )
        reason = why_not(layer)
        if reason is not None:
            raise ValueError(
                f"The layer can't be converted: {reason}. Received: layer {path!r} of class "
                f"{type(layer).__name__}"
            )
    return wanted


def why_not_growable(layer: keras.Layer) -> str | None:
    """Why a layer has no growable form that computes the same, `None` if it has one."""
    if growable_class(layer) is not None:
        return None
    reasons = [kernel.why_not_growable() for kernel in inner_kernels(layer)]
    return next(filter(None, reasons), None if reasons else "it has no kernel that is known")


def growable_class(layer: keras.Layer) -> type[PlainKernel] | None:
    """The growable class in the place of a layer's own, `None` where only its kernels can grow."""
    is_used_as_it_is = all(kernel.why_not_growable() is None for kernel in inner_kernels(layer))
    has_units_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return GROWABLE.get(type(layer)) if is_used_as_it_is and has_units_last else None


def _kernel_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer that can grow, or do."""
    if isinstance(layer, GrowableKernels):
        return [kernel.inner.variable for kernel in layer.masked_kernels]
    return [kernel.variable for kernel in inner_kernels(layer)]


def _left_inside(layer: keras.Layer, path: str, left: set[int]) -> dict[str, str]:
    """Why some variables of a layer that is reached stay, by their paths."""
    places = {}
    for inner, inner_path in layer_paths(layer).items():  # Those further inside come later.
        for variable in inner.weights:
            if id(variable) in left:
                places[id(variable)] = "/".join(filter(None, (path, inner_path, variable.name)))
    return dict.fromkeys(places.values(), "no layer is known to use it as a kernel")
