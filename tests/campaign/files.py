"""Damaged files: refused in words, or equal to what was saved; never another model, never a crash.

HDF5 has no checksum, so that of bytes that Keras's own layers store nothing can be told: what
differs there alone is counted as undetectable, and stock Keras stands beside as the control.
Exports are compared with their digest before they are run; Keras's own, the control's, have none.
"""

import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np

import keras_grow
from tests.campaign import damage
from tests.campaign.models import MODELS

_ROOT = pathlib.Path(__file__).parents[2]
# A file that takes longer to load hangs.
_PATIENCE_SECONDS = 120.0
KINDS = {
    ".keras": damage.OF_ARCHIVES,
    ".weights.h5": damage.OF_WEIGHTS,
    ".tflite": damage.OF_ANY_FILE,
    ".saved_model": damage.OF_ANY_FILE,
}


class _Reader:
    """A process that loads files; another takes its place when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def ask(self, **question: str) -> dict:
        """What comes of a file."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(_PATIENCE_SECONDS, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            self._process = None
            return {"verdict": "wrong: the process died", "said": str(process.wait()), "bytes": 0}
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.reader"],
            cwd=_ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


def run(count: int, seed: int, scratch: pathlib.Path) -> dict[str, int]:
    """Damages files and has them loaded.

    Args:
        count: how many trials, of all models and kinds together; stock Keras's come beside them.
        seed: of the damages. Trial i is a function of (seed, i).
        scratch: a folder for the files, and for the verdicts of trials that were made.

    Returns:
        How many trials had which verdict, `keras_grow`'s and stock Keras's apart.
    """
    log = scratch / "verdicts.jsonl"
    wholes = _saved(scratch)
    made = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(trial["trial"], trial["model"]) for trial in made}
    reader = _Reader()
    with log.open("a") as file:
        for trial in range(count):
            name = ("masked", "sparse")[trial % 2]
            for model in (name, *(["stock"] if trial % 10 == 0 else [])):
                if (trial, model) in done:
                    continue
                record = _try(trial, seed, model, wholes, scratch, reader)
                made.append(record)
                file.write(json.dumps(record) + "\n")
                file.flush()
            if trial % 500 == 499:
                print(f"{trial + 1:,} of {count:,}", flush=True)
    reader.close()
    counts: collections.Counter[str] = collections.Counter()
    for record in made:
        if record["trial"] < count:
            of = "stock Keras: " if record["model"] == "stock" else ""
            verdict = record["verdict"]
            # What stock Keras loads as another model is no fault of ours.
            counts[of + (verdict.replace("wrong", "another") if of else verdict)] += 1
    return dict(sorted(counts.items()))


def _saved(scratch: pathlib.Path) -> dict[tuple[str, str], pathlib.Path]:
    wholes = {}
    for name, make in MODELS.items():
        for kind in KINDS:
            path = scratch / f"{name}{kind}"
            if not path.exists():
                _save(make(0), path, name == "stock")
            wholes[name, kind] = path
    return wholes


def _save(model: keras.Model, path: pathlib.Path, is_stock: bool) -> None:
    kind = path.suffix
    if kind == ".keras":
        model.save(path)
    elif kind == ".h5":
        model.save_weights(path)
    elif kind == ".tflite":
        if is_stock:
            model.export(path, format="litert", verbose=False)
        else:
            keras_grow.export_litert(model, path)
    elif is_stock:
        model.export(path, verbose=False)
    else:
        keras_grow.export_saved_model(model, path)


def _try(
    trial: int,
    seed: int,
    model: str,
    wholes: dict[tuple[str, str], pathlib.Path],
    scratch: pathlib.Path,
    reader: _Reader,
) -> dict:
    random = np.random.default_rng([seed, trial])
    kind = list(KINDS)[trial // 2 % len(KINDS)]
    damages = KINDS[kind]
    harm = damages[int(random.integers(len(damages)))]
    whole = wholes[model, kind]
    damaged = scratch / f"damaged{kind}"
    if whole.is_dir():
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(whole, damaged)
        inside = sorted(file for file in damaged.rglob("*") if file.is_file())
        harmed = inside[int(random.integers(len(inside)))]
    else:
        shutil.copyfile(whole, damaged)
        harmed = damaged
    harmed.write_bytes(harm(harmed.read_bytes(), random))
    answer = reader.ask(path=str(damaged), model=model, whole=str(whole))
    if damage.climbed(scratch):
        answer["verdict"] = "wrong: landed outside"
    return {"trial": trial, "model": model, "kind": kind, "harm": harm.__name__, **answer}
