"""Silence for converters that talk."""

import contextlib
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
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    saved = []
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # A process without a console may have closed them.
            saved.append((descriptor, os.dup(descriptor)))
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with open(os.devnull, "w") as nowhere:
            _flush()
            for descriptor, _ in saved:
                os.dup2(nowhere.fileno(), descriptor)
            with (
                contextlib.redirect_stdout(nowhere),
                contextlib.redirect_stderr(nowhere),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield
    finally:
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
