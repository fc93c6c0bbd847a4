"""Keras's TensorBoard callback, for models with masks.

This file relies on Keras's `_log_weight_as_image`, and `tests/callbacks/test_beside_kerass_own.py`
names the versions of Keras it was run on.
"""

import keras


class TensorBoard(keras.callbacks.TensorBoard):
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

    def _log_weight_as_image(self, weight, weight_name, epoch):
        if weight.dtype == "bool":
            weight = keras.ops.cast(weight, "float32")
        elif not keras.backend.is_float_dtype(weight.dtype):
            return
        super()._log_weight_as_image(weight, weight_name, epoch)
