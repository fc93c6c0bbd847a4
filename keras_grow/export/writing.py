"""Exports that stand at their path whole or not at all."""

import contextlib
import ctypes
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf

# How the folders begin in which exports are made.
_SCRATCH = ".export-"
# TensorFlow's errors of computations; a file that gets too large is out of range, too.
_OF_COMPUTATIONS = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnimplementedError,
    tf.errors.InternalError,
    tf.errors.OutOfRangeError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
)
# Of Linux, from fcntl.h and linux/fs.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def written_beside(
    path: str | os.PathLike, may_replace: Callable[[str], bool], format_name: str
) -> Iterator[str]:
    """Gives a path beside `path` to write to; what was written there moves to `path` at the end.

    If the block raises, nothing stands at `path` that did not stand there before.

    Args:
        path: the file or directory to write.
        may_replace: says of what stands at `path`, if anything does, whether it may be replaced.
        format_name: of what may be replaced, for the error's words.

    Raises:
        ValueError: where something stands at `path` that may not be replaced.
            What can't be computed, while the block compares, is a `ValueError` too.
        OSError: where `path` can't be written: no permission, no space, no such drive.
    """
    path = os.path.abspath(os.fspath(path))
    if os.path.lexists(path) and not may_replace(path):
        raise ValueError(
            f"An export replaces earlier {format_name} files only. Received: path={path!r}, where "
            "something else stands. Choose another, or remove it."
        )
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
            written = os.path.join(scratch, "new")
            yield written
            _move(written, path, os.path.join(scratch, "old"))
    # TensorFlow has errors of its own for what the file system refuses, too; it names the file.
    except (OSError, tf.errors.OpError) as error:
        names_file = os.path.join(folder, _SCRATCH) in str(error)
        if isinstance(error, _OF_COMPUTATIONS) and not names_file:
            raise ValueError(
                "The export could not be computed on this machine, and nothing was written. "
                f"Received: {type(error).__name__}: {error.message} The model itself may not run "
                "here, or not on the samples it was compared on; pass others as `data`."
            ) from error
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise kind(
            "The export could not be written, and nothing was changed. Expected a folder that may "
            f"be written to, with room for the export. Received: path={path!r}: {reason}"
        ) from error


def num_bytes(path: str | os.PathLike) -> int:
    """The size of a file, or of all files in a directory."""
    root = pathlib.Path(path)
    files = [root] if root.is_file() else [file for file in root.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _move(written: str, path: str, aside: str) -> None:
    # A directory can't be renamed over another that is not empty.
    is_replacing = os.path.isdir(path)
    if is_replacing and _exchanged(written, path):
        return
    if is_replacing:
        os.rename(path, aside)
    try:
        os.replace(written, path)
    except OSError:
        if is_replacing:
            os.rename(aside, path)
        raise


def _exchanged(one: str, other: str) -> bool:
    """Exchanges what stands at two paths in one step; False where the system does not.

    Between two steps a process can be killed, and nothing would stand at either.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "renameat2"):
        return False
    paths = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    return libc.renameat2(*paths, _RENAME_EXCHANGE) == 0
