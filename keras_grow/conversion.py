"""Plain Keras models to growable ones, and back."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_grow.compatibility import check_is_keras_model
from keras_grow.connections.densities import DensityDistribution, Uniform, check_density
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.growable import growable_layers, nested_layers
from keras_grow.layers.masked_dense import MaskedDense

_DENSE_ARGUMENTS = (
    "name",
    "trainable",
    "dtype",
    "units",
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
    layers: Sequence[str | keras.Layer] | Callable[[keras.layers.Dense], bool] | None = None,
    initial_density: float | DensityDistribution = 1.0,
    *,
    seed: int | None = None,
    zeros_are_dormant: bool = False,
) -> keras.Model:
    """A copy of `model` in which Dense layers are `GrowableDense`, with the weights kept.

    At density 1 the copy computes the same function. The copy is not compiled, and `model` stays
    as it was.

    Args:
        model: a built Sequential or functional model, nested and shared ones and `Dense` inside
            wrappers such as `TimeDistributed` included; trained or not.
        layers: the Dense layers to convert, or their names, or a function that says of a Dense
            layer whether to convert it; by default all.
        initial_density: the share of connections that stay active, at random; or a distribution
            such as `keras_grow.densities.ErdosRenyi(0.1)`. To keep the largest weights of a
            trained model instead, convert at 1 and `keras_grow.prune`.
        seed: non-negative integer that fixes which connections stay active; each layer's own seed
            derives from it.
        zeros_are_dormant: whether connections whose weight is exactly 0 become dormant: for models
            that another tool has pruned. Goes with an `initial_density` of 1.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, one without Dense layers to convert, and
            Dense layers that are quantised or have LoRA enabled.

    Example:

    ```python
    growable = keras_grow.make_growable(trained)
    growable.compile("adam", "sparse_categorical_crossentropy")
    keras_grow.prune(growable, density=0.1)
    ```
    """
    _check_convertible(model)
    is_wanted = _selector(model, layers)
    found = [layer for layer in nested_layers(model) if type(layer) is keras.layers.Dense]
    chosen = [layer for layer in found if is_wanted(layer)]
    if not chosen:
        raise ValueError(
            "The model has no Dense layer to convert. Received: layers="
            f"{layers!r}, and a model with Dense layers {[layer.name for layer in found]}"
        )
    for layer in chosen:
        if layer.lora_enabled or layer.quantization_mode is not None:
            raise ValueError(
                "A Dense layer with LoRA or quantisation can't grow. Received: layer "
                f"{layer.name!r}. Merge the LoRA weights (save and load the model), or leave the "
                "layer out with `layers=`."
            )
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
    densities = distribution([tuple(layer.kernel.shape) for layer in chosen])
    seeds: list[int | None] = [None] * len(chosen)
    if seed is not None:
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(chosen))]
    options = {
        id(layer): {"initial_density": density, "seed": layer_seed}
        for layer, density, layer_seed in zip(chosen, densities, seeds, strict=True)
    }

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if id(layer) not in options:
            return None
        return GrowableDense(**_dense_config(layer), **options[id(layer)])

    def transfer(old: keras.layers.Dense, new: GrowableDense) -> None:
        kernel = old.kernel.numpy()
        if zeros_are_dormant:
            new.kernel_mask.assign(kernel != 0)
        new.kernel.assign(np.where(new.kernel_mask.numpy(), kernel, 0))
        if new.bias is not None:
            new.bias.assign(old.bias)

    return _convert(model, convert, transfer)


def make_plain(model: keras.Model) -> keras.Model:
    """A copy of `model` in which growable layers are `keras.layers.Dense`, for use anywhere.

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
    _check_convertible(model)
    growable_layers(model)

    def convert(layer: keras.Layer) -> keras.Layer | None:
        if not isinstance(layer, MaskedDense):
            return None
        return keras.layers.Dense(**_dense_config(layer))

    def transfer(old: MaskedDense, new: keras.layers.Dense) -> None:
        new.kernel.assign(old.effective_kernel())
        if new.bias is not None:
            new.bias.assign(old.bias)

    return _convert(model, convert, transfer)


def _dense_config(layer: keras.Layer) -> dict:
    config = layer.get_config()
    return {name: config[name] for name in _DENSE_ARGUMENTS if name in config}


def _check_convertible(model: keras.Model) -> None:
    check_is_keras_model(model)
    if not model.built:
        raise ValueError(
            "Only a built model has weights to keep. Received: an unbuilt model. Call it on a "
            "batch, or build it."
        )
    if not _is_graph(model):
        raise ValueError(
            "Only Sequential and functional models can be converted. Received: "
            f"{type(model).__name__}, a subclassed model. Use growable layers in its definition."
        )


def _is_graph(layer: keras.Layer) -> bool:
    """Whether `layer` is a Sequential or functional model, which know their inputs."""
    return isinstance(layer, keras.Model) and getattr(layer, "inputs", None) is not None


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


def _convert(model: keras.Model, convert: Callable, transfer: Callable) -> keras.Model:
    """Clones the model, with `convert(layer)` in the place of layers for which it is not None."""
    pairs: list[tuple[keras.Layer, keras.Layer, Callable]] = []
    clones: dict[int, keras.Layer] = {}

    def clone(layer: keras.Layer) -> keras.Layer:
        # A shared layer is cloned once.
        if id(layer) not in clones:
            clones[id(layer)] = clone_anew(layer)
        return clones[id(layer)]

    def clone_anew(layer: keras.Layer) -> keras.Layer:
        converted = convert(layer)
        if converted is not None:
            pairs.append((layer, converted, transfer))
            return converted
        if not any(convert(inner) is not None for inner in nested_layers(layer)):
            copy = type(layer).from_config(layer.get_config())
            pairs.append((layer, copy, lambda old, new: new.set_weights(old.get_weights())))
            return copy
        if _is_graph(layer):
            return keras.models.clone_model(layer, clone_function=clone)
        if isinstance(layer, keras.layers.Wrapper):
            arguments = {k: v for k, v in layer.get_config().items() if k != "layer"}
            return type(layer)(clone(layer.layer), **arguments)
        raise ValueError(
            "Layers inside a layer of your own can't be exchanged. Received: layer "
            f"{layer.name!r} of class {type(layer).__name__}. Write its definition with the "
            "layers you want, or leave what is inside it out with `layers=`."
        )

    new_model = keras.models.clone_model(model, clone_function=clone)
    for old, new, move in pairs:
        move(old, new)
    return new_model
