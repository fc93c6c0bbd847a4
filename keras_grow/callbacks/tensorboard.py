"""Keras's TensorBoard callback, for models with masks."""

import keras

from keras_grow.keras_private import TensorBoardOfWeights


class TensorBoard(TensorBoardOfWeights):
    """`keras.callbacks.TensorBoard`, which with `write_images=True` draws masks too.

    Keras's own draws every variable of a layer, and fails on those that hold True and False, as
    masks do, or numbers of connections. Here masks are drawn, white where a connection is active;
    of a `SparseDense` its weights by slot are, and not the tables that say where they lead.

    Args:
        log_dir, histogram_freq, write_graph, write_images, write_steps_per_second, update_freq,
            profile_batch, embeddings_freq, embeddings_metadata: as in
            `keras.callbacks.TensorBoard`.

    Example:

    ```python
    board = keras_grow.TensorBoard("logs", histogram_freq=1, write_images=True)
    model.fit(x, y, callbacks=[growth, board])
    ```
    """

    def weight_as_image(self, weight):
        if weight.dtype == "bool":
            return keras.ops.cast(weight, "float32")
        return weight if keras.backend.is_float_dtype(weight.dtype) else None
