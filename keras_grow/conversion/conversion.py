"""Plain Keras models to growable and sparse ones, and back."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.conversion.in_place import (
    InPlace,
    grow_by_configuration,
    grow_in_place,
    plain_by_configuration,
    plain_in_place,
)
from keras_grow.conversion.reach import (
    LayerChoice,
    check_any,
    growable_class,
    is_growable,
    plan_conversion,
    wanted_layers,
    why_not_growable,
)
from keras_grow.conversion.starts import Starts
from keras_grow.integers import checked_integer
from keras_grow.layers.affine import Affine
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.dense_like import DenseLike
from keras_grow.layers.growable import growable_layers
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.masked import keep_active
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import by_layer, nested_layers, paths_of
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.measuring.agreement import check_copy
from keras_grow.policies.densities import (
    DensityDistribution,
    FanIn,
)
from keras_grow.search.atoms import splits_atoms
from keras_grow.structure.cloning import (
    Inside,
    check_convertible,
    clone_with,
    exchangeable_layers,
    is_made_of_graph,
    set_connections,
)
from keras_grow.structure.copying import carry_state, carry_vocabularies, made_anew
from keras_grow.structure.kernels import axes_of, connections_of, why_not_resizable


def make_growable(
    model: keras.Model,
    layers: LayerChoice = None,
    initial_density: float | DensityDistribution = 1.0,
    *,
    seed: int | None = None,
    zeros_are_dormant: bool = False,
    in_place: bool = False,
    verify: Any = True,
) -> keras.Model:
    """A copy of `model` with growable layers in the place of plain ones, and the weights kept.

    Dense layers become `GrowableDense`, Conv1D and Conv2D layers `GrowableConv1D` and
    `GrowableConv2D`. Other layers that have kernels, themselves or in layers inside them (recurrent
    layers, attention, embeddings, all other convolutions, blocks of one's own), stay what they are
    inside `GrowableKernels`. All other layers are copied as they are, with whatever Keras would
    save of them; a warning says, once, which weights are left and why (`plan_conversion` says it
    before). At density 1 the copy computes the same function, which is checked layer by layer.
    `SparseDense` layers become `GrowableDense` with the connections that they have, whatever the
    density. The copy is not compiled (`convert_optimizer` makes its optimizer), and `model` stays
    as it was.

    Subclassed models, and layers without a configuration, can't be copied. With `in_place`, kernels
    are masked where they stand, and `model` itself is returned, with its optimizer. Its layers stay
    the objects that they are, in whatever lists or dicts it keeps them; only how they are called
    changes. Train steps of your own that were compiled by hand must be traced anew; those of `fit`
    are. It is saved and loaded as before, if its class is registered; it must be able to build
    itself then.

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
        in_place: whether `model` itself becomes growable, instead of a copy.
        verify: how the copy is checked against `model`, at a density of 1: True on inputs that are
            made up, False not at all, or data (an array or dict of inputs, or growth data). With a
            lower density, layers that lost connections are not compared.

    Returns:
        A new model of the same kind; with `in_place`, `model`.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for an unbuilt model, one without layers to convert, layers asked for that
            can't be, and, without `in_place`, a subclassed model, one of a class that can't be
            made of inputs and outputs, and one with layers that can't be made anew.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    growable = keras_grow.make_growable(trained)
    growable.compile("adam", "sparse_categorical_crossentropy")
    keras_grow.prune(growable, density=0.1)
    ```
    """
    if in_place:
        grown = grow_in_place(model, layers, initial_density, seed, zeros_are_dormant)
        _warn_of_what_is_left(model, layers)
        return grown
    check_convertible(model)
    if not is_made_of_graph(model):
        grown = grow_by_configuration(
            model, layers, initial_density, seed, zeros_are_dormant, verify
        )
        _warn_of_what_is_left(model, layers)
        return grown
    chosen = wanted_layers(model, layers, why_not_growable)
    check_any(chosen, model, layers, exchangeable_layers(model), why_not_growable)
    sparse = [layer for layer in chosen if isinstance(layer, SparseDense)]
    plain = [layer for layer in chosen if not isinstance(layer, SparseDense)]
    starts = Starts(plain, initial_density, seed, zeros_are_dormant)

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        if isinstance(layer, SparseDense) and layer in sparse:
            return made_anew(layer, GrowableDense, initial_density=layer.density)
        if layer not in starts:
            return None
        kind = growable_class(layer)
        if kind is not None:
            return made_anew(layer, kind, **starts.arguments(layer))
        anew = made_anew(layer, inside=inside)
        carry_vocabularies(layer, anew)
        return GrowableKernels(anew, name=layer.name)

    def transfer(old: keras.Layer, new: Any) -> None:
        if isinstance(new, GrowableKernels):
            carry_state(old, new.layer)
            starts.mask(old, new.masked_kernels)
            return
        if isinstance(old, SparseDense):
            set_connections(new, *old.active_connections())
        else:
            if zeros_are_dormant:
                new.kernel_mask.assign(old.kernel.value != 0)
            new.kernel.assign(keep_active(old.kernel, new.kernel_mask))
        _carry_bias(old, new)

    copy = clone_with(model, convert, transfer)
    check_copy(model, copy, verify, not_compared=starts.thinned)
    _warn_of_what_is_left(model, layers)
    return copy


def make_sparse(
    model: keras.Model,
    layers: LayerChoice = None,
    capacity: int | float | FanIn | Mapping[str, int | float | FanIn] | None = None,
    *,
    group_size: int | None = None,
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
        group_size: how many neighboring units of each layer share their inputs, as in
            `SparseDense`; by default 1, and what it is in layers that are `SparseDense` already.
            Layers whose active connections are not alike for all units of a group are refused.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.
        ValueError: for a subclassed or unbuilt model, one without layers to convert, capacities
            below the active connections, layers with arguments that a `SparseDense` refuses, and
            those whose units don't share their inputs in groups of `group_size`.

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
    check_any(chosen, model, layers, exchangeable_layers(model), why_not)
    named = capacity if isinstance(capacity, Mapping) else dict.fromkeys(chosen, capacity)
    capacities = by_layer(model, named, chosen, "`capacity` must name layers that are converted.")
    connections = {id(layer): connections_of(layer) for layer in chosen}
    sizes = {
        id(layer): getattr(layer, "group_size", 1) if group_size is None else group_size
        for layer in chosen
    }
    if group_size is not None:
        _check_groups(model, chosen, connections, checked_integer(group_size, "group_size"))

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        if id(layer) not in connections:
            return None
        count = len(connections[id(layer)][0])
        return made_anew(
            layer,
            SparseDense,
            initial_density=count / axes_of(layer).size,
            capacity=capacities.get(layer),
            group_size=sizes[id(layer)],
        )

    def transfer(old: keras.Layer, new: SparseDense) -> None:
        set_connections(new, *connections[id(old)])
        _carry_bias(old, new)

    copy = clone_with(model, convert, transfer)
    check_copy(model, copy, verify)
    return copy


def _check_groups(
    model: keras.Model,
    layers: Sequence[keras.Layer],
    connections: Mapping[int, tuple[tf.Tensor, tf.Tensor]],
    group_size: int,
) -> None:
    """Raises `ValueError` unless units of each layer share their inputs in groups of a size."""
    for layer, path in zip(layers, paths_of(model, layers), strict=True):
        if layer.units % group_size:
            why = f"{layer.units} units"
        elif splits_atoms(connections[id(layer)][0], group_size):
            why = "active connections that lead from an input into a part of a group only"
        else:
            continue
        raise ValueError(
            "Units in groups must all read the same inputs. Received: "
            f"group_size={group_size}, for layer {path!r} with {why}. Choose `layers` whose "
            "connections are alike in each group, such as those of a `SparseDense` with this "
            "`group_size`."
        )


def make_plain(model: keras.Model, *, in_place: bool = False, verify: Any = True) -> keras.Model:
    """A copy of `model` in which growable layers are Keras's own, for use anywhere.

    The copy computes the same function: its kernels are the effective kernels, with zeros in the
    place of dormant connections. It needs keras_grow no more, is not compiled, and forgets which
    connections were dormant.

    Args:
        model: a built Sequential or functional model with growable layers.
        in_place: whether to take off the masks that `make_growable(model, in_place=True)` put on;
            then `model` itself is returned.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind; with `in_place`, `model`.

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
    if in_place:
        return plain_in_place(model)
    if isinstance(model, InPlace):
        return plain_by_configuration(model, verify)
    check_convertible(model)
    growable_layers(model)  # Raises where there is none.
    growable = [layer for layer in nested_layers(model) if is_growable(layer)]
    chosen = {id(layer) for layer in wanted_layers(model, growable, _why_not_plain)}

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        if id(layer) not in chosen:
            return None
        if not isinstance(layer, GrowableKernels):
            return made_anew(layer, layer.plain_class)
        plain = made_anew(layer.layer, inside=inside, name=layer.name)
        carry_vocabularies(layer.layer, plain)
        return plain

    def transfer(old: Any, new: keras.Layer) -> None:
        if isinstance(old, GrowableKernels):
            carry_state(old.layer, new)
            places = dict(paired_layers(old.layer, new))
            for kernel in old.masked_kernels:
                kernel.placed_in(places).variable.assign(kernel.effective_kernel())
            return
        new.kernel.assign(old.effective_kernel())
        _carry_bias(old, new)

    copy = clone_with(model, convert, transfer)
    check_copy(model, copy, verify)
    return copy


def _carry_bias(old: keras.Layer, new: keras.Layer) -> None:
    if new.bias is not None:
        new.bias.assign(old.bias)


def _warn_of_what_is_left(model: keras.Model, layers: LayerChoice) -> None:
    """Says once which weights `make_growable` leaves, unless its layers were chosen."""
    if layers is None and (conversion := plan_conversion(model)).left:
        warnings.warn(
            f"Not all of the model can grow: {conversion}. Choose with `layers=` to say what you "
            "expect.",
            stacklevel=3,
        )


def _why_not_sparse(layer: keras.Layer) -> str | None:
    if isinstance(layer, DenseLike):
        return None
    if type(layer) is not keras.layers.Dense:
        return f"{type(layer).__name__} has no sparse form"
    return why_not_resizable(layer)


def _why_not_plain(layer: keras.Layer) -> str | None:
    has_plain = isinstance(layer, Affine) and layer.plain_class is not None
    return (
        None
        if has_plain or isinstance(layer, GrowableKernels)
        else "Keras has no layer that computes the same"
    )
