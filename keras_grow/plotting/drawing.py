"""A drawing of a small dense network: units as circles, active connections as lines."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_grow.layers.paths import paths_of
from keras_grow.plotting import canvas
from keras_grow.structure.graph import Graph
from keras_grow.structure.kernels import axes_of, connections_of, has_kernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Beyond these, circles touch and lines are a gray area.
_MOST_UNITS = 64
_MOST_CONNECTIONS = 2000
_THINNEST, _THICKEST = 0.3, 3.0
_INCHES_PER_LETTER = 0.09


def network(model: keras.Model, *, axis: "Axes | None" = None) -> "Figure":
    """Draws a small network: its units as circles, its active connections as lines.

    A line is as wide as |w| is large, beside the largest of the network: whole and blue for a
    positive weight, broken and vermilion for a negative one. Units that no connection leads to or
    from are pale.

    Args:
        model: a built Sequential or functional model, a chain of layers of which those that mix
            units are dense: growable ones, or `keras.layers.Dense`, whose weights other than 0
            count as connections. Activations, normalization and dropout are not drawn.
        axis: the matplotlib axis to draw on, by default that of a new figure.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ImportError: where matplotlib is not installed.
        TypeError: if `model` is not a Keras 3 model.
        ValueError: for a model that is no chain of dense layers, and for one of more than 64 units
            in a layer or 2,000 connections, which nobody could read.

    Example:

    ```python
    keras_grow.plotting.network(keras_grow.compact(model).model).savefig("network.png")
    ```
    """
    layers = _chain(model)
    shapes = [axes_of(layer).shape for layer in layers]
    sizes = [shapes[0][0], *(shape[1] for shape in shapes)]
    connections = [tuple(array.numpy() for array in connections_of(layer)) for layer in layers]
    num_active = sum(len(indices) for indices, _ in connections)
    if max(sizes) > _MOST_UNITS or num_active > _MOST_CONNECTIONS:
        raise ValueError(
            f"A drawing can be read up to {_MOST_UNITS} units in a layer and "
            f"{_MOST_CONNECTIONS:,} active connections. Received: layers of {sizes} units, with "
            f"{num_active:,} active connections. Make it smaller with `keras_grow.compact`, or use "
            "`keras_grow.plotting.kernel_masks`."
        )
    most = max(sizes)
    axis = canvas.axis_of(axis, 3.0 + 2.0 * len(layers), 1.6 + min(9.0, 0.3 * most))
    # Each layer takes the whole height, so that lines come apart.
    heights = [(np.arange(size) + 0.5) * most / size for size in sizes]
    is_used = [np.zeros(size, bool) for size in sizes]
    largest = max([float(abs(weights).max()) for _, weights in connections if len(weights)] or [1])
    for number, (indices, weights) in enumerate(connections):
        inputs, units = np.divmod(indices, sizes[number + 1])
        is_used[number][inputs] = is_used[number + 1][units] = True
        ends = np.stack([heights[number][inputs], heights[number + 1][units]], axis=1)
        _draw_connections(axis, number, ends, weights, largest or 1.0)
    diameter = min(14.0, 300 / most)
    for number, (height, used) in enumerate(zip(heights, is_used, strict=True)):
        for chosen, edge in ((used, "black"), (~used, "#BBBBBB")):
            axis.plot(
                np.full(chosen.sum(), number),
                height[chosen],
                "o",
                markersize=diameter,
                markerfacecolor="white",
                markeredgecolor=edge,
                zorder=3,
            )
    _label(axis, ["inputs", *paths_of(model, layers)], sizes)
    num_connections = sum(inputs * units for inputs, units in shapes)
    axis.set_title(f"{num_active:,} of {num_connections:,} connections are active")
    axis.set_ylim(most, 0)
    _draw_key(axis, largest)
    return canvas.figure_of(axis)


def _draw_connections(
    axis: "Axes", number: int, ends: np.ndarray, weights: np.ndarray, largest: float
) -> None:
    """Lines between columns `number` and `number + 1`, from and to the heights in `ends`."""
    collections = canvas.load("matplotlib.collections")
    for is_chosen, color, line in (
        (weights >= 0, canvas.POSITIVE, "solid"),
        (weights < 0, canvas.NEGATIVE, "dashed"),
    ):
        segments = [[(number, start), (number + 1, end)] for start, end in ends[is_chosen]]
        shares = abs(weights[is_chosen]) / largest
        widths = _THINNEST + (_THICKEST - _THINNEST) * shares
        axis.add_collection(
            collections.LineCollection(
                segments, linewidths=widths, colors=color, linestyles=line, alpha=0.8, zorder=2
            )
        )


def _label(axis: "Axes", names: list[str], sizes: list[int]) -> None:
    labels = [f"{name}\n({size})" for name, size in zip(names, sizes, strict=True)]
    inches_per_layer = axis.get_window_extent().width / canvas.figure_of(axis).dpi / len(sizes)
    is_narrow = inches_per_layer < _INCHES_PER_LETTER * max(map(len, names))
    slope: dict[str, Any] = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if is_narrow else {}
    )
    axis.set_xticks(range(len(sizes)), labels, **slope)
    axis.set_yticks([])
    axis.set(xlabel="layer (number of its units)", xlim=(-0.4, len(sizes) - 0.6))
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_key(axis: "Axes", largest: float) -> None:
    for label, color, line, width in (
        (f"weight {largest:+.2g}", canvas.POSITIVE, "-", _THICKEST),
        (f"weight {-largest:+.2g}", canvas.NEGATIVE, "--", _THICKEST),
        ("weights near 0", canvas.POSITIVE, "-", _THINNEST),
    ):
        axis.plot([], [], color=color, linestyle=line, linewidth=width, label=label)
    canvas.draw_legend(axis)


def _chain(model: keras.Model) -> list[keras.Layer]:
    """The dense layers of a model that is a chain of them, in order; else raises `ValueError`."""
    graph = Graph(model)
    last = graph.inputs[0] if len(graph.inputs) == 1 else None
    layers: list[keras.Layer] = []
    obstacle = "" if last is not None else f"{len(graph.inputs)} inputs"
    for step in graph.steps:
        is_next = len(step.inputs) == len(step.outputs) == 1 and step.inputs[0] is last
        if not is_next:
            obstacle = obstacle or f"layer {step.path!r} that does not read the one before it"
            break
        last = step.outputs[0]
        if has_kernel(step.layer) and len(axes_of(step.layer).shape) == 2:
            if layers and axes_of(layers[-1]).num_units != axes_of(step.layer).num_inputs:
                obstacle = f"layer {step.path!r} that reads not the units of the layer before"
                break
            layers.append(step.layer)
        elif any(len(weight.shape) > 1 for weight in getattr(step.layer, "weights", [])):
            obstacle = f"layer {step.path!r} of type {type(step.layer).__name__}"
            break
    if obstacle or not layers:
        raise ValueError(
            "Only chains of dense layers can be drawn. Received: a model with "
            f"{obstacle or 'no dense layer'}. `keras_grow.plotting.kernel_masks` draws any "
            "growable layer."
        )
    return layers
