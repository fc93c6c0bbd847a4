"""Pictures of how many connections lead out of each input."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.paths import find_layer, paths_of
from keras_grow.plotting import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def count_per_input(
    source: keras.Model | Growable, layer: str | Growable | None = None
) -> np.ndarray:
    """Active connections of each input of a growable layer.

    Args:
        source: a model, or a growable layer.
        layer: which growable layer of the model, itself, its path or name; by default the first.

    Returns:
        int64 of shape `(inputs,)`; of a convolution, one count for each input map.

    Raises:
        TypeError, ValueError: for a model without growable layers, and for a layer that it does
            not have.

    Example:

    >>> import keras, keras_grow
    >>> model = keras.Sequential([keras.Input((3,)), keras_grow.GrowableDense(2)])
    >>> _ = model.layers[0].prune_connections([0, 1, 4])
    >>> keras_grow.plotting.count_per_input(model)
    array([0, 2, 1])
    """
    chosen = _layer_of(source, layer)
    return chosen.axes.count_by_input(chosen.active_connections()[0])


def connections_per_input(
    source: keras.Model | Growable | np.ndarray,
    shape: tuple[int, ...] | None = None,
    *,
    layer: str | Growable | None = None,
    since: np.ndarray | None = None,
    largest: int | None = None,
    axis: "Axes | None" = None,
) -> "Figure":
    """Draws the active connections of each input of the first growable layer.

    Over images, it is a picture of where the network looks: growth by the gradient finds the
    pixels that matter. Inputs that are no image are drawn as bars.

    Args:
        source: a model, a growable layer, or counts of shape `(inputs,)` that `count_per_input`
            or a `keras_grow.ConnectionHistory` took.
        shape: the inputs' shape as an image: `(rows, columns)`, or `(rows, columns, channels)`,
            of which the channels are added up; `(inputs,)` draws bars. By default the shape of
            the model's input where its first layers flatten an image, else bars.
        layer: which growable layer of the model, itself, its path or name; by default the first.
        since: counts taken earlier, of shape `(inputs,)`. They are subtracted, so that the figure
            shows what has grown (and, below 0, what was pruned) since then.
        largest: the count at the end of the color bar, or the height of the bars, so that several
            figures can be compared; by default the largest that is drawn.
        axis: the matplotlib axis to draw on, by default that of a new figure.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ImportError: where matplotlib is not installed.
        TypeError, ValueError: for a model without growable layers, a layer that it does not have,
            and for shapes and counts that don't fit its inputs.

    Example:

    ```python
    before = keras_grow.plotting.count_per_input(model)
    keras_grow.grow(model, (x, y), count=1000)
    figure = keras_grow.plotting.connections_per_input(model, (28, 28), since=before)
    figure.savefig("grown.png")
    ```

    Reference: Dai, Yin, Jha, "NeST", arXiv:1711.02017, figure 3.
    """
    if isinstance(source, (keras.Model, Growable)):
        counts, name = count_per_input(source, layer), _name_of(source, layer)
    else:
        counts, name = np.asarray(source), None
    if largest is not None and not largest > 0:
        raise ValueError(f"`largest` must be a positive count. Received: largest={largest!r}")
    if shape is None:
        shape = _image_shape(source, counts)
    what = "active connections per input"
    title = what.capitalize() if name is None else f"Active connections per input of {name!r}"
    if since is not None:
        counts = counts - check_counts(since, counts.shape, "since")
        what = what.replace("active connections", "change of active connections")
        title = title.replace("Active connections", "Change of connections")
    counts = as_drawn(counts, shape)
    axis = canvas.axis_of(axis, *((5.2, 4.4) if counts.ndim == 2 else (6.4, 4.0)))
    draw_counts(axis, counts, largest, what)
    axis.set_title(f"{title}\n({counts.sum():{'+' if since is not None else ''},} in all)")
    return canvas.figure_of(axis)


def as_drawn(counts: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Counts of shape `(inputs,)` as an image of shape `(rows, columns)`, or as they are.

    Raises:
        ValueError: for counts that are not flat, and a shape that does not fit them.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not len(counts):
        raise ValueError(
            "Counts must be flat, one for each input. Received: an array of shape "
            f"{counts.shape}. Take them with `keras_grow.plotting.count_per_input(model)`."
        )
    if shape is None:
        return counts
    if not 1 <= len(shape) <= 3 or math.prod(shape) != len(counts):
        raise ValueError(
            "`shape` must be (rows, columns), (rows, columns, channels) or (inputs,) of "
            f"{len(counts)} inputs. Received: shape={shape}, of {math.prod(shape)}"
        )
    image = counts.reshape(shape)
    return image.sum(axis=-1) if image.ndim == 3 else image


def check_counts(counts: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """`counts` as an array; raises `ValueError` unless they have the shape that others have."""
    counts = np.asarray(counts)
    if counts.shape != shape:
        raise ValueError(
            f"`{name}` must hold one count for each input, in shape {shape}. Received: shape "
            f"{counts.shape}"
        )
    return counts


def draw_counts(axis: "Axes", counts: np.ndarray, largest: float | None, label: str) -> None:
    """Draws counts of shape `(rows, columns)` as an image, those of shape `(inputs,)` as bars."""
    # An axis whose ends are one number can't be drawn.
    most = max(1, abs(counts).max()) if largest is None else largest
    least = -most if counts.min() < 0 else 0
    if counts.ndim == 2:
        image = axis.imshow(counts, canvas.COLOUR_MAP, vmin=least, vmax=most)
        axis.figure.colorbar(image, ax=axis, label=label)
        axis.set(xlabel="input column", ylabel="input row")
        canvas.tick_at_integers(axis.xaxis, axis.yaxis)
    else:
        axis.stairs(counts, np.arange(len(counts) + 1) - 0.5, fill=True, color=canvas.BARS)
        axis.set(xlabel="input", ylabel=label, ylim=(1.05 * least, 1.05 * most))
        axis.set_xlim(-0.5, len(counts) - 0.5)
        canvas.tick_at_integers(axis.xaxis)


def _layer_of(source: keras.Model | Growable, layer: str | Growable | None) -> Growable:
    if isinstance(source, Growable) and layer is None:
        return source
    layers: Sequence[Growable] = growable_layers(source)
    found = layers[0] if layer is None else find_layer(source, layer, layers)
    if found is None:
        raise ValueError(
            "`layer` must be a growable layer of the model, or its path or name. Received: "
            f"layer={layer!r}, expected one of {paths_of(source, layers)}"
        )
    return found


def _name_of(source: keras.Model | Growable, layer: str | Growable | None) -> str:
    found = _layer_of(source, layer)
    return found.name if found is source else paths_of(source, [found])[0]


def _image_shape(source: object, counts: np.ndarray) -> tuple[int, ...] | None:
    """The shape of the images that a model takes, if each of their numbers is an input."""
    shape = getattr(source, "input_shape", None) if isinstance(source, keras.Model) else None
    if not isinstance(shape, tuple) or len(shape) not in (3, 4) or None in shape[1:]:
        return None
    return shape[1:] if math.prod(shape[1:]) == len(counts) else None
