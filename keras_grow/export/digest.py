"""Digests in exports, by which a damaged one is told apart from a whole one before it is run.

A file ends with the SHA-256 of all that precedes it, in a place that its format skips. A SavedModel
holds those of its files in its description.
"""

import hashlib
import json
import os
import pathlib

DESCRIPTION = os.path.join("assets.extra", "keras_grow.json")  # Where TensorFlow wants such files.
NUM_DIGITS = 64  # Of a SHA-256, hexadecimal.


def check_file(path: str | os.PathLike) -> None:
    """Raises where an export is not, byte by byte, what was written.

    LiteRT's and ONNX's files have no checksum, and a SavedModel's graph has none: what is damaged
    on its way may load and compute something else, or crash the runtime. Every export holds a
    SHA-256 of itself, which is compared here, without running anything. It tells damage, not
    forgery.

    Args:
        path: a file or directory that `keras_grow.export_saved_model`, `export_litert` or
            `export_onnx` wrote.

    Raises:
        ValueError: where it is not what was written, or has no digest: its end is missing, or it
            was written by something else, or by a version before 0.2.
        OSError: where it can't be read.

    Example:

    ```python
    keras_grow.formats.check_file("grown.tflite")
    ```
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        _check_folder(path)
        return
    content = pathlib.Path(path).read_bytes()
    if content[-NUM_DIGITS:] != _digits(content[:-NUM_DIGITS]).encode():
        _refuse(path, "its end is not the digest of what precedes it")


def sealed(content: bytes, mark: bytes) -> bytes:
    """A file with the digest of itself at its end, behind a mark that its format skips."""
    return content + mark + _digits(content + mark).encode()


def of_folder(folder: str) -> dict[str, str]:
    """The digests of a directory's files but the description, by their paths inside."""
    root = pathlib.Path(folder)
    files = [file for file in root.rglob("*") if file.is_file() and file != root / DESCRIPTION]
    return {file.relative_to(root).as_posix(): _digits(file.read_bytes()) for file in sorted(files)}


def _check_folder(folder: str) -> None:
    try:
        described = json.loads(pathlib.Path(folder, DESCRIPTION).read_text("utf-8"))
        expected = dict(described["sha256"])
    except FileNotFoundError:
        _refuse(folder, f"it has no {DESCRIPTION}")
    except (ValueError, KeyError, TypeError):
        _refuse(folder, f"its {DESCRIPTION} holds no digests")
    found = of_folder(folder)
    if found != expected:
        names = sorted(dict(found.items() ^ expected.items()))
        _refuse(folder, f"these files are others, missing or new: {names}")


def _refuse(path: str, reason: str) -> None:
    raise ValueError(
        "The export is not what was written. Expected one that keras_grow 0.2 or later wrote, and "
        f"nothing changed since. Received: {path!r}: {reason}. Copy or export it again."
    )


def _digits(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
