"""Figures of networks that grow; needs `pip install "keras_grow[plotting]"`.

Every function returns a matplotlib `Figure`, which `figure.savefig("figure.png")` writes, on a
machine without a display too. In a notebook, `%matplotlib inline` once makes a figure that a cell
returns show itself. A function draws on an `axis` that it is given, and else makes a figure of its
own, without pyplot, which would keep it.

Curves are told apart by markers and lines, weights by whole and broken lines, and counts by the
brightness of cividis, so that figures can be read in gray and by the color-blind.
"""

from keras_grow.plotting.animation import animate_growth
from keras_grow.plotting.curves import accuracy_against_connections, density_per_layer
from keras_grow.plotting.drawing import network
from keras_grow.plotting.inputs import connections_per_input, count_per_input
from keras_grow.plotting.masks import kernel_masks

__all__ = [
    "accuracy_against_connections",
    "animate_growth",
    "connections_per_input",
    "count_per_input",
    "density_per_layer",
    "kernel_masks",
    "network",
]
