"""Plain Keras models to growable and sparse ones, and back."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_grow.conversion.reach import (
    GROWABLE,
    LayerChoice,
    plan_conversion,
    wanted_layers,
    why_not_growable,
)
from keras_grow.integers import checked_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.affine import Affine
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import growable_layers, nested_layers
from keras_grow.layers.masked import keep_active
from keras_grow.layers.paths import by_layer, paths_of
from keras_grow.layers.plain_kernel import PlainKernel
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.measuring.agreement import check_copy
from keras_grow.policies.densities import (
    DensityDistribution,
    FanIn,
    Uniform,
    check_density,
    exact_counts,
    initial_count,
)
from keras_grow.structure.cloning import (
    check_convertible,
    clone_with,
    exchangeable_layers,
    set_connections,
)
from keras_grow.structure.copying import made_anew
from keras_grow.structure.kernels import axes_of, connections_of, why_not_resizable


def make_growable(
    model: keras.Model,
    layers: LayerChoice = None,
    initial_density: float | DensityDistribution = 1.0,
    *,
    seed: int | None = None,
    zeros_are_dormant: bool = False,
    verify: Any = True,
) -> keras.Model:
    """A copy of `model` with growable layers in the place of plain ones, and the weights kept.

    Dense layers become `GrowableDense`, Conv1D and Conv2D layers `GrowableConv1D` and
    `GrowableConv2D`. All other layers are copied as they are, with whatever Keras would save of
    them; a warning says, once, which weights are left and why (`plan_conversion` says it before).
    At density 1 the copy computes the same function, which is checked layer by layer. `SparseDense`
    layers become `GrowableDense` with the connections that they have, whatever the density. The
    copy is not compiled (`convert_optimizer` makes its optimizer), and `model` stays as it was.

    Args:
        model: a built Sequential or functional model, nested and shared ones and layers inside
            wrappers such as `TimeDistributed` included; trained or not. Of a subclass of
            `keras.Model`, the copy is of the same class, with its own `train_step`.
        layers: the layers to convert, or their paths or names, or a function that says of a layer
            that can be converted whether to do so; by default all of them.
        initial_density: the share of connections of plain layers that stay active, at random; or
            a distribution such as `keras_grow.densities.ErdosRenyi(0.1)`. A layer of which that is
            less than half a connection keeps one, and the largest gives it. To keep the largest
            weights of a trained model instead, convert at 1 and `keras_grow.prune`.
        seed: non-negative integer that fixes which connections stay active; each layer's own seed
            derives from it.
        zeros_are_dormant: whether connections whose weight is exactly 0 become dormant: for models
            that another tool has pruned. Goes with an `initial_density` of 1.
        verify: how the copy is checked against `model`, at a density of 1: True on inputs that are
            made up, False not at all, or data (an array or dict of inputs, or growth data). With a
            lower density, layers that lost connections are not compared.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, one without layers to convert, layers asked
            for that can't be, and a model of a class that can't be made of inputs and outputs.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    growable = keras_grow.make_growable(trained)
    growable.compile("adam", "sparse_categorical_crossentropy")
    keras_grow.prune(growable, density=0.1)
    ```
    """
    check_convertible(model)
    chosen = wanted_layers(model, layers, why_not_growable)
    _check_any(chosen, model, layers)
    sparse = [layer for layer in chosen if isinstance(layer, SparseDense)]
    plain = [layer for layer in chosen if not isinstance(layer, SparseDense)]
    if isinstance(initial_density, DensityDistribution):
        distribution = initial_density
    else:
        check_density(initial_density, "initial_density")
        distribution = Uniform(initial_density)
    if zeros_are_dormant and distribution.density != 1:
        raise ValueError(
            "`zeros_are_dormant` says which connections are dormant, and so would "
            "`initial_density`. Received: zeros_are_dormant=True, "
            f"initial_density={initial_density!r}"
        )
    densities = _with_exact_total(distribution, [tuple(layer.kernel.shape) for layer in plain])
    seeds: list[int | None] = [None] * len(plain)
    if seed is not None:
        seed = checked_integer(seed, "seed", least=0)
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(plain))]
    options: dict[int, dict[str, Any]] = {
        id(layer): {"initial_density": density, "seed": layer_seed}
        for layer, density, layer_seed in zip(plain, densities, seeds, strict=True)
    }
    options |= {id(layer): {"initial_density": layer.density} for layer in sparse}

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in options:
            return None
        return made_anew(layer, GROWABLE[type(layer)], **options[id(layer)])

    def transfer(old: keras.Layer, new: PlainKernel) -> None:
        if isinstance(old, SparseDense):
            set_connections(new, *old.active_connections())
        else:
            if zeros_are_dormant:
                new.kernel_mask.assign(old.kernel.value != 0)
            new.kernel.assign(keep_active(old.kernel, new.kernel_mask))
        _carry_bias(old, new)

    copy = clone_with(model, convert, transfer)
    thinned = [layer for layer, density in zip(plain, densities, strict=True) if density < 1]
    check_copy(model, copy, verify, not_compared=thinned)
    if layers is None and (conversion := plan_conversion(model)).left:
        warnings.warn(
            f"Not all of the model can grow: {conversion}. Choose with `layers=` to say what you "
            "expect.",
            stacklevel=2,
        )
    return copy


def make_sparse(
    model: keras.Model,
    layers: LayerChoice = None,
    capacity: int | float | FanIn | Mapping[str, int | float | FanIn] | None = None,
    *,
    verify: Any = True,
) -> keras.Model:
    """A copy of `model` in which layers are `SparseDense`, with weights and connections kept.

    The copy computes the same function, in memory and time that follow its active connections.
    It is not compiled (`convert_optimizer` makes its optimizer), and `model` stays as it was.
    This is also how a model gets layers with another capacity. Convolutions stay as they are.

    Args:
        model: a built Sequential or functional model.
        layers: the layers to convert, or their paths or names, or a function that says of a Dense
            or growable layer whether to convert it; by default `GrowableDense` and `SparseDense`
            layers. Of a plain Dense, the weights that are not 0 become connections. A
            `WeightNormDense` gives its effective weights, and is normalized no more.
        capacity: how many connections each layer can hold: an integer, a density, a
            `keras_grow.densities.FanIn`, or a mapping from layer paths or names to these; by
            default, and for layers not in the mapping, as many as it has.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.
        ValueError: for a subclassed or unbuilt model, one without layers to convert, capacities
            below the active connections, and layers with arguments that a `SparseDense` refuses.

    Example:

    ```python
    sparse = keras_grow.make_sparse(pruned, capacity=keras_grow.densities.FanIn(32))
    sparse.compile(keras_grow.convert_optimizer(pruned, sparse), pruned.loss)
    ```
    """
    check_convertible(model)
    wrapped = {
        id(layer.layer)
        for layer in nested_layers(model)
        if isinstance(layer, keras.layers.SpectralNormalization)
    }

    def why_not(layer: keras.Layer) -> str | None:
        if id(layer) in wrapped:
            return "SpectralNormalization reads its kernel as a whole"
        if layers is None and not isinstance(layer, GrowableDense | SparseDense):
            return "only GrowableDense and SparseDense are converted by default"
        return _why_not_sparse(layer)

    chosen = wanted_layers(model, layers, why_not)
    _check_any(chosen, model, layers)
    named = capacity if isinstance(capacity, Mapping) else dict.fromkeys(chosen, capacity)
    capacities = by_layer(model, named, chosen, "`capacity` must name layers that are converted.")
    connections = {id(layer): connections_of(layer) for layer in chosen}

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in connections:
            return None
        count = len(connections[id(layer)][0])
        return made_anew(
            layer,
            SparseDense,
            initial_density=count / axes_of(layer).size,
            capacity=capacities.get(layer),
        )

    def transfer(old: keras.Layer, new: SparseDense) -> None:
        set_connections(new, *connections[id(old)])
        _carry_bias(old, new)

    copy = clone_with(model, convert, transfer)
    check_copy(model, copy, verify)
    return copy


def make_plain(model: keras.Model, *, verify: Any = True) -> keras.Model:
    """A copy of `model` in which growable layers are Keras's own, for use anywhere.

    The copy computes the same function: its kernels are the effective kernels, with zeros in the
    place of dormant connections. It needs keras_grow no more, is not compiled, and forgets which
    connections were dormant.

    Args:
        model: a built Sequential or functional model with growable layers.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, and one without growable layers or with one
            that Keras has no equal of or that stands inside a layer of another kind.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    keras_grow.make_plain(model).save("plain.keras")
    ```
    """
    check_convertible(model)
    chosen = {id(layer) for layer in wanted_layers(model, growable_layers(model), _why_not_plain)}

    def convert(layer: keras.Layer) -> keras.Layer | None:
        return made_anew(layer, layer.plain_class) if id(layer) in chosen else None

    def transfer(old: Affine, new: keras.Layer) -> None:
        new.kernel.assign(old.effective_kernel())
        _carry_bias(old, new)

    copy = clone_with(model, convert, transfer)
    check_copy(model, copy, verify)
    return copy


def _carry_bias(old: keras.Layer, new: keras.Layer) -> None:
    if new.bias is not None:
        new.bias.assign(old.bias)


def _check_any(chosen: Sequence[keras.Layer], model: keras.Model, layers: LayerChoice) -> None:
    if not chosen:
        raise ValueError(
            "The model has no layer to convert. Received: "
            f"layers={layers!r}, and a model with layers "
            f"{paths_of(model, exchangeable_layers(model))}"
        )


def _why_not_sparse(layer: keras.Layer) -> str | None:
    if isinstance(layer, DenseLike):
        return None
    if type(layer) is not keras.layers.Dense:
        return f"{type(layer).__name__} has no sparse form"
    return why_not_resizable(layer)


def _why_not_plain(layer: keras.Layer) -> str | None:
    has_plain = isinstance(layer, Affine) and layer.plain_class is not None
    return None if has_plain else "Keras has no layer that computes the same"


def _with_exact_total(
    distribution: DensityDistribution, shapes: Sequence[tuple[int, ...]]
) -> list[float]:
    """The density of each layer, those of large ones less where small ones keep a connection."""
    densities = distribution(shapes)
    counts = exact_counts(densities, [math.prod(shape) for shape in shapes])
    return [
        density if initial_count(density, KernelAxes(shape)) == count else count / math.prod(shape)
        for density, count, shape in zip(densities, counts, shapes, strict=True)
    ]
