"""Other exporters, refused while they trace a layer that their files would fail to run."""

import warnings

import tensorflow as tf

from keras_grow.keras_private import exporter_at_work


def refuse_other_exporters(name: str) -> None:
    """Raises `ValueError` while Keras's or TensorFlow's exporters to ONNX or LiteRT trace a layer.

    They write loops over connections that XLA compiles as if their formats had them.
    """
    if tf.executing_eagerly():
        return
    found = exporter_at_work()
    if found is None:
        return
    module, ours = found
    message = (
        "A sparse layer can't be exported by Keras or TensorFlow to this format: the file would "
        f"fail when it is run. Received: layer {name!r}, traced by {module}. Use "
        f"`keras_grow.{ours}(model, path)`, or convert the model with `keras_grow.make_plain` "
        "first."
    )
    if module.startswith("tensorflow"):  # It swallows errors, and fails without a word.
        warnings.warn(message, stacklevel=2)
    raise ValueError(message)
