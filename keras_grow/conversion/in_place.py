"""Models that grow as the objects they are: subclassed ones, and blocks that can't be copied."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import keras

from keras_grow.compatibility import check_is_keras_model
from keras_grow.conversion.reach import LayerChoice, check_any, choose_layers, why_not_growable
from keras_grow.conversion.starts import Starts
from keras_grow.keras_private import forget_compiled
from keras_grow.layers.in_place import (
    mask_in_place,
    maskable_layers,
    masked_in_place,
    unmask_in_place,
)
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import nested_layers
from keras_grow.layers.unquantized import refuse
from keras_grow.measuring.agreement import check_copy
from keras_grow.optimizer_slots import reset_slots
from keras_grow.policies.densities import DensityDistribution
from keras_grow.structure.cloning import check_made_of_graph
from keras_grow.structure.copying import copied_by_configuration

# Classes with masks in place, by the class of the user's.
_KINDS: dict[type, type] = {}


def grow_in_place(
    model: keras.Model,
    layers: LayerChoice,
    initial_density: float | DensityDistribution,
    seed: int | None,
    zeros_are_dormant: bool,
) -> keras.Model:
    """`make_growable(model, in_place=True)`."""
    check_is_keras_model(model)
    if not model.built:
        raise ValueError(
            "Only a built model has kernels. Received: an unbuilt model. Call it on a batch first."
        )
    starts = _starts(model, layers, initial_density, seed, zeros_are_dormant)
    _mask(model, {layer: layer for layer in starts.layers}, starts)
    if model.compiled:
        kernels = [kernel for layer in starts.layers for kernel in masked_in_place(layer)]
        reset_slots(model.optimizer, [kernel.dormant() for kernel in kernels])
    return model


def grow_by_configuration(
    model: keras.Model,
    layers: LayerChoice,
    initial_density: float | DensityDistribution,
    seed: int | None,
    zeros_are_dormant: bool,
    verify: Any,
) -> keras.Model:
    """`make_growable(model)`, for a model whose class makes its graph by itself."""
    starts = _starts(model, layers, initial_density, seed, zeros_are_dormant)
    try:
        copy = copied_by_configuration(model)
    except ValueError:
        check_made_of_graph(model)  # It raises, and says what else would do.
        raise
    _mask(copy, dict(paired_layers(model, copy)), starts)
    check_copy(model, copy, verify, not_compared=starts.thinned)
    return copy


def plain_by_configuration(model: keras.Model, verify: Any) -> keras.Model:
    """`make_plain(model)`, for a model with masks in place."""
    with _of_plain_class(model):
        copy = copied_by_configuration(model)
    places = dict(paired_layers(model, copy))
    for layer in nested_layers(model):
        for kernel in masked_in_place(layer):
            kernel.placed_in(places).variable.assign(kernel.effective_kernel())
    check_copy(model, copy, verify)
    return copy


def _starts(
    model: keras.Model,
    layers: LayerChoice,
    initial_density: float | DensityDistribution,
    seed: int | None,
    zeros_are_dormant: bool,
) -> Starts:
    """Where the layers that are chosen among those that can be masked start."""
    reachable = list(maskable_layers(model))
    chosen = choose_layers(model, layers, reachable, why_not_growable)
    check_any(chosen, model, layers, reachable, why_not_growable)
    return Starts(chosen, initial_density, seed, zeros_are_dormant)


def _mask(model: keras.Model, places: Mapping[keras.Layer, keras.Layer], starts: Starts) -> None:
    """Masks layers of a model, each in the place of one of those that `starts` are of."""
    for layer in starts.layers:
        starts.mask(layer, mask_in_place(places[layer]))
    _save_with_masks(model)
    forget_compiled(model)


def plain_in_place(model: keras.Model) -> keras.Model:
    """`make_plain(model, in_place=True)`."""
    masked = [layer for layer in nested_layers(model) if masked_in_place(layer)]
    if not masked:
        raise ValueError(
            "The model has no layer that was made growable in place. Received: layers "
            f"{[layer.name for layer in nested_layers(model)]}"
        )
    for layer in masked:
        unmask_in_place(layer)
    if isinstance(model, InPlace):
        model.__class__ = model.plain_class
    forget_compiled(model)
    return model


class InPlace:
    """A model with kernels masked in place, so that its files say which.

    A file of the model's own class would be loaded without the masks.

    Attributes:
        plain_class: the class that it had.
    """

    plain_class: type[keras.Model]

    def quantize(self, *args, **kwargs) -> NoReturn:
        """Raises `ValueError`, before any layer is changed."""
        refuse(self)

    def get_config(self):
        with _of_plain_class(self):
            config = keras.saving.serialize_keras_object(self)
        # By number: names that Keras chose are others in the model that is loaded.
        layers = enumerate(maskable_layers(self))
        masked = [number for number, layer in layers if masked_in_place(layer)]
        return {"model": config, "masked": masked}


@contextlib.contextmanager
def _of_plain_class(model: Any) -> Iterator[None]:
    """Gives a model the class back that it had before it was masked, inside the block."""
    kind = type(model)
    model.__class__ = kind.plain_class
    try:
        yield
    finally:
        model.__class__ = kind


class _Loaded(InPlace):
    """Makes a model of what `InPlace.get_config` says."""

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> keras.Model:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        if not model.built:
            raise ValueError(
                "A model with masks in place is loaded once its class can build it from its "
                f"configuration. Received: a {type(model).__name__} that stays unbuilt. Define "
                "`build`, or make it anew, call `make_growable(model, in_place=True)`, and load "
                "its weights."
            )
        layers = list(maskable_layers(model))
        for number in config["masked"]:
            mask_in_place(layers[number])
        _save_with_masks(model)
        return model


def _save_with_masks(model: keras.Model) -> None:
    """Has a model say in its files which kernels are masked."""
    kind = type(model)
    if isinstance(model, InPlace):
        return
    if kind not in _KINDS:
        register = keras.saving.register_keras_serializable("keras_grow", "InPlace")
        members = {"plain_class": kind, "__module__": __name__, "__qualname__": kind.__qualname__}
        _KINDS[kind] = register(type(kind.__name__, (InPlace, kind), members))
        register(_Loaded)
    model.__class__ = _KINDS[kind]


keras.saving.register_keras_serializable("keras_grow", "InPlace")(_Loaded)
