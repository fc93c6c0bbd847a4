"""Networks as people build them are large: what is left is freed around each long test."""

import gc

import keras
import pytest


@pytest.fixture(autouse=True)
def _freed(request):
    # Graphs are cycles, which Python looks for when objects have become a quarter more: of a few
    # large ones, gigabytes are left by then. Looking takes half a second, too long for quick tests.
    is_long = request.node.get_closest_marker("slow") is not None
    if is_long:
        gc.collect()
    yield
    if is_long:
        keras.backend.clear_session(free_memory=False)
        gc.collect()
