"""Copies of layers with more or fewer units, and the weights that they take over."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.weight_norm_kernel import WeightNormKernel
from keras_grow.structure.axes import Axes, axes_of, layouts_of, places, translated
from keras_grow.structure.cloning import set_connections
from keras_grow.structure.copying import made_anew
from keras_grow.structure.kernels import attribute_of, has_kernel, holders_of
from keras_grow.structure.rules import UnitRule, computing, rule_for
from keras_grow.structure.wired_layers import wiring_for
from keras_grow.structure.wirings import OUTPUT, Wiring


def resized(layer: keras.Layer, counts: Mapping[str, int], **changes: Any) -> keras.Layer:
    """A layer made anew with other numbers of entries on some of its sides.

    Args:
        layer: a layer whose units are followed.
        counts: how many entries sides have, of those where it is another number than now.
        changes: other arguments of it that are not as they were.
    """
    wiring, inner = wiring_for(layer), computing(layer)
    parts: Mapping[str, dict[str, Any]] = {}
    if wiring is not None and counts:
        changes |= wiring.changes(inner, counts)
        parts = wiring.inside(inner, counts)
    elif OUTPUT in counts:
        rule = rule_for(layer)
        changes |= {} if rule is None else rule.changes(inner, counts[OUTPUT])
    inside = {}
    for name, of_part in parts.items():
        part = attribute_of(inner, name)
        inside[id(part)] = made_anew(part, **of_part)
    if isinstance(layer, GrowableKernels):
        return made_anew(layer, inside={id(inner): made_anew(inner, inside=inside, **changes)})
    return made_anew(layer, inside=inside, **changes)


def carry(old: keras.Layer, new: keras.Layer, axes: Axes) -> None:
    """Brings the weights of a layer into its copy, whose new units, if any, are dormant."""
    pairs = list(zip(old.weights, new.weights, strict=True))
    if isinstance(old, Growable) and old.is_sparse:
        indices, values = old.active_connections()
        carried, there = translated(indices, old.axes, new.axes, axes)
        set_connections(new, there, tf.gather(values, carried))
        pairs = [] if old.bias is None else [(old.bias, new.bias)]
    # A newborn finds 0 and False in kernels, masks and biases; in statistics, and in what else a
    # layer has, what is new.
    rule: Wiring | UnitRule | None = wiring_for(old) or rule_for(old)
    filters = {
        id(attribute_of(computing(old), name)): getattr(computing(new), initializer)
        for name, initializer in ({} if rule is None else rule.filters).items()
        if hasattr(computing(new), initializer)
    }
    starts_empty = set(layouts_of(old, with_filters=False))
    if has_kernel(old):
        starts_empty = {id(variable) for variable in getattr(old, "kernel_variables", old.weights)}
        starts_empty.add(id(getattr(old, "bias", None)))
    for before, after in pairs:
        of_variable = axes_of(old, before, axes)
        from_places, to_places = places(before.shape, after.shape, of_variable)
        values = tf.gather(tf.reshape(before.value, [-1]), from_places)
        rest = tf.zeros_like(after.value) if id(before) in starts_empty else after.value
        if id(before) in filters:
            rest = tf.cast(filters[id(before)](after.shape), after.dtype)
        flat = tf.tensor_scatter_nd_update(tf.reshape(rest, [-1]), to_places[:, None], values)
        after.assign(tf.reshape(flat, after.shape))
    for variable, scale in scales_of(old, new).values():
        variable.assign(variable * scale)


def scales_of(old: keras.Layer, new: keras.Layer) -> dict[int, tuple[keras.Variable, float]]:
    """By what variables of a copy are multiplied so that it computes the same.

    Returns:
        The variable of the copy and the factor, by the `id` of the original's.
    """
    rule: Wiring | UnitRule | None = wiring_for(old) or rule_for(old)
    if rule is None:
        return {}
    found = {}
    layers = computing(old), computing(new)
    for attribute, scale in rule.scales(*layers).items():
        pair = [attribute_of(layer, attribute) for layer in layers]
        if pair[0] is None:
            continue
        masked = [holders_of(each).get(id(x)) for each, x in zip((old, new), pair, strict=True)]
        if isinstance(masked[0], WeightNormKernel):  # Its length is not that of what is stored.
            pair = [each.g for each in masked if each is not None]
        found[id(pair[0])] = pair[1], scale
    return found
