"""Plain Keras models to growable and sparse ones, and back."""

import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_grow.connections.densities import (
    DensityDistribution,
    FanIn,
    Uniform,
    check_density,
    exact_counts,
    initial_count,
)
from keras_grow.layers.affine import Affine
from keras_grow.layers.conv import GrowableConv1D, GrowableConv2D
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import Growable, growable_layers, nested_layers
from keras_grow.layers.plain_kernel import PlainKernel
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.structure.cloning import check_convertible, clone_with, set_connections
from keras_grow.structure.kernels import connections_of, kernel_shape

# Plain layers, and what they become; their subclasses may compute something else.
_GROWABLE: dict[type, type[PlainKernel]] = {
    keras.layers.Dense: GrowableDense,
    keras.layers.Conv1D: GrowableConv1D,
    keras.layers.Conv2D: GrowableConv2D,
}
_ARGUMENTS = (
    "name",
    "trainable",
    "dtype",
    "units",
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "data_format",
    "dilation_rate",
    "groups",
    "activation",
    "use_bias",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


def make_growable(
    model: keras.Model,
    layers: Sequence[str | keras.Layer] | Callable[[keras.Layer], bool] | None = None,
    initial_density: float | DensityDistribution = 1.0,
    *,
    seed: int | None = None,
    zeros_are_dormant: bool = False,
) -> keras.Model:
    """A copy of `model` with growable layers in the place of plain ones, and the weights kept.

    Dense layers become `GrowableDense`, Conv1D and Conv2D layers `GrowableConv1D` and
    `GrowableConv2D`; their subclasses, grouped convolutions and those with channels first stay as
    they are. At density 1 the copy computes the same function. `SparseDense` layers become
    `GrowableDense` with the connections that they have, whatever the density. The copy is not
    compiled (`convert_optimizer` makes its optimizer), and `model` stays as it was.

    Args:
        model: a built Sequential or functional model, nested and shared ones and layers inside
            wrappers such as `TimeDistributed` included; trained or not.
        layers: the layers to convert, or their names, or a function that says of a layer that
            can be converted whether to do so; by default all of them.
        initial_density: the share of connections of plain layers that stay active, at random; or
            a distribution such as `keras_grow.densities.ErdosRenyi(0.1)`. A layer of which that is
            less than half a connection keeps one, and the largest gives it. To keep the largest
            weights of a trained model instead, convert at 1 and `keras_grow.prune`.
        seed: non-negative integer that fixes which connections stay active; each layer's own seed
            derives from it.
        zeros_are_dormant: whether connections whose weight is exactly 0 become dormant: for models
            that another tool has pruned. Goes with an `initial_density` of 1.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, one without layers to convert, and layers
            that are quantised or have LoRA enabled.

    Example:

    ```python
    growable = keras_grow.make_growable(trained)
    growable.compile("adam", "sparse_categorical_crossentropy")
    keras_grow.prune(growable, density=0.1)
    ```
    """
    check_convertible(model)
    is_wanted = _selector(model, layers)
    chosen = _choose(model, is_wanted, (*_GROWABLE, SparseDense), layers)
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
    plain = [layer for layer in chosen if not isinstance(layer, SparseDense)]
    densities = _with_exact_total(distribution, [tuple(layer.kernel.shape) for layer in plain])
    seeds: list[int | None] = [None] * len(plain)
    if seed is not None:
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(plain))]
    options = {
        id(layer): {"initial_density": density, "seed": layer_seed}
        for layer, density, layer_seed in zip(plain, densities, seeds, strict=True)
    }
    options |= {
        id(layer): {"initial_density": layer.density}
        for layer in chosen
        if isinstance(layer, SparseDense)
    }

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in options:
            return None
        growable_class = _GROWABLE.get(type(layer), GrowableDense)
        return growable_class(**_config(layer), **options[id(layer)])

    def transfer(old: keras.Layer, new: PlainKernel) -> None:
        if isinstance(old, SparseDense):
            set_connections(new, *old.active_connections())
        else:
            kernel = old.kernel.numpy()
            if zeros_are_dormant:
                new.kernel_mask.assign(kernel != 0)
            new.kernel.assign(np.where(new.kernel_mask.numpy(), kernel, 0))
        if new.bias is not None:
            new.bias.assign(old.bias)

    return clone_with(model, convert, transfer)


def make_sparse(
    model: keras.Model,
    layers: Sequence[str | keras.Layer] | Callable[[keras.Layer], bool] | None = None,
    capacity: int | float | FanIn | Mapping[str, int | float | FanIn] | None = None,
) -> keras.Model:
    """A copy of `model` in which layers are `SparseDense`, with weights and connections kept.

    The copy computes the same function, in memory and time that follow its active connections.
    It is not compiled (`convert_optimizer` makes its optimizer), and `model` stays as it was.
    This is also how a model gets layers with another capacity. Convolutions stay as they are.

    Args:
        model: a built Sequential or functional model.
        layers: the layers to convert, or their names, or a function that says of a Dense or
            growable layer whether to convert it; by default `GrowableDense` and `SparseDense`
            layers. Of a plain Dense, the weights that are not 0 become connections. A
            `WeightNormDense` gives its effective weights, and is normalised no more.
        capacity: how many connections each layer can hold: an integer, a density, a
            `keras_grow.FanIn`, or a mapping from layer names to these; by default, and for layers
            not in the mapping, as many as it has.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, one without layers to convert, capacities
            below the active connections, and layers with arguments that a `SparseDense` refuses.

    Example:

    ```python
    sparse = keras_grow.make_sparse(pruned, capacity=keras_grow.FanIn(32))
    sparse.compile(keras_grow.convert_optimizer(pruned, sparse), pruned.loss)
    ```
    """
    check_convertible(model)
    kinds: tuple[type, ...] = (keras.layers.Dense, DenseLike)
    if layers is None:
        kinds = (GrowableDense, SparseDense)
    chosen = _choose(model, _selector(model, layers), kinds, layers)
    names = {layer.name for layer in chosen}
    if isinstance(capacity, Mapping) and not names >= set(capacity):
        raise ValueError(
            "`capacity` must name layers that are converted. Received: "
            f"{sorted(capacity)}, expected some of {sorted(names)}"
        )

    def capacity_of(layer: keras.Layer) -> int | float | FanIn | None:
        return capacity.get(layer.name) if isinstance(capacity, Mapping) else capacity

    connections = {id(layer): connections_of(layer) for layer in chosen}

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in connections:
            return None
        count = len(connections[id(layer)][0])
        return SparseDense(
            **_config(layer),
            initial_density=count / math.prod(kernel_shape(layer)),
            capacity=capacity_of(layer),
        )

    def transfer(old: keras.Layer, new: SparseDense) -> None:
        set_connections(new, *connections[id(old)])
        if new.bias is not None:
            new.bias.assign(old.bias)

    return clone_with(model, convert, transfer)


def make_plain(model: keras.Model) -> keras.Model:
    """A copy of `model` in which growable layers are Keras's own, for use anywhere.

    The copy computes the same function: its kernels are the effective kernels, with zeros in the
    place of dormant connections. It needs keras_grow no more, is not compiled, and forgets which
    connections were dormant.

    Args:
        model: a built Sequential or functional model with growable layers.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, and one without growable layers.

    Example:

    ```python
    keras_grow.make_plain(model).save("plain.keras")
    ```
    """
    check_convertible(model)
    growable_layers(model)

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if not isinstance(layer, Affine):
            return None
        if layer.plain_class is None:
            raise ValueError(
                "Keras has no layer that computes the same. Received: layer "
                f"{layer.name!r} of class {type(layer).__name__}"
            )
        return layer.plain_class(**_config(layer))

    def transfer(old: Affine, new: keras.Layer) -> None:
        new.kernel.assign(old.effective_kernel())
        if new.bias is not None:
            new.bias.assign(old.bias)

    return clone_with(model, convert, transfer)


def _choose(model, is_wanted, kinds, layers) -> list[keras.Layer]:
    """The wanted layers of `model` of some classes; plain ones as they are, no subclasses."""
    found = [
        layer
        for layer in nested_layers(model)
        if isinstance(layer, kinds) and (isinstance(layer, Affine) or _can_grow(layer))
    ]
    chosen = [layer for layer in found if is_wanted(layer)]
    if not chosen:
        raise ValueError(
            "The model has no layer to convert. Received: layers="
            f"{layers!r}, and a model with convertible layers {[layer.name for layer in found]}"
        )
    for layer in chosen:
        is_plain = not isinstance(layer, Growable)
        if is_plain and (layer.lora_enabled or layer.quantization_mode is not None):
            raise ValueError(
                "A layer with LoRA or quantisation can't grow. Received: layer "
                f"{layer.name!r}. Merge the LoRA weights (save and load the model), or leave the "
                "layer out with `layers=`."
            )
    return chosen


def _can_grow(layer: keras.Layer) -> bool:
    """Whether a plain layer computes what a growable one can."""
    is_supported = getattr(layer, "groups", 1) == 1 and (
        getattr(layer, "data_format", "channels_last") == "channels_last"
    )
    return type(layer) in _GROWABLE and is_supported


def _config(layer: keras.Layer) -> dict:
    """The arguments that a layer shares with its growable, sparse or plain form."""
    config = layer.get_config()
    return {name: config[name] for name in _ARGUMENTS if name in config}


def _with_exact_total(
    distribution: DensityDistribution, shapes: Sequence[tuple[int, ...]]
) -> list[float]:
    """The density of each layer, those of large ones less where small ones keep a connection."""
    densities = distribution(shapes)
    counts = exact_counts(densities, [math.prod(shape) for shape in shapes])
    return [
        density if initial_count(density, shape) == count else count / math.prod(shape)
        for density, count, shape in zip(densities, counts, shapes, strict=True)
    ]


def _selector(model, layers) -> Callable[[keras.Layer], bool]:
    if layers is None:
        return lambda layer: True
    if callable(layers):
        return layers
    names = {layer.name for layer in nested_layers(model)}
    unknown = [x for x in layers if not isinstance(x, keras.Layer) and x not in names]
    if isinstance(layers, str) or unknown:
        raise ValueError(
            "`layers` must list layers of the model, or their names, or be a function. "
            f"Received: {layers!r}, with layers {sorted(names)} in the model"
        )
    return lambda layer: layer in layers or layer.name in layers
