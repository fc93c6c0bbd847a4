"""ConnectionHistory: what the connections of a network were in each epoch of `fit`."""

from typing import Any

import numpy as np

from keras_grow.callbacks.copyable import CopyableCallback
from keras_grow.layers.growable import growable_layers
from keras_grow.layers.paths import paths_of


class ConnectionHistory(CopyableCallback):
    """Keeps the density of each layer, and the connections of each input, for figures.

    It records at the end of an epoch the network that was trained and measured in it, since
    `GrowthCallback` and `PruningCallback` change connections when an epoch begins. A call of `fit`
    that goes on with a later `initial_epoch` is added; one that starts again, or trains a model of
    other layers, starts the record afresh.

    Attributes:
        epochs: list of integers, the number of each recorded epoch, as `fit` counts them.
        densities: from each growable layer's path to its density, from 0 to 1, in these epochs.
        connections: from each growable layer's path to its active connections in these epochs.
        connections_per_input: for each of these epochs, int64 of shape `(inputs,)`, the active
            connections of each input of the first growable layer.

    Raises:
        ValueError: in `fit`, for a model without growable layers.

    Example:

    ```python
    history = keras_grow.ConnectionHistory()
    model.fit(x, y, epochs=20, callbacks=[growth, history])
    keras_grow.plotting.density_per_layer(history.densities)
    keras_grow.plotting.animate_growth(history.connections_per_input, "growth.gif", (28, 28))
    ```
    """

    _RECORDED = ("epochs", "densities", "connections", "connections_per_input")

    def __init__(self) -> None:
        super().__init__()
        self._start([])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        layers = growable_layers(self.model)
        names = paths_of(self.model, layers)
        if names != list(self.densities) or epoch <= self.epochs[-1]:
            self._start(names)
        self.epochs.append(epoch)
        for name, layer in zip(names, layers, strict=True):
            self.densities[name].append(layer.density)
            self.connections[name].append(layer.num_active)
        indices, _ = layers[0].active_connections()
        self.connections_per_input.append(layers[0].axes.count_by_input(indices))

    def _start(self, names: list[str]) -> None:
        self.epochs: list[int] = []
        self.densities: dict[str, list[float]] = {name: [] for name in names}
        self.connections: dict[str, list[int]] = {name: [] for name in names}
        self.connections_per_input: list[np.ndarray] = []
