"""Silence for converters that talk."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what converters print, log and warn of off the screen; errors still raise.

    They print from C++ too, past Python's streams, so that the process's own are redirected. What
    other threads print meanwhile is lost with it.
    """
    disabled, handlers = logging.root.manager.disable, list(logging.root.handlers)
    # Not a file: a handler made meanwhile would go on writing to it once it is closed.
    nowhere = io.StringIO()
    logging.disable(logging.ERROR)
    try:
        with (
            _without_output_from_c(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        # The first message to the root logger gives it a handler, in whose place the user's own
        # configuration would do nothing.
        logging.root.handlers[:] = handlers
        logging.disable(disabled)


@contextlib.contextmanager
def _without_output_from_c() -> Iterator[None]:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    saved = []
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # A process without a console may have closed them.
            saved.append((descriptor, os.dup(descriptor)))
    try:
        with open(os.devnull, "w") as nowhere:
            for descriptor, _ in saved:
                os.dup2(nowhere.fileno(), descriptor)
        yield
    finally:
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)
