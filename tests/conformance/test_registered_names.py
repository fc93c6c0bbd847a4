"""What stands in saved files is registered under the package's name, so that it is found again."""

import inspect

import keras
import pytest

import keras_grow

_SERIALIZED = keras.Layer, keras.Initializer, keras.constraints.Constraint


def _saved_classes():
    found = [value for name, value in vars(keras_grow).items() if inspect.isclass(value)]
    for each in found:
        if issubclass(each, _SERIALIZED) and not inspect.isabstract(each):
            yield each


@pytest.mark.parametrize("kind", _saved_classes(), ids=lambda kind: kind.__name__)
def test_a_class_is_found_by_the_name_that_files_have(kind):
    name = f"keras_grow>{kind.__name__}"
    assert keras.saving.get_registered_name(kind) == name
    assert keras.saving.get_registered_object(name) is kind
