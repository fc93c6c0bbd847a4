"""NeST's Policy 5: convolutions that leave out parts of their maps, and which parts."""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_grow.areas.layer import PartialAreaConv2D
from keras_grow.connections.amounts import NothingToChange
from keras_grow.layers.conv import GrowableConv2D
from keras_grow.layers.growable import growable_layers
from keras_grow.layers.observer import Observer, observing
from keras_grow.layers.paths import find_layers, paths_of
from keras_grow.measuring.accumulation import accumulate, summed
from keras_grow.measuring.agreement import check_copy
from keras_grow.measuring.batch_size import fitting_batch_size
from keras_grow.measuring.loss import call_model, untouched
from keras_grow.report import report
from keras_grow.search.flat_arrays import as_tensor
from keras_grow.search.ranking import largest, ranked
from keras_grow.structure.cloning import Inside, check_convertible, clone_with, exchangeable_layers
from keras_grow.structure.copying import made_anew


@dataclasses.dataclass(frozen=True)
class AreaChange:
    """What `prune_areas` left of one layer.

    Attributes:
        name: the layer's path in the model.
        num_pruned: how many positions of pairs of maps were pruned.
        area: the share of positions that are still computed, over pairs with connections.
    """

    name: str
    num_pruned: int
    area: float


@dataclasses.dataclass(frozen=True)
class AreaRecord:
    """What a call of `prune_areas` did; its `str` says it in a line.

    Attributes:
        layers: an `AreaChange` for each partial-area convolution.
        flops_before, flops: of the model's growable layers, as `keras_grow.report` counts them.
    """

    layers: tuple[AreaChange, ...]
    flops_before: int | None
    flops: int | None

    def __str__(self) -> str:
        changed = ", ".join(f"{change.name} {change.area:.1%}" for change in self.layers)
        return f"area computed: {changed}; {self.flops_before:,} FLOPs before, {self.flops:,} now"


def make_partial_area(
    model: keras.Model,
    layers: Sequence[str | keras.Layer] | None = None,
    *,
    verify: Any = True,
) -> keras.Model:
    """A copy of `model` in which convolutions can leave out parts of their maps.

    `GrowableConv2D` layers become `PartialAreaConv2D`, with weights, connections and function
    kept. The copy is not compiled (`convert_optimizer` makes its optimizer), and `model` stays as
    it was.

    Args:
        model: a built Sequential or functional model, for inputs of a known height and width.
        layers: the layers to convert, or their paths or names; by default every `GrowableConv2D`.
        verify: as in `make_growable`.

    Returns:
        A new model of the same kind.

    Raises:
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a subclassed or unbuilt model, and one without layers to convert.
        CopyDiffers: a `ValueError`, where a layer of the copy would compute something else.

    Example:

    ```python
    partial = keras_grow.areas.make_partial_area(model)
    partial.compile(keras_grow.convert_optimizer(model, partial), model.loss)
    for _ in range(10):
        keras_grow.areas.prune_areas(partial, (x,), share=0.05)
        partial.fit(x, y)
    ```
    """
    check_convertible(model)
    found = [layer for layer in exchangeable_layers(model) if type(layer) is GrowableConv2D]
    chosen = _named(model, found, layers, "Only GrowableConv2D layers can be converted.")

    def convert(layer: keras.Layer, inside: Inside) -> keras.Layer | None:
        is_chosen = any(layer is each for each in chosen)
        return made_anew(layer, PartialAreaConv2D) if is_chosen else None

    def transfer(old: GrowableConv2D, new: PartialAreaConv2D) -> None:
        for name in ("kernel_mask", "kernel", "bias"):
            variable = getattr(new, name)
            if variable is not None:
                variable.assign(getattr(old, name))

    copy = clone_with(model, convert, transfer)
    check_copy(model, copy, verify)
    return copy


def prune_areas(
    model: keras.Model,
    data: Any,
    *,
    share: float = 0.01,
    per_pair: bool = True,
    layers: Sequence[str | PartialAreaConv2D] | None = None,
    batch_size: int | None = None,
    verbose: str | int = "auto",
) -> AreaRecord:
    r"""Leaves out the positions at which a pair of maps contributes least.

    For each pair of an input map c and an output map o, what the pair contributes to the output
    at a position, $\left|\sum_{ij} x_{p+i,q+j,c} w_{ijco}\right|$, is averaged over the data at
    inference. The positions where it is smallest are left out from then on. Do it in rounds, with
    training between them. Pairs without connections are left alone: they cost nothing.

    Args:
        model: a built model with `PartialAreaConv2D` layers; `make_partial_area` makes one.
        data: images as for growth: `(x,)`, `(x, y)`, a dataset or batches; only `x` is used.
        share: the share of a map's positions to leave out, in (0, 1); NeST prunes little at a time.
        per_pair: whether every pair of maps loses the same number of positions, as in NeST; else
            as many are taken where they contribute least in the whole layer.
        layers: the layers to change, or their paths or names; by default all that there are.
        batch_size: samples per batch where the data is a tuple of arrays; by default as many as
            fit, see `GradientMeter`. What pairs contribute takes `4 x positions x channels x
            filters` bytes a sample, three times over.
        verbose: 0, 1 or "auto", see `GradientMeter`.

    Returns:
        An `AreaRecord`.

    Raises:
        ValueError: for a model without such layers, a share out of range, data that does not fit,
            and contributions that are NaN or infinite. The model stays as it was.
        NothingToChange: if no position is left to prune.

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, Policy 5 and Algorithm 2. That the
    magnitudes are averaged over data, and that pruned positions add up over rounds, is this
    package's reading.
    """
    chosen = _partial_area_layers(model, layers)
    if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0 < share < 1:
        raise ValueError(f"`share` must lie between 0 and 1. Received: share={share!r}")
    before = report(model).flops
    contributions = _mean_contributions(model, data, chosen, batch_size, verbose)
    masks = [
        _pruned(path, layer, contributions[layer], share, per_pair)
        for path, layer in zip(paths_of(model, chosen), chosen, strict=True)
    ]
    counts = [
        int(tf.math.count_nonzero(layer.area_mask.value & ~mask))
        for layer, mask in zip(chosen, masks, strict=True)
    ]
    if not any(counts):
        raise NothingToChange(
            "There is no area to prune. Received: "
            f"share={share}, layers {paths_of(model, chosen)}, whose pairs of maps have "
            "no position left to spare"
        )
    changes = []
    paths = paths_of(model, chosen)
    for path, layer, mask, count in zip(paths, chosen, masks, counts, strict=True):
        layer.area_mask.assign(mask)
        in_use = tf.boolean_mask(tf.reshape(mask, [-1, *mask.shape[2:]]), _connected(layer), axis=1)
        area = float(tf.reduce_mean(tf.cast(in_use, tf.float32))) if len(in_use) else 0.0
        changes.append(AreaChange(path, count, area))
    return AreaRecord(tuple(changes), before, report(model).flops)


def _partial_area_layers(model, layers) -> list[PartialAreaConv2D]:
    found = [
        layer
        for layer in growable_layers(model)
        if isinstance(layer, PartialAreaConv2D) and layer.trainable
    ]
    need = (
        "Areas are pruned in trainable PartialAreaConv2D layers; "
        "`keras_grow.areas.make_partial_area` makes them of GrowableConv2D."
    )
    return _named(model, found, layers, need)


def _named(
    model: keras.Model, found: list, layers: Sequence[str | keras.Layer] | None, need: str
) -> list:
    """Those of the layers found that are asked for, all by default; raises `ValueError`."""
    return find_layers(model, found if layers is None else layers, found, need)


def _connected(layer: PartialAreaConv2D) -> tf.Tensor:
    """Which pairs of maps have an active connection: bool of shape `(channels, filters)`."""
    return tf.reduce_any(layer.kernel_mask.value, axis=[0, 1])


def _pruned(
    path: str, layer: PartialAreaConv2D, contribution: tf.Tensor, share: float, per_pair: bool
) -> tf.Tensor:
    """The area mask with the positions of smallest contribution out."""
    mask = layer.area_mask.value
    height, width, channels, filters = mask.shape
    finite = tf.math.is_finite(contribution)
    if not bool(tf.reduce_all(finite)):
        raise ValueError(
            "Contributions of maps must be finite. Received: NaN or infinite ones in layer "
            f"{path!r}. Look for NaN in the data or a diverged training."
        )
    # Rows of positions, a row for each pair; positions out already, and pairs without
    # connections, come last.
    scores = tf.reshape(contribution, [height * width, channels * filters])
    candidates = tf.reshape(mask & _connected(layer), scores.shape)
    scores = tf.transpose(tf.where(candidates, scores, float("inf")))
    per_map = max(1, round(share * height * width))
    if per_pair:
        order = tf.argsort(scores, axis=1, stable=True)[:, :per_map]
        rows = tf.repeat(tf.range(channels * filters), order.shape[1])
        places = tf.stack([rows, tf.reshape(order, [-1])], axis=1)
    else:
        num_pairs = int(tf.math.count_nonzero(_connected(layer)))
        order = as_tensor(largest(ranked(-scores), per_map * num_pairs))
        places = tf.stack([order // (height * width), order % (height * width)], axis=1)
    is_finite = tf.math.is_finite(tf.gather_nd(scores, places))
    places = tf.cast(tf.boolean_mask(places, is_finite), tf.int64)
    ones = tf.ones([len(places)], tf.int32)
    out = tf.scatter_nd(places, ones, tf.shape(scores, tf.int64)) > 0
    return mask & ~tf.reshape(tf.transpose(out), mask.shape)


class _Contributions(Observer):
    """Sums the magnitude of what each pair of maps contributes at each position."""

    def __init__(self, layers: Sequence[PartialAreaConv2D]):
        self.sums = {layer: tf.zeros(layer.area_mask.shape) for layer in layers}

    def inputs(self, layer, inputs):
        if layer not in self.sums:
            return
        height, width, channels, filters = layer.area_mask.shape
        rows = layer.as_rows(tf.cast(inputs, tf.float32))
        rows = tf.reshape(rows, [-1, layer.fan_in // channels, channels])
        kernel = tf.cast(layer.effective_kernel(), tf.float32)
        kernel = tf.reshape(kernel, [-1, channels, filters])
        of_pairs = tf.abs(tf.einsum("rkc,kco->rco", rows, kernel))
        of_pairs = tf.reshape(of_pairs, [-1, height, width, channels, filters])
        self.sums[layer] += tf.reduce_sum(of_pairs, axis=0)


def _mean_contributions(model, data, layers, batch_size, verbose) -> dict:
    @summed
    def step(x, y, sample_weight, draw):
        observer = _Contributions(layers)
        with untouched(model), observing(observer):
            call_model(model, x, training=False)
        return list(observer.sums.values())

    batch_size = fitting_batch_size(model, data, batch_size, observer=_Contributions, layers=layers)
    sums, num_samples = accumulate(step, data, batch_size, verbose)
    return {layer: total / num_samples for layer, total in zip(layers, sums, strict=True)}
