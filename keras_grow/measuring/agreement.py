"""Whether a copy of a model computes what the model does, layer by layer."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import layer_paths, nested_layers
from keras_grow.measuring.growth_data import batches
from keras_grow.measuring.interception import run_intercepted
from keras_grow.measuring.samples import generated_inputs
from keras_grow.structure.copying import saved_arrays

Places = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Of layers with other units in the copy, by `id`: where common units stand, and where there."""

# The largest error of a layer, in parts of its largest output. Sums in another order stay below.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}
_NUM_SAMPLES = 32


class CopyDiffers(ValueError):
    """Raised where a copy of a model would compute something else; no copy is returned."""


def check_copy(
    model: keras.Model,
    copy: keras.Model,
    verify: Any,
    places: Places | None = None,
    not_compared: Sequence[keras.Layer] = (),
    as_copy_takes: Callable[[Any], Any] = lambda inputs: inputs,
) -> None:
    """Compares a copy with its model; each layer by what it makes of the same inputs.

    Both run at inference, on the same random seeds, and are left untouched. Where a layer of the
    copy agrees, the model's own output goes on in its place, so that neither rounding adds up nor
    a saturated layer hides anything. What Keras would save of layers that were copied as they are
    must be the same to the bit.

    Args:
        model: a built Sequential or functional model.
        copy: what was made of it, with a layer for each of its layers.
        verify: True for inputs that are made up, False for none, or data: as for growth (only x is
            used, up to 32 samples), or x itself as an array or a dict of arrays.
        places: units to compare in layers that have others in the copy; without an entry their
            outputs are not compared, nor are those of other layers where the shapes differ.
        not_compared: layers of the model whose outputs are meant to be others in the copy.
        as_copy_takes: what the copy takes in the place of the model's inputs.

    Raises:
        CopyDiffers: if one does not agree, naming the first such layer.
        TypeError, ValueError: for `verify` of another kind, and data that does not fit.
    """
    if verify is False:
        return
    layers = paired_layers(model, copy)
    paths = layer_paths(model)
    skipped = {id(inner) for layer in not_compared for inner in nested_layers(layer)}
    for old, new in layers:
        difference = None if id(old) in skipped else _saved_difference(old, new)
        if difference is not None:
            raise _differs(paths[old], old, new, difference)
    is_made_up = verify is True
    attempts = generated_inputs(model) if is_made_up else iter([given_inputs(verify)])
    inputs, recording = _first_that_runs(model, [old for old, _ in layers], attempts, is_made_up)
    if recording is None:
        return
    comparison = _Comparison(layers, recording, places or {}, skipped)
    try:
        run_intercepted(copy, as_copy_takes(inputs), [new for _, new in layers], comparison.after)
    except Exception as error:  # Whatever the layers of the copy may raise.
        raise CopyDiffers(
            f"The copy can't be run on what the model runs on. Received: {error} Leave the layer "
            "out, or pass `verify=False` and see."
        ) from error
    if not comparison.differences:
        return
    # A layer that draws numbers from somewhere else does not agree with itself.
    itself = _Comparison([(old, old) for old, _ in layers], recording, {}, set())
    run_intercepted(model, inputs, [old for old, _ in layers], itself.after)
    for number, difference in comparison.differences.items():
        if number not in itself.differences:
            old, new = layers[number]
            raise _differs(paths[old], old, new, difference)
    drawing = [paths[layers[number][0]] for number in itself.differences]
    warnings.warn(
        f"Of the copy, layers {drawing} were not checked: at inference they draw random numbers "
        "from a source that can't be set. Give them a seed, or pass `verify=False`.",
        stacklevel=3,
    )


def given_inputs(data: Any) -> Any:
    """The first samples of what a user passed as `verify`, as tensors."""
    if isinstance(data, np.ndarray | tf.Tensor | dict):
        data = (data,)
    read, _ = batches(data, _NUM_SAMPLES)
    x, _, _ = next(read())
    return keras.tree.map_structure(lambda array: tf.convert_to_tensor(array[:_NUM_SAMPLES]), x)


def _first_that_runs(
    model: keras.Model, layers: Sequence[keras.Layer], attempts: Iterator[Any], is_made_up: bool
) -> tuple[Any, "_Recording | None"]:
    """The first inputs that the model makes finite numbers of, else the first that it runs on."""
    found, failure = None, None
    for inputs in attempts:
        recording = _Recording()
        try:
            outputs = run_intercepted(model, inputs, layers, recording.after)
        except Exception as error:  # Whatever the model's layers may raise.
            failure = failure or error
            continue
        found = found or (inputs, recording)
        if _is_finite(outputs):
            return inputs, recording
    if found is not None:
        return found
    if not is_made_up:
        raise ValueError(
            "`verify` must be True, False, or data that the model takes. Received data that the "
            f"model can't be run on: {failure}"
        ) from failure
    warnings.warn(
        "The copy was not checked: the model can't be run on inputs that are made up for it "
        f"({type(failure).__name__}: {failure}). Pass `verify=x` with inputs that it takes, or "
        "`verify=False`.",
        stacklevel=4,
    )
    return None, None


class _Recording:
    """What each layer of a model put out, call by call."""

    def __init__(self) -> None:
        self.outputs: dict[int, list[Any]] = {}

    def after(self, number: int, outputs: Any) -> Any:
        if _is_eager(outputs):
            self.outputs.setdefault(number, []).append(outputs)
        return outputs


class _Comparison:
    """Compares what the layers of a copy put out with a recording, call by call.

    Attributes:
        differences: how layers differ, by their number, the first first.
    """

    def __init__(
        self,
        layers: Sequence[tuple[keras.Layer, keras.Layer]],
        recording: _Recording,
        places: Places,
        skipped: set[int],
    ):
        self._layers = layers
        self._expected = {number: iter(calls) for number, calls in recording.outputs.items()}
        self._places = places
        self._skipped = skipped
        self.differences: dict[int, str] = {}

    def after(self, number: int, outputs: Any) -> Any:
        if not _is_eager(outputs):
            return outputs
        expected = next(self._expected.get(number, iter(())), None)
        old, new = self._layers[number]
        mine, theirs = keras.tree.flatten(outputs), keras.tree.flatten(expected)
        if len(mine) != len(theirs):
            self._note(number, f"it has {len(mine)} outputs in place of {len(theirs)}")
            return outputs
        for position, (ours, original) in enumerate(zip(mine, theirs, strict=True)):
            is_same_shape = getattr(ours, "shape", None) == getattr(original, "shape", None)
            common = ours, original
            if id(old) in self._places:
                here, there = self._places[id(old)]
                common = tf.gather(ours, there, axis=-1), tf.gather(original, here, axis=-1)
            if (is_same_shape or id(old) in self._places) and id(old) not in self._skipped:
                is_shorter = bool(self._places)
                self._note(number, _difference(*common, new.compute_dtype, is_shorter))
            if is_same_shape and isinstance(original, tf.Tensor):
                mine[position] = tf.identity(original)
        return keras.tree.pack_sequence_as(outputs, mine)

    def _note(self, number: int, difference: str | None) -> None:
        if difference is not None:
            self.differences.setdefault(number, difference)


def _differs(path: str, old: keras.Layer, new: keras.Layer, how: str) -> CopyDiffers:
    kind = type(old).__name__
    kinds = kind if kind == type(new).__name__ else f"{kind}, {type(new).__name__} in the copy"
    return CopyDiffers(
        f"The copy would not compute what the model does. Received: layer {path!r} ({kinds}) "
        f"as the first that differs: {how}. Leave that layer out, mend how it is saved and loaded "
        "if it is your own, or pass `verify=False` if you expect it."
    )


def _saved_difference(old: keras.Layer, new: keras.Layer) -> str | None:
    """How what Keras saves of a layer that was copied as it is differs, to the bit."""
    if type(old) is not type(new) or isinstance(old, Growable):
        return None
    before, after = saved_arrays(old), saved_arrays(new)
    shapes = [{name: array.shape for name, array in each.items()} for each in (before, after)]
    if shapes[0] != shapes[1]:  # Units came or went; a plain copy has the same variables.
        return None
    for name, array in before.items():
        if not np.array_equal(array, after[name], equal_nan=array.dtype.kind == "f"):
            return f"the array {name!r} that Keras saves of it is another"
    if hasattr(old, "get_vocabulary") and old.get_vocabulary() != new.get_vocabulary():
        return "its vocabulary is another"
    return None


def _difference(
    ours: Any, original: Any, compute_dtype: str, is_shorter: bool = False
) -> str | None:
    """How two outputs differ, `None` if they agree as far as their precision goes.

    Sums of fewer terms round in another way than those of all, which shows where they cancel.
    """
    if isinstance(original, tf.RaggedTensor | tf.SparseTensor):
        parts = zip(
            tf.nest.flatten(ours, expand_composites=True),
            tf.nest.flatten(original, expand_composites=True),
            strict=True,
        )
        found = (_difference(a, b, compute_dtype, is_shorter) for a, b in parts)
        return next((each for each in found if each is not None), None)
    if original is None or ours is None:
        return None if original is ours else "one is None"
    dtype = tf.as_dtype(original.dtype)
    ours, original = np.asarray(ours), np.asarray(original)
    if ours.shape != original.shape:
        return f"shape {ours.shape} in place of {original.shape}"
    if not dtype.is_floating:
        num_other = int(np.sum(ours != original))
        return f"{num_other} of {original.size} entries are others" if num_other else None
    if np.array_equal(ours, original):
        return None
    ours, original = ours.astype(np.float64), original.astype(np.float64)
    is_alike = (ours == original) | (np.isnan(ours) & np.isnan(original))
    with np.errstate(invalid="ignore"):
        error = np.where(is_alike, 0.0, np.abs(ours - original)).max(initial=0.0)
    scale = np.max(np.abs(original), where=np.isfinite(original), initial=0.0)
    tolerance = max(_TOLERANCES.get(name, 1e-10) for name in (dtype.name, compute_dtype))
    tolerance *= 10 if is_shorter else 1
    if error <= tolerance * scale:
        return None
    return (
        f"an error of {error:.3g}, where the outputs' largest is {scale:.3g} and {tolerance:.0e} "
        "of it is accepted"
    )


def _is_eager(outputs: Any) -> bool:
    """Whether outputs can be read, as they can't inside a loop or a compiled function."""
    flat = tf.nest.flatten(outputs, expand_composites=True)
    return not any(isinstance(each, tf.Tensor) and tf.is_symbolic_tensor(each) for each in flat)


def _is_finite(outputs: Any) -> bool:
    flat = tf.nest.flatten(outputs, expand_composites=True)
    floats = [each for each in flat if tf.is_tensor(each) and each.dtype.is_floating]
    return all(bool(tf.reduce_all(tf.math.is_finite(each))) for each in floats)
