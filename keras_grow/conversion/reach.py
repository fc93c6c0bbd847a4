"""What of a model can be converted, and why the rest can't."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_grow.compatibility import check_is_keras_model
from keras_grow.layers.conv import GrowableConv1D, GrowableConv2D
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.growable import Growable, weights_outside
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.in_place import maskable_layers, masked_in_place
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.kernel_types import inner_kernels
from keras_grow.layers.paths import find_layers, layer_paths, nested_layers, paths_of
from keras_grow.layers.plain_kernel import PlainKernel
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.structure.cloning import exchangeable_layers, is_graph, is_made_of_graph

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

    It says so too of models that only grow with `in_place`, such as subclassed ones.

    Args:
        model: a built model of any kind.
        layers: as in `make_growable`.

    Raises:
        TypeError, ValueError: as `make_growable`, but for a model without layers to convert.

    Example:

    ```python
    print(keras_grow.plan_conversion(model))
    ```
    """
    check_is_keras_model(model)
    if not model.built:
        raise ValueError(
            "Only a built model has weights to count. Received: an unbuilt model. Call it on a "
            "batch, or build it."
        )
    is_copied = is_graph(model) and is_made_of_graph(model)
    reachable = exchangeable_layers(model) if is_copied else list(maskable_layers(model))
    chosen = choose_layers(model, layers, reachable, why_not_growable)
    growable = [layer for layer in nested_layers(model) if is_growable(layer)]
    paths = layer_paths(model)
    outside = weights_outside(model)
    num_weights = sum(each.size for each in outside.values())
    num_weights += sum(x.num_connections for x in nested_layers(model) if isinstance(x, Growable))
    for layer in chosen:
        for kernel in inner_kernels(layer):
            outside.pop(id(kernel.variable), None)
    left: dict[str, str] = {}
    num_left = sum(each.size for each in outside.values())
    for layer in reachable:
        if layer in chosen or layer in growable:
            continue
        of_layer = [id(each) for each in layer.weights if outside.pop(id(each), None)]
        if of_layer:
            left[paths[layer]] = why_not_growable(layer) or "not asked for"
    left |= {each.path: "no layer is known to use it as a kernel" for each in outside.values()}
    reached = tuple(paths[layer] for layer in paths if layer in growable or layer in chosen)
    return Conversion(reached, left, num_weights - num_left, num_weights)


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


def check_any(
    chosen: Sequence[keras.Layer],
    model: keras.Model,
    layers: LayerChoice,
    reachable: Sequence[keras.Layer],
    why_not: Callable[[keras.Layer], str | None],
) -> None:
    """Raises `ValueError` if no layer is chosen, and says of those that can be reached why.

    Args:
        chosen: what `choose_layers` returned.
        model, layers, reachable, why_not: as it takes them.
    """
    if chosen:
        return
    reasons: dict[str, list[str]] = {}
    for layer, path in zip(reachable, paths_of(model, reachable), strict=True):
        reasons.setdefault(why_not(layer) or "not asked for", []).append(path)
    described = "; ".join(f"{reason}: {paths}" for reason, paths in reasons.items())
    raise ValueError(
        f"The model has no layer to convert. Received: layers={layers!r}, and a model with "
        f"{described or 'no layers that have kernels'}"
    )


def why_not_growable(layer: keras.Layer) -> str | None:
    """Why a layer has no growable form that computes the same, `None` if it has one."""
    if masked_in_place(layer):
        return "it is growable already"
    if growable_class(layer) is not None:
        return None
    reasons = [kernel.why_not_growable() for kernel in inner_kernels(layer)]
    return next(filter(None, reasons), None if reasons else "it has no kernel that is known")


def is_growable(layer: keras.Layer) -> bool:
    """Whether a layer is growable and no part of another that is."""
    is_whole = isinstance(layer, Growable | GrowableKernels) and not isinstance(layer, Inner)
    return is_whole or bool(masked_in_place(layer))


def growable_class(layer: keras.Layer) -> type[PlainKernel] | None:
    """The growable class in the place of a layer's own, `None` where only its kernels can grow."""
    is_used_as_it_is = all(kernel.why_not_growable() is None for kernel in inner_kernels(layer))
    has_units_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return GROWABLE.get(type(layer)) if is_used_as_it_is and has_units_last else None
