"""GrowthSummaries: growth and pruning in TensorBoard."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from keras_grow.callbacks.copyable import CopyableCallback
from keras_grow.callbacks.moments import Epochs
from keras_grow.callbacks.quiet import as_quiet_as_fit
from keras_grow.connections.acted_on import check_policy
from keras_grow.connections.measured import measure_statistics
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.paths import paths_of
from keras_grow.layers.pictures import block_densities
from keras_grow.measuring.gradients import GradientMeter
from keras_grow.policies.scores import GradientMagnitude, Score
from keras_grow.search.measurements import Measurements

# Of a sparse layer, which may have billions of dormant connections, as many are drawn at random.
_SAMPLE = 2**14


class GrowthSummaries(CopyableCallback):
    """Writes the network's connections for TensorBoard while `model.fit` trains.

    At the end of each epoch, with the epoch's number as step: the density and the active
    connections of each growable layer and of all together (`density/...`, `connections/...`), as
    they were while the epoch trained, since `GrowthCallback` and `PruningCallback` change them
    when an epoch begins. At the end of those epochs that are due, also the picture of each
    kernel's mask (`kernel_mask/...`), and, with growth data, histograms of the scores of dormant
    connections (`growth_scores/...`): those that growth at the beginning of the next epoch would
    rank. What is written changes nothing: not the model, the logs, nor the order of other
    callbacks, and a resumed run continues it.

    Pictures are white where a connection is active. A kernel of more than 256 inputs or units is
    cut into blocks, whose brightness is their density beside that of the densest. Of sparse
    layers, the histogram shows a random sample of 16,384 connections, less the active ones.

    Args:
        log_dir: the folder for TensorBoard's files. They are written to its subfolder "growth",
            beside the "train" and "validation" of `keras.callbacks.TensorBoard`.
        data: growth data, as in `keras_grow.grow`; `None` writes no scores. It is read whenever
            scores are due: a generator would be empty the second time.
        score: what dormant connections are judged by, by default
            `keras_grow.scores.GradientMagnitude()`, |dL/dW|.
        when: `keras_grow.Epochs(...)`, at whose ends pictures and scores are written too; by
            default after every epoch. With data, each costs a pass over it.
        meter: the settings of the measurement, as in `keras_grow.grow`. The one that a
            `GrowthCallback` holds traces once for both.

    Raises:
        ImportError: where TensorBoard is not installed.
        TypeError: for a `score` or `when` of another kind.
        ValueError: in `fit`, for a model without growable layers, growth data that does not fit,
            and numbers that are not finite.

    Example:

    ```python
    growth = keras_grow.GrowthCallback((x, y), density=0.3)
    summaries = keras_grow.GrowthSummaries("logs", (x, y), meter=growth.meter)
    model.fit(x, y, callbacks=[growth, summaries, keras.callbacks.TensorBoard("logs")])
    # tensorboard --logdir logs
    ```
    """

    _OF_A_RUN = ("_writer",)

    def __init__(
        self,
        log_dir: str | os.PathLike,
        data: Any = None,
        *,
        score: Score | None = None,
        when: Epochs | None = None,
        meter: GradientMeter | None = None,
    ):
        super().__init__()
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "Summaries are written with TensorBoard, which can't be imported here. Received: "
                f'{error}. Install it with `pip install "keras_grow[tensorboard]"`.'
            ) from error
        self.log_dir = os.fspath(log_dir)
        self.data = data
        self.score = GradientMagnitude() if score is None else score
        check_policy(self.score, Score, "score")
        self.when = Epochs(start=0) if when is None else when
        if not isinstance(self.when, Epochs):
            raise TypeError(f"`when` must be a keras_grow.Epochs. Received: when={when!r}")
        self.meter = GradientMeter() if meter is None else meter
        self._writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "growth"))

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        found = growable_layers(self.model)
        layers = dict(zip(paths_of(self.model, found), found, strict=True))
        is_due = self.when.is_due(epoch)
        scores = {}
        if is_due and self.data is not None:
            with as_quiet_as_fit(self.params, self.meter):
                scores = self._scores(layers, epoch)
        # Keras's own TensorBoard callback may have turned summaries off between its steps.
        with self._writer.as_default(step=epoch), tf.summary.record_if(True):
            counts = {name: layer.num_active for name, layer in layers.items()}
            totals = {name: layer.num_connections for name, layer in layers.items()}
            counts["in_all"], totals["in_all"] = sum(counts.values()), sum(totals.values())
            for name, count in counts.items():
                tf.summary.scalar(f"connections/{name}", count)
                tf.summary.scalar(f"density/{name}", count / totals[name])
            for name, layer in layers.items():
                if is_due:
                    tf.summary.image(f"kernel_mask/{name}", _picture(layer))
            for name, values in scores.items():
                tf.summary.histogram(f"growth_scores/{name}", values)
        # A run that is cut off keeps what was written.
        self._writer.flush()

    def _scores(self, layers: dict[str, Growable], epoch: int) -> dict[str, tf.Tensor]:
        """The scores of dormant connections of each layer that can grow."""
        growing = {name: layer for name, layer in layers.items() if layer.trainable}
        chosen = list(growing.values())
        if not chosen:
            return {}
        measured, _ = measure_statistics(
            self.model,
            self.data,
            chosen,
            [self.score],
            meter=self.meter,
            optimizer=self.model.optimizer,
        )
        return {
            name: _dormant_scores(layer, self.score, measured[layer], epoch)
            for name, layer in growing.items()
        }


def _dormant_scores(layer: Growable, score: Score, measured: Measurements, seed: int) -> tf.Tensor:
    indices = None
    if layer.is_sparse:
        drawn = np.random.default_rng(seed).integers(layer.num_connections, size=_SAMPLE)
        indices = tf.constant(np.unique(drawn))
    connections = layer.view(measured.seen_by(score), indices)
    return tf.boolean_mask(score(connections), ~connections.active)


def _picture(layer: Growable) -> np.ndarray:
    """The mask of a layer as a gray image: float32 of shape `(1, rows, columns, 1)`, 0 to 1."""
    indices = layer.active_connections()[0].numpy()
    densities, _ = block_densities(indices, layer.axes, num_pixels=256)
    brightness = densities / (densities.max() or 1.0)
    return brightness[None, :, :, None].astype("float32")
