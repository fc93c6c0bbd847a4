import keras
import tensorflow as tf

import keras_grow


def test_versions_and_devices_are_those_that_run():
    found = keras_grow.environment()
    assert found["keras_grow"] == keras_grow.__version__
    assert found["keras"] == keras.__version__
    assert found["tensorflow"] == tf.__version__
    assert all(isinstance(value, str) and value for value in found.values())
