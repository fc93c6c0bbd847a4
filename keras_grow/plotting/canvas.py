"""What all figures share: matplotlib, imported when the first is drawn, colors and legends.

What lies inside the axes stands on white, whatever style the user has set, for the colors are
chosen for white. Titles and labels follow the user's style, with the figure's background.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
"""Of the palette of Okabe and Ito, which the color-blind tell apart, from dark to light."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")

POSITIVE, NEGATIVE = COLOURS[1], COLOURS[2]
BARS = COLOURS[1]
COLOUR_MAP = "cividis"


def load(name: str = "matplotlib.figure") -> ModuleType:
    """A module of matplotlib.

    Raises:
        ImportError: where matplotlib is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "Figures are drawn with matplotlib, which can't be imported here. Received: "
            f'{error}. Install it with `pip install "keras_grow[plotting]"`.'
        ) from error


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches that pyplot knows nothing of."""
    return load().Figure(figsize=(width, height), layout="constrained")


def axis_of(axis: "Axes | None", width: float = 6.4, height: float = 4.4) -> "Axes":
    """The axis to draw on: the one given, or that of a new figure."""
    if axis is None:
        axis = new_figure(width, height).subplots()
    axis.set_facecolor("white")
    return axis


def figure_of(axis: "Axes") -> "Figure":
    """The figure that an axis belongs to, that of a subfigure included."""
    return axis.figure.canvas.figure


def style(number: int) -> dict[str, Any]:
    """Color, marker and line of a curve; no two of the first 42 look the same in gray."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
        "markersize": 5,
    }


def tick_at_integers(*axes: Any) -> None:
    """Ticks of an x or y axis that counts something."""
    for axis in axes:
        locator = load("matplotlib.ticker").MaxNLocator(integer=True, steps=[1, 2, 5, 10])
        axis.set_major_locator(locator)


def draw_grid(axis: "Axes") -> None:
    """A grid that stays in the background."""
    axis.grid(which="both", color="#D9D9D9", linewidth=0.6)
    axis.set_axisbelow(True)


def draw_legend(axis: "Axes") -> None:
    """A legend that stands on white, as what it explains does.

    It stands beside the axes, where it hides nothing, if the figure makes room for it.
    """
    options: dict[str, Any] = {"loc": "best"}
    if figure_of(axis).get_layout_engine() is not None:
        options = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0.0}
    legend = axis.legend(facecolor="white", labelcolor="black", framealpha=1, **options)
    legend.get_frame().set_edgecolor("#D9D9D9")
