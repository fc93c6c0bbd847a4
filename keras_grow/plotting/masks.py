"""Pictures of which connections of each layer are active."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.paths import paths_of
from keras_grow.layers.pictures import block_densities
from keras_grow.plotting import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def kernel_masks(
    source: keras.Model | Growable,
    *,
    num_pixels: int = 128,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draws which connections of each growable layer are active, inputs down and units across.

    A kernel of more than `num_pixels` inputs or units is cut into blocks, and a pixel's brightness
    is the density of its block. Sparse layers of any size are drawn from their active connections.

    Args:
        source: a model, or a growable layer. Of a convolution, the places of the window and the
            input maps are flattened, as in NumPy's order.
        num_pixels: positive integer, the most pixels along a side of a picture.
        axes: the matplotlib axes to draw on, one for each growable layer; by default those of a
            new figure.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ImportError: where matplotlib is not installed.
        TypeError: if the model is not a Keras 3 model.
        ValueError: for a model without growable layers or with unbuilt ones, as many axes as
            there are not layers, and for `num_pixels` out of range.

    Example:

    ```python
    keras_grow.plotting.kernel_masks(model).savefig("masks.png")
    ```
    """
    layers = [source] if isinstance(source, Growable) else growable_layers(source)
    names = [source.name] if isinstance(source, Growable) else paths_of(source, layers)
    num_pixels = checked_integer(num_pixels, "num_pixels")
    if axes is None:
        across = min(3, len(layers))
        down = math.ceil(len(layers) / across)
        figure = canvas.new_figure(4.2 * across, 3.8 * down)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for empty in grid[len(layers) :]:
            empty.remove()
        chosen = list(grid[: len(layers)])
    else:
        chosen = list(axes) if hasattr(axes, "__iter__") else [axes]
        if len(chosen) != len(layers):
            raise ValueError(
                "`axes` must hold an axis for each growable layer. Received: "
                f"{len(chosen)} axes for layers {names}"
            )
    for name, layer, axis in zip(names, layers, chosen, strict=True):
        _draw(name, layer, canvas.axis_of(axis), num_pixels)
    return canvas.figure_of(chosen[0])


def _draw(name: str, layer: Growable, axis: "Axes", num_pixels: int) -> None:
    indices = layer.active_connections()[0].numpy()
    densities, (height, width) = block_densities(indices, layer.axes, num_pixels)
    rows, columns = densities.shape
    is_mask = (height, width) == (1, 1)
    image = axis.imshow(
        densities if is_mask else 100 * densities,
        canvas.COLOUR_MAP,
        vmin=0,
        # A few connections of a wide layer would not be seen beside a density of 1.
        vmax=1 if is_mask else 100 * (densities.max() or 1),
        # A layer of many inputs and few units would be a thin line in its true proportions.
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, columns * width - 0.5, rows * height - 0.5, -0.5),
    )
    if is_mask:
        bar = axis.figure.colorbar(image, ax=axis, ticks=[0, 1])
        bar.ax.set_yticklabels(["dormant", "active"])
    else:
        label = f"density of {height} x {width} connections (%)"
        axis.figure.colorbar(image, ax=axis, label=label)
    # The last blocks may reach over the edge of the kernel.
    axis.set(xlim=(-0.5, layer.axes.num_units - 0.5), ylim=(layer.fan_in - 0.5, -0.5))
    axis.set(xlabel="unit", ylabel="input")
    canvas.tick_at_integers(axis.xaxis, axis.yaxis)
    axis.set_title(f"{name}\n{len(indices):,} active ({100 * layer.density:.3g}%)")
