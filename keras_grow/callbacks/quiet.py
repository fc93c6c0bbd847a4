"""Measurements inside `fit` that show their progress only where `fit` shows its own."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from keras_grow.measuring.gradients import GradientMeter
from keras_grow.search.tiled_search import TiledSearch


@contextlib.contextmanager
def as_quiet_as_fit(params: Mapping[str, Any], meter: GradientMeter) -> Iterator[None]:
    """A meter that shows progress on its own account shows none in `fit(verbose=0)`."""
    is_quiet = params.get("verbose") == 0 and meter.verbose == "auto"
    if is_quiet:
        meter.verbose = 0
    try:
        yield
    finally:
        if is_quiet:
            meter.verbose = "auto"


def search_as_quiet_as_fit(params: Mapping[str, Any], search: TiledSearch | None) -> TiledSearch:
    """The same of a search."""
    search = TiledSearch() if search is None else search
    is_quiet = params.get("verbose") == 0 and search.verbose == "auto"
    return dataclasses.replace(search, verbose=0) if is_quiet else search
