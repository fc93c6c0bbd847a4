"""What a report of a fault should say of the machine and the versions."""

import platform

import keras
import numpy as np
import tensorflow as tf

from keras_grow.version import __version__


def environment() -> dict[str, str]:
    """The versions and devices that a result depends on, for the report of a fault.

    It names nothing of the machine's owner, and looks nothing up on a network.

    Returns:
        Names and what they stand for, in the order in which they should be read.

    Example:

    ```python
    for name, value in keras_grow.environment().items():
        print(f"{name}: {value}")
    ```
    """
    gpus = [
        tf.config.experimental.get_device_details(device).get("device_name", "unnamed")
        for device in tf.config.list_physical_devices("GPU")
    ]
    return {
        "keras_grow": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "GPUs": ", ".join(gpus) or "none",
        "dtype policy": keras.config.dtype_policy().name,
    }
