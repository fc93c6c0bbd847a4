"""Curves: densities over the epochs, accuracies against connections."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_grow.plotting import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where there are more epochs, only some of them get a marker.
_MOST_MARKERS = 20


def density_per_layer(
    densities: Mapping[str, Sequence[float]],
    *,
    epochs: Sequence[int] | None = None,
    axis: "Axes | None" = None,
) -> "Figure":
    """Draws the density of each layer over the epochs, in percent.

    Args:
        densities: from the name of each layer to its density, from 0 to 1, in each epoch:
            `keras_grow.ConnectionHistory().densities` after `fit`. The logs of
            `keras_grow.GrowthCallback` know the density of all layers together:
            `{"all layers": history.history["density"]}`.
        epochs: the number of each epoch, by default 0, 1, 2, ..., as `fit` counts them.
        axis: the matplotlib axis to draw on, by default that of a new figure.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ImportError: where matplotlib is not installed.
        ValueError: for no layer or no epoch, layers of different lengths, and densities out of
            range.

    Example:

    ```python
    history = keras_grow.ConnectionHistory()
    model.fit(x, y, epochs=20, callbacks=[growth, history])
    keras_grow.plotting.density_per_layer(history.densities, epochs=history.epochs)
    ```
    """
    lengths = {name: len(values) for name, values in densities.items()}
    wanted = set(lengths.values()) | ({len(epochs)} if epochs is not None else set())
    if len(wanted) != 1 or not all(wanted):
        raise ValueError(
            "`densities` must hold a density for each layer and epoch. Received: epochs by layer "
            f"{lengths}" + ("" if epochs is None else f", and {len(epochs)} `epochs`")
        )
    for name, values in densities.items():
        _check_shares(values, f"Densities of layer {name!r}")
    axis = canvas.axis_of(axis, 7.2, 4.2)
    for number, (name, values) in enumerate(densities.items()):
        axis.plot(
            np.arange(len(values)) if epochs is None else epochs,
            100 * np.asarray(values, float),
            markevery=max(1, len(values) // _MOST_MARKERS),
            label=name,
            **canvas.style(number),
        )
    axis.set(xlabel="epoch", ylabel="density (%)", title="Active of all connections, by layer")
    axis.set_ylim(0)
    canvas.tick_at_integers(axis.xaxis)
    canvas.draw_grid(axis)
    canvas.draw_legend(axis)
    return canvas.figure_of(axis)


def accuracy_against_connections(
    networks: Mapping[str, Sequence[tuple[float, float]]],
    *,
    shows_error: bool = False,
    axis: "Axes | None" = None,
) -> "Figure":
    """Draws what accuracy each network reaches with how many connections, on a logarithmic scale.

    Each pair is a point; a line leads through the mean of the points of as many connections, such
    as those of several seeds.

    Args:
        networks: from the name of each network to its pairs of active connections and accuracy,
            from 0 to 1.
        shows_error: whether to draw the error, 1 - accuracy, in the place of the accuracy.
        axis: the matplotlib axis to draw on, by default that of a new figure.

    Returns:
        The matplotlib `Figure`.

    Raises:
        ImportError: where matplotlib is not installed.
        ValueError: for no network, one without points, counts that are not positive, and
            accuracies out of range.

    Example:

    ```python
    networks = {
        "grown by the gradient": [(7_800, 0.989), (3_800, 0.9876)],
        "grown at random": [(7_800, 0.988), (3_800, 0.9866)],
    }
    keras_grow.plotting.accuracy_against_connections(networks, shows_error=True)
    ```
    """
    if not networks:
        raise ValueError("`networks` must name at least one network. Received: none")
    points = {name: np.asarray(list(pairs), float) for name, pairs in networks.items()}
    for name, pairs in points.items():
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not (pairs[:, 0] > 0).all():
            raise ValueError(
                "A network is a list of pairs of active connections, positive, and accuracy. "
                f"Received: {networks[name]!r} for {name!r}"
            )
        _check_shares(pairs[:, 1], f"Accuracies of {name!r}")
    axis = canvas.axis_of(axis, 7.2, 4.2)
    for number, (name, pairs) in enumerate(points.items()):
        connections, shown = pairs.T
        shown = 100 * (1 - shown if shows_error else shown)
        style = canvas.style(number)
        sizes = np.unique(connections)
        means = [shown[connections == size].mean() for size in sizes]
        line = {key: style[key] for key in ("color", "linestyle")}
        axis.plot(sizes, means, zorder=2, **line)
        axis.plot(connections, shown, zorder=3, **{**style, "linestyle": "none"})
        axis.plot([], [], label=name, **style)
    quantity = "error" if shows_error else "accuracy"
    axis.set(xscale="log", xlabel="active connections", ylabel=f"{quantity} (%)")
    axis.set_title(f"{quantity.capitalize()} against connections")
    _write_numbers_out(axis)
    canvas.draw_grid(axis)
    canvas.draw_legend(axis)
    return canvas.figure_of(axis)


def _write_numbers_out(axis: "Axes") -> None:
    """Ticks of a logarithmic x axis as 2,000 rather than as a power of 10."""
    ticker = canvas.load("matplotlib.ticker")
    least, most = axis.get_xlim()
    subs = (1, 2, 3, 5, 7) if most < 10 * least else (1, 2, 5) if most < 100 * least else (1,)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _check_shares(values: Sequence[float] | np.ndarray, what: str) -> None:
    shares = np.asarray(values, float)
    # A comparison with NaN is False.
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"{what} must lie from 0 to 1. Received: {values!r}")
