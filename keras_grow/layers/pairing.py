"""The layers of a model, and those of a copy that stand in their places."""

import keras

from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.paths import layers_in


def paired_layers(layer: keras.Layer, copy: keras.Layer) -> list[tuple[keras.Layer, keras.Layer]]:
    """`layer` and all layers inside it as `nested_layers` lists them, each with its copy.

    A layer that stands in two models is listed once; an Input does so where both were made of the
    same one, and has then two copies. Layers inside a layer whose copy is of another class have
    none, and are left out; those inside a layer whose kernels became growable, or were, are there.
    """
    return [(layer, copies[0]) for layer, copies in _copies(layer, copy).items()]


def torn_layers(layer: keras.Layer, copy: keras.Layer) -> list[keras.Layer]:
    """Layers with weights that stand in several places, with another copy in each."""
    return [
        inner
        for inner, copies in _copies(layer, copy).items()
        if inner.weights and any(each is not copies[0] for each in copies)
    ]


def _copies(layer: keras.Layer, copy: keras.Layer) -> dict[keras.Layer, list[keras.Layer]]:
    """Each layer with its copies, one for each place where it stands."""
    found: dict[keras.Layer, list[keras.Layer]] = {}

    def visit(layer: keras.Layer, copy: keras.Layer) -> None:
        if layer in found:
            found[layer].append(copy)
            return
        found[layer] = [copy]
        if isinstance(layer, GrowableKernels) != isinstance(copy, GrowableKernels):
            layer, copy = (x.layer if isinstance(x, GrowableKernels) else x for x in (layer, copy))
        if type(layer) is type(copy) or isinstance(layer, keras.Model):
            sides = [layers_in(layer), layers_in(copy)]
            if len(sides[0]) != len(sides[1]):  # One of them was masked in place.
                sides = [[x for x in side if not isinstance(x, Inner)] for side in sides]
            for inner, its_copy in zip(*sides, strict=True):
                visit(inner, its_copy)

    visit(layer, copy)
    return found
