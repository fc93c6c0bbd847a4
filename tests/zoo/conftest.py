"""Networks as people build them are large: what a test leaves is freed before the next begins."""

import gc

import keras
import pytest


@pytest.fixture(autouse=True)
def _freed():
    yield
    keras.backend.clear_session(free_memory=False)
    # Graphs are cycles, which Python looks for when objects have become a quarter more: of a few
    # large ones, gigabytes are left by then.
    gc.collect()
