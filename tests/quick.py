"""Which parameters of a test the quick suite runs."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import pytest


def among(values: Mapping[str, Any] | Iterable[str], quick: Container[str]) -> list:
    """Parameters for `pytest.mark.parametrize`, with their names as ids, all but `quick` slow.

    Names alone stand for themselves.
    """
    named = values if isinstance(values, Mapping) else {name: name for name in values}
    return [
        pytest.param(value, id=name, marks=() if name in quick else pytest.mark.slow)
        for name, value in named.items()
    ]
