"""The optimizer of a converted model, which goes on where the old one stands."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from keras_grow.conversion.compaction import Compaction
from keras_grow.conversion.deepening import deepened_layers
from keras_grow.conversion.widening import carried_axes
from keras_grow.layers.affine import Affine
from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.in_place import masked_in_place
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.kernel_types import inner_kernels
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import nested_layers
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.layers.weight_norm_kernel import WeightNormKernel
from keras_grow.optimizer_slots import Move, carry_over, shift_averages
from keras_grow.structure import kernels
from keras_grow.structure.axes import Axes, axes_of, places, translated
from keras_grow.structure.cloning import exchangeable_layers, is_graph
from keras_grow.structure.kernels import connections_of, has_kernel
from keras_grow.structure.resizing import scales_of


def convert_optimizer(
    model: keras.Model,
    converted: keras.Model | Compaction,
    optimizer: keras.Optimizer | None = None,
) -> keras.Optimizer:
    """The optimizer with which a converted model goes on training where `model` stands.

    It has the settings, the step and the loss scale of the optimizer of `model`, and the slots of
    all weights that the conversion kept; the slots of other weights start afresh, and so do those
    of a layer with weight normalization that was converted.

    Args:
        model: the model that was converted.
        converted: what `make_growable`, `make_sparse`, `make_plain`, `widen`, `grow_depth` or
            `compact` made of it; of `grow_depth` what it made in one call or several.
        optimizer: the optimizer of a custom loop; by default the one `model` was compiled with.

    Raises:
        ValueError: if there is no optimizer, if it was built for other variables than the model's
            trainable ones, and if `converted` was not made from `model`.

    Example:

    ```python
    sparse = keras_grow.make_sparse(model)
    sparse.compile(keras_grow.convert_optimizer(model, sparse), "mse")
    ```
    """
    if optimizer is None:
        optimizer = model.optimizer if model.compiled else None
    if optimizer is None:
        raise ValueError(
            "There is no optimizer to convert. Received: a model that is not compiled, and "
            "optimizer=None"
        )
    compaction = converted if isinstance(converted, Compaction) else None
    new_model = converted.model if isinstance(converted, Compaction) else converted
    layers = nested_layers(model)
    is_deeper = False
    try:
        paired = dict(paired_layers(model, new_model))
    except ValueError:  # Other numbers of layers.
        paired = _paired_with_deeper(model, new_model)
        is_deeper = bool(paired)
    # Layers that others make inside them may be named by a running number.
    named = [layer for layer in exchangeable_layers(model) if layer in paired]
    # What a wrapper held that is gone went on in the layer that stands in its place.
    unwrapped = {
        inner
        for old, new in paired.items()
        if isinstance(old, GrowableKernels) and not isinstance(new, GrowableKernels)
        for inner in nested_layers(old)
    }
    is_whole = all(layer in paired or layer in unwrapped for layer in layers)
    if not is_whole or any(paired[layer].name != layer.name for layer in named):
        raise ValueError(
            "`converted` must have been made from `model`. Received: models with layers "
            f"{[layer.name for layer in layers]} and "
            f"{[layer.name for layer in nested_layers(new_model)]}"
        )
    if is_deeper:
        return _of_deeper(optimizer, model, new_model, paired)
    if compaction is None:
        axes: Mapping[int, Axes] = carried_axes(model, new_model)
    else:
        axes = {id(layer): axes for layer, axes in zip(layers, compaction.axes, strict=True)}
    moves: dict[int, Move] = {}
    for old, new in paired.items():
        moves |= {id(move.old): move for move in _moves(old, new, axes.get(id(old), {}))}
    pairs = zip(model.trainable_variables, new_model.trainable_variables, strict=True)
    made = carry_over(optimizer, [moves.get(id(old), Move(old, new)) for old, new in pairs])
    for old, new in paired.items():
        for variable, scale in scales_of(old, new).values() if axes.get(id(old)) else ():
            shift_averages(made, variable, scale=scale)
    if compaction is not None:
        for layer, shift in zip(layers, compaction.bias_shifts, strict=True):
            if shift is not None:
                # An average of what the biases were must not take the constants out again.
                shift_averages(made, paired[layer].bias, tf.constant(shift))
    return made


def _paired_with_deeper(model: keras.Model, deeper: keras.Model) -> dict[keras.Layer, keras.Layer]:
    """The layers of `model` with those of a deeper copy; empty if it is none."""
    if not (is_graph(model) and is_graph(deeper)):
        return {}
    try:
        paired = dict(deepened_layers(model, deeper))
    except ValueError:
        return {}
    for old, new in paired.items():
        shapes = [[w.shape for w in layer.weights] for layer in (old, new)]
        if not is_graph(old) and (type(old) is not type(new) or shapes[0] != shapes[1]):
            return {}
    return paired


def _of_deeper(
    optimizer: keras.Optimizer,
    model: keras.Model,
    deeper: keras.Model,
    paired: Mapping[keras.Layer, keras.Layer],
) -> keras.Optimizer:
    there = {
        id(before): after
        for old, new in paired.items()
        if not is_graph(old)
        for before, after in zip(old.weights, new.weights, strict=True)
    }
    moves = [Move(old, there[id(old)]) for old in model.trainable_variables]
    return carry_over(optimizer, moves, deeper.trainable_variables)


def _moves(old: keras.Layer, new: keras.Layer, axes: Axes) -> list[Move]:
    """How the variables of a layer moved into its copy, those that are not there as they were."""
    masks = [_masks_of(old), _masks_of(new)]
    if masks[1] and not masks[0]:
        pairs = zip(inner_kernels(old), masks[1], strict=True)
        kept = [(a.variable, b.inner.variable, b.active_connections()[0]) for a, b in pairs]
        return [Move(before, after, (active, active)) for before, after, active in kept]
    if any(isinstance(kernel, WeightNormKernel) for kernel in masks[0]) and not masks[1]:
        raise _normalized(old, new)
    is_other = isinstance(new, SparseDense) or type(old) is not type(new)
    # Other layers, and the models themselves, may be of different classes too.
    is_kernel_moved = is_other and has_kernel(new)
    moves = []
    if axes:
        moves = [
            Move(a, b, places(a.shape, b.shape, axes_of(old, a, axes)))
            for a, b in zip(old.trainable_variables, new.trainable_variables, strict=True)
            if not (is_kernel_moved and a is _weights(old))
        ]
    if not is_kernel_moved:
        return moves
    if isinstance(old, WeightNormKernel):
        raise _normalized(old, new)
    is_kept = isinstance(new, Affine) and not axes
    common, _ = connections_of(new if is_kept else old)
    there = common
    if axes:
        which, there = translated(common, kernels.axes_of(old), kernels.axes_of(new), axes)
        common = tf.gather(common, which)
    return [*moves, Move(_weights(old), _weights(new), (_place(old, common), _place(new, there)))]


def _masks_of(layer: keras.Layer) -> list[Inner]:
    """The masked kernels in a layer that keeps its variables."""
    return layer.masked_kernels if isinstance(layer, GrowableKernels) else masked_in_place(layer)


def _normalized(old: keras.Layer, new: keras.Layer) -> ValueError:
    return ValueError(
        "The optimizer's slots of v and g say nothing of the weights they make. "
        f"Received: layer {old.name!r}, a {type(old).__name__} that was converted to "
        f"{type(new).__name__}. Compile the converted model with a new optimizer."
    )


def _weights(layer: keras.Layer) -> keras.Variable:
    """The trainable variable that holds the weights of a plain or growable layer."""
    return layer.kernel_variables[0] if isinstance(layer, Growable) else layer.kernel


def _place(layer: keras.Layer, connections: tf.Tensor) -> tf.Tensor:
    """Where the weights of some connections stand in `_weights(layer)`."""
    if not isinstance(layer, SparseDense):
        return connections
    return layer.slots_of(connections)
