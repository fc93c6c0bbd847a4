"""A layer made anew: its arguments, with live objects in them, and all that Keras would save of it.

A configuration is made for files: a function is a name in it, a lambda is byte code that Keras's
safe mode refuses, and an object of a class that nobody registered can't be found again. Here the
live objects are at hand. The configuration is that of a double of the layer, in which each of them
is represented by a stand-in, a function with a name of its own, under which Keras then finds it.
"""

import contextlib
import inspect
import tempfile
import types
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_grow.keras_private import is_seed
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import nested_layers


def made_anew(
    layer: Any,
    kind: type[Any] | None = None,
    inside: Mapping[int, keras.Layer] | None = None,
    **changes: Any,
) -> Any:
    """A new layer, operation or optimizer with the arguments of one; what is inside it is new too.

    Nothing is shared but functions, and objects of classes that are not Keras's own, such as an
    initializer of the user's.

    Args:
        layer: a layer, operation or optimizer.
        kind: the class of the new one, by default that of `layer`. Another one takes those of the
            arguments that both have.
        inside: layers to take in the place of those inside `layer`, by their `id`.
        changes: arguments that are not as they were.

    Raises:
        ValueError: if its class can't be given its arguments again.
    """
    maker: Any = type(layer) if kind is None else kind
    if isinstance(layer, GrowableKernels):  # In a file the layer inside is built, for its shapes.
        inside = {id(layer.layer): made_anew(layer.layer), **(inside or {})}
    live: dict[str, Any] = {}
    doubles = {key: _stand_in(other, live) for key, other in (inside or {}).items()}
    double = layer if isinstance(layer, keras.Model) else _double(layer, live, doubles)
    try:
        with keras.saving.CustomObjectScope(live):
            config = double.get_config()
            if maker is not type(layer):
                names = _arguments_of(maker)
                config = {name: value for name, value in config.items() if name in names}
            return maker.from_config({**config, **changes})
    except Exception as error:  # Whatever a class of the user's may raise.
        failure = error
    with contextlib.suppress(Exception):
        if maker is type(layer) and (arguments := _from_attributes(layer)) is not None:
            return maker(**{**arguments, **changes})
    what = "optimizer" if isinstance(layer, keras.Optimizer) else "layer"
    raise ValueError(
        f"A copy is made by `from_config` of what `get_config` says. Received: {what} "
        f"{layer.name!r} of class {type(layer).__name__}, of which that makes no {maker.__name__}: "
        f"{failure} Define `get_config`, or keep each argument of `__init__` as an attribute of "
        "the same name."
    ) from failure


def copied_by_configuration(model: keras.Model) -> keras.Model:
    """A copy of a built model, made by its class of its configuration, with all its state.

    Raises:
        ValueError: if its class does not make another one of it.
    """
    copy = made_anew(model)
    if not copy.built:
        copy.build_from_config(model.get_build_config() or {})
    if not copy.built:
        raise ValueError(
            "A model that is made of its configuration must be able to build itself. Received: "
            f"{model.name!r} of class {type(model).__name__}"
        )
    carry_state(model, copy)
    carry_trainable(model, copy)
    return copy


def carry_state(old: keras.Layer, new: keras.Layer) -> None:
    """Brings over all that Keras would save of a layer and of those inside it, and random seeds.

    Weights alone are not enough: an adapted Normalization computes with what it derives of them
    when it is loaded, a quantized layer saves scales, a lookup its vocabulary.

    Args:
        old: a built layer.
        new: a built layer with the same arguments.
    """
    for before, after in paired_layers(old, new):
        if type(before) is not type(after):
            continue  # A layer that stands elsewhere too, and gets its state there.
        carry_what_is_saved(before, after)
        unsaved = _unsaved_variables(after)
        for place, variable in _unsaved_variables(before).items():
            if place in unsaved:
                unsaved[place].assign(variable)


def carry_seeds(old: keras.Layer, new: keras.Layer) -> None:
    """Brings over how often the random seeds of a layer, and of those inside it, have drawn.

    For copies whose variables have other shapes, where `carry_state` would not do: what they draw
    next is then drawn from where the original stood, and no number is drawn twice.
    """
    for before, after in paired_layers(old, new):
        there = _unsaved_variables(after)
        for place, variable in _unsaved_variables(before).items():
            if place in there and is_seed(variable):
                there[place].assign(variable)


def carry_vocabularies(old: keras.Layer, new: keras.Layer) -> None:
    """Brings over what layers save beside arrays before `new` is called.

    What shape a lookup puts out may depend on it. Layers that are made when `new` is built come
    later, with the rest of the state.
    """
    befores, afters = (
        [inner for inner in nested_layers(layer) if hasattr(inner, "save_assets")]
        for layer in (old, new)
    )
    if len(befores) != len(afters):
        return
    for before, after in zip(befores, afters, strict=True):
        if before.built and not after.built:
            after.build_from_config(before.get_build_config())
            after.built = True
        carry_what_is_saved(before, after)


def carry_what_is_saved(old: keras.Layer, new: keras.Layer) -> None:
    """Brings over what Keras saves of a layer, without what is inside it."""
    try:
        new.load_own_variables(saved_arrays(old))
        if hasattr(old, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                old.save_assets(folder)
                new.load_assets(folder)
    except Exception as error:  # Whatever a class of the user's may raise.
        raise ValueError(
            "A copy gets the state of a layer as Keras saves and loads it. Received: layer "
            f"{old.name!r} of class {type(old).__name__}, which does not load what it saves: "
            f"{error}"
        ) from error


def saved_arrays(layer: keras.Layer) -> dict[str, np.ndarray]:
    """The arrays that Keras saves of a layer, without those of layers inside it."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return {
        name: value.numpy() if hasattr(value, "numpy") else np.asarray(value)
        for name, value in store.items()
    }


def carry_trainable(old: keras.Layer, new: keras.Layer) -> None:
    """Freezes in a copy what is frozen in the original, layer by layer."""
    for before, after in paired_layers(old, new):
        # Outer layers come first, and set those inside them.
        if after.trainable != before.trainable:
            after.trainable = before.trainable


class Undrawn:
    """While this is entered, layers that are added to it are built with zeros for weights.

    Their weights are about to be overwritten, and drawing them takes longer than all the rest.
    """

    def __init__(self) -> None:
        self._initializers: list[tuple[keras.Layer, dict[str, Any]]] = []

    def __enter__(self) -> "Undrawn":
        return self

    def __exit__(self, *error: Any) -> None:
        for layer, initializers in self._initializers:
            vars(layer).update(initializers)

    def add(self, layer: keras.Layer, only_kernels: bool = False) -> None:
        """Takes in a layer, with those inside it, before it is built."""
        for inner in nested_layers(layer):
            found = {
                name: value
                for name, value in vars(inner).items()
                if name.endswith("initializer")
                and callable(value)
                and (name == "kernel_initializer" or not only_kernels)
            }
            vars(inner).update(dict.fromkeys(found, keras.initializers.Zeros()))
            self._initializers.append((inner, found))


def _double(layer: Any, live: dict[str, Any], doubles: dict[int, Any]) -> Any:
    """An object with the attributes of `layer`, with stand-ins for the objects put into `live`.

    Layers and optimizers inside are doubles too; models are not, whose configuration is a graph's.
    """
    if id(layer) not in doubles:
        doubles[id(layer)] = double = object.__new__(type(layer))
        live.setdefault(keras.saving.get_registered_name(type(layer)), type(layer))
        methods = {name for name in vars(layer) if callable(getattr(type(layer), name, None))}
        vars(double).update(
            {
                name: value if name in methods else _represented(value, live, doubles)
                for name, value in vars(layer).items()
            }
        )
    return doubles[id(layer)]


def _represented(value: Any, live: dict[str, Any], doubles: dict[int, Any]) -> Any:
    if isinstance(value, keras.Model) and id(value) not in doubles:
        return value
    if isinstance(value, keras.Layer | keras.Optimizer):
        return _double(value, live, doubles)
    if isinstance(value, dict):
        return {name: _represented(each, live, doubles) for name, each in value.items()}
    if isinstance(value, (list, tuple)) and any(map(_is_of_interest, value)):
        return [_represented(each, live, doubles) for each in value]
    return _stand_in(value, live) if _is_live(value) else value


def _is_of_interest(value: Any) -> bool:
    return isinstance(value, keras.Layer | keras.Optimizer) or _is_live(value)


def _is_live(value: Any) -> bool:
    """Whether a value is a function or an object of the user's, which no name need stand for."""
    if not callable(value) or isinstance(value, type | keras.Layer | keras.Metric | keras.Variable):
        return False
    if isinstance(getattr(value, "__self__", None), keras.Layer):
        return False
    is_function = isinstance(value, types.FunctionType | types.BuiltinFunctionType)
    owner = value if is_function else type(value)
    return (getattr(owner, "__module__", None) or "").split(".")[0] != "keras"


def _stand_in(value: Any, live: dict[str, Any]) -> Callable:
    def stand_in(*arguments: Any, **keywords: Any) -> Any:
        return value(*arguments, **keywords)

    stand_in.__name__ = stand_in.__qualname__ = f"live_object_{len(live)}"
    live[stand_in.__name__] = value
    return stand_in


def _arguments_of(kind: type) -> set[str]:
    """The names of all arguments that a class and those it derives from can be made with."""
    constructors = [vars(base).get("__init__") for base in kind.__mro__]
    return {name for each in constructors if each for name in inspect.signature(each).parameters}


def _from_attributes(layer: Any) -> dict[str, Any] | None:
    """The arguments of a layer that keeps each as an attribute, `None` if it does not."""
    arguments: dict[str, Any] = {}
    base = {"name": layer.name}
    if isinstance(layer, keras.Layer):
        base |= {"trainable": layer.trainable, "dtype": layer.dtype_policy}
    _, *parameters = inspect.signature(type(layer).__init__).parameters.items()
    for name, parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments = {**base, **arguments}
        elif name in base:
            arguments[name] = base[name]
        else:
            if name not in vars(layer) or parameter.kind is parameter.VAR_POSITIONAL:
                return None
            value = vars(layer)[name]
            if isinstance(value, keras.Layer):
                value = made_anew(value)
            elif isinstance(value, keras.Metric | keras.Variable | keras.Optimizer):
                return None
            arguments[name] = value
    return arguments


def _unsaved_variables(layer: keras.Layer) -> dict[tuple[str, int], keras.Variable]:
    """What Keras does not save: the states of random seeds and of stateful recurrent layers."""
    saved = {id(variable) for variable in layer.weights}
    found: dict[tuple[str, int], keras.Variable] = {}
    for name, value in vars(layer).items():
        values = value if isinstance(value, list | tuple) else [value]
        for number, each in enumerate(values):
            each = each.state if isinstance(each, keras.random.SeedGenerator) else each
            if isinstance(each, keras.Variable) and id(each) not in saved:
                found[name, number] = each
    return found
