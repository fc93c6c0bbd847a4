"""What keras_grow runs on, refused early and in words where it does not."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_grow runs on the TensorFlow backend of Keras 3. Received: "
        f"KERAS_BACKEND={keras.backend.backend()!r}. Set the environment variable "
        'KERAS_BACKEND="tensorflow" (or "backend" in ~/.keras/keras.json) before '
        "Keras is first imported."
    )


def check_is_keras_model(model: object) -> None:
    """Raises `TypeError` unless `model` is a model of Keras 3.

    Models of `tf_keras` (Keras 2), which `tensorflow_model_optimization` makes, look alike
    and share no class with those of Keras 3, so that they are named in the message.
    """
    if isinstance(model, keras.Model):
        return
    module = type(model).__module__
    if module.split(".")[0] == "tf_keras":
        raise TypeError(
            "keras_grow works on models of Keras 3 (`keras.Model`), and this one is of "
            f"tf_keras, that is Keras 2. Received: {type(model).__name__} from {module}. Build the "
            "same architecture with `keras.layers` and carry the weights over with "
            "`new_model.set_weights(model.get_weights())`."
        )
    raise TypeError(
        "Received an invalid `model`, expected a `keras.Model`. "
        f"Received: {model!r} of type {module}.{type(model).__qualname__}"
    )
