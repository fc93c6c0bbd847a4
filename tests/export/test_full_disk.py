"""On a full disk, and in a folder that may not be written to, an export leaves all as it was."""

import os
import pathlib
import subprocess
import sys

import pytest

# In a process of its own: its limits, and who it is, can't be taken back.
_PROGRAM = """
import os
import pathlib
import resource
import sys

import keras
import numpy as np
import keras_grow

export, folder, trouble = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((40,)), keras_grow.GrowableDense(50), keras.layers.Dense(2)])
path = folder / {"export_saved_model": "grown", "export_litert": "grown.tflite"}.get(
    export, "grown.onnx"
)
write = getattr(keras_grow, export)
write(model, path)


def all_bytes():
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return {str(file): file.read_bytes() for file in files}


before, standing = all_bytes(), sorted(os.listdir(folder))
model.layers[0].kernel.assign(2 * model.layers[0].kernel)
if trouble == "full":
    # Files end here, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
else:
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # Root may write anywhere.
try:
    write(model, path)
except OSError as error:
    assert "nothing was changed" in str(error), error
    assert str(path) in str(error), error
    print("refused by", type(error).__name__)
os.seteuid(os.getuid())
folder.chmod(0o755)
assert all_bytes() == before
assert sorted(os.listdir(folder)) == standing
"""


@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("export", ["export_saved_model", "export_litert", "export_onnx"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_what_stood_there_stays_and_the_error_says_so(export, trouble, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for parent in (folder, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, export, str(folder), trouble],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[2],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kind = "PermissionError" if trouble == "read-only" else "OSError"
    assert done.stdout.strip().endswith(f"refused by {kind}")
