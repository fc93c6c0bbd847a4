"""An animation of where connections grow."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_grow.plotting import canvas
from keras_grow.plotting.inputs import as_drawn, check_counts, draw_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 100


def animate_growth(
    counts: Sequence[np.ndarray],
    path: str | os.PathLike,
    shape: tuple[int, ...] | None = None,
    *,
    epochs: Sequence[int] | None = None,
    frames_per_second: float = 4,
) -> "Figure":
    """Writes a GIF of the active connections of each input, a frame for each epoch.

    Args:
        counts: for each frame an array of shape `(inputs,)`, such as the
            `connections_per_input` of a `keras_grow.ConnectionHistory`, or what
            `keras_grow.plotting.count_per_input` counts in a loop of your own.
        path: the file to write, such as "growth.gif".
        shape: the inputs' shape as an image, as in `keras_grow.plotting.connections_per_input`;
            by default bars are drawn.
        epochs: the number of each frame's epoch, by default 0, 1, 2, ..., as `fit` counts them.
        frames_per_second: positive number. The last frame stays for a second longer.

    Returns:
        The matplotlib `Figure` of the last frame.

    Raises:
        ImportError: where matplotlib is not installed.
        ValueError: for no counts, counts of different shapes, a shape that does not fit them, and
            as many `epochs` as there are not frames.
        OSError: where `path` can't be written.

    Example:

    ```python
    history = keras_grow.ConnectionHistory()
    model.fit(x, y, epochs=20, callbacks=[growth, history])
    keras_grow.plotting.animate_growth(history.connections_per_input, "growth.gif", (28, 28))
    ```
    """
    if not len(counts):
        raise ValueError("`counts` must hold an array for each frame. Received: none")
    first = np.asarray(counts[0]).shape
    frames = [as_drawn(check_counts(count, first, "counts"), shape) for count in counts]
    epochs = range(len(frames)) if epochs is None else epochs
    if len(epochs) != len(frames):
        raise ValueError(
            "`epochs` must hold a number for each frame. Received: "
            f"{len(epochs)} epochs for {len(frames)} frames"
        )
    if not frames_per_second > 0:
        raise ValueError(f"`frames_per_second` must be positive. Received: {frames_per_second!r}")
    writer = canvas.load("matplotlib.animation").PillowWriter(fps=frames_per_second)
    is_image = frames[0].ndim == 2
    figure = canvas.new_figure(*((5.2, 4.4) if is_image else (6.4, 4.0)))
    largest = max(1, *(int(frame.max()) for frame in frames))
    with writer.saving(figure, os.fspath(path), _DOTS_PER_INCH):
        for number, (frame, epoch) in enumerate(zip(frames, epochs, strict=True)):
            figure.clear()
            axis = canvas.axis_of(figure.subplots())
            draw_counts(axis, frame, largest, "active connections per input")
            axis.set_title(f"Epoch {epoch}: {frame.sum():,} active connections")
            is_last = number == len(frames) - 1
            for _ in range(1 + is_last * round(frames_per_second)):
                writer.grab_frame()
    return figure
