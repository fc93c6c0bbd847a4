import doctest
import importlib
import math
import pkgutil

import pytest

import keras_grow
from keras_grow.connections import tiled_search
from keras_grow.measuring import accumulation

MODULES = [
    module.name for module in pkgutil.walk_packages(keras_grow.__path__, prefix="keras_grow.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_say(name, monkeypatch):
    for module in (
        accumulation,
        tiled_search,
    ):  # They print a progress bar where a machine is slow.
        monkeypatch.setattr(module, "_PATIENCE_SECONDS", math.inf)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()
    tests = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    assert sum(bool(test.examples) for test in tests) >= 4
