"""Other connections to start with, before the training."""

import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_grow.connections.acted_on import changeable_layers, check_policy, optimizer_of
from keras_grow.connections.record import ChangeRecord, record
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable
from keras_grow.layers.initializers import draw
from keras_grow.layers.paths import paths_of
from keras_grow.optimizer_slots import reset_slots
from keras_grow.policies.seeds import Seed
from keras_grow.search.atoms import connections_of


def reseed(
    model: keras.Model,
    seed: Seed,
    *,
    layers: Sequence[str | Growable] | None = None,
    optimizer: keras.Optimizer | None = None,
) -> ChangeRecord:
    """Gives layers other connections to start with, as many as they have, and new weights.

    Args:
        model: a built model with growable layers, before its training: their weights are drawn
            anew by their initializers.
        seed: what chooses them, such as `keras_grow.seeds.ReceptiveField(0.3)` or
            `keras_grow.seeds.CorrelatedInputs(x)`.
        layers: growable layers, or their paths or names; by default every trainable growable layer.
        optimizer: the optimizer of a custom loop, whose slots start afresh; by default the one the
            model was compiled with, if any.

    Returns:
        A `ChangeRecord` of all connections that are active now.

    Raises:
        TypeError, ValueError: for a seed that is none, that chooses another number of connections,
            or that does not suit a layer, and for layers without an initializer, or with one that
            draws a kernel as a whole. The model is then as it was.

    Example:

    ```python
    keras_grow.reseed(model, keras_grow.seeds.CorrelatedInputs(x), layers=["hidden"])
    ```
    """
    started = time.perf_counter()
    chosen_layers = changeable_layers(model, layers)
    check_policy(seed, Seed, "seed")
    optimizer = optimizer_of(model, optimizer, chosen_layers)
    drawn = []
    for layer, path in zip(chosen_layers, paths_of(model, chosen_layers), strict=True):
        axes, size = layer.axes, layer.atom_size
        if size > 1:  # The seed chooses among atoms, as if each group were a unit.
            axes = KernelAxes((axes.num_inputs, axes.num_units // size))
        atoms = np.asarray(seed(axes, layer.num_active // size), np.int64)
        connections = connections_of(tf.constant(atoms), size).numpy()
        if len(connections) != layer.num_active:
            raise ValueError(
                f"A seed must choose as many connections as there are. Received: "
                f"{len(connections)} for layer {path!r}, expected {layer.num_active}"
            )
        layer.check_indices(tf.constant(connections))
        initializer = getattr(layer, "kernel_initializer", None)
        if initializer is None:
            raise ValueError(
                "New weights are drawn by an initializer. Received: "
                f"{path!r}, which has none. Name others by `layers=`."
            )
        dtype = layer.kernel_variables[0].dtype
        drawn.append((connections, draw(initializer, layer.axes, connections, dtype)))
    for layer, (connections, weights) in zip(chosen_layers, drawn, strict=True):
        reset_slots(optimizer, layer.prune_connections(layer.active_connections()[0]))
        reset_slots(optimizer, layer.grow_connections(tf.constant(connections), weights))
    chosen = [tf.constant(connections) for connections, _ in drawn]
    return record(model, chosen_layers, chosen, time.perf_counter() - started, None)
