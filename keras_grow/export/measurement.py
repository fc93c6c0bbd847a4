"""What a grown network costs in each form in which it can be served, measured side by side."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_grow.export import serving
from keras_grow.export.forms import (
    DISPATCH,
    FORMS,
    FormMaker,
    Served,
    as_serve,
    compiled_nothing,
    outputs_of,
)
from keras_grow.export.side_by_side import interleaved_seconds
from keras_grow.export.signature import input_signature, random_inputs
from keras_grow.export.verification import compare
from keras_grow.export.writing import num_bytes
from keras_grow.integers import as_integer
from keras_grow.layers.growable import growable_layers

_SERVING = pathlib.Path(serving.__file__)


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds of a call, over turns of about two milliseconds.

    Attributes:
        batch_size: how many samples the call had.
        median, lower, upper: the quartiles of the turns' means.
        rounds: how many turns there were.
    """

    batch_size: int
    median: float
    lower: float
    upper: float
    rounds: int


@dataclasses.dataclass(frozen=True)
class FormMeasurement:
    """What one form of a network costs.

    Attributes:
        form: one of `measure`'s forms, or "TensorFlow's dispatch", a call that computes nothing.
        disk_bytes: of all its files; of a model in memory, of its `.keras` file.
        memory_bytes: by how much the resident memory of a process that has started the runtime
            grew while it loaded the export and served two of the largest batches; `None` for
            models in memory, where it was not asked for, and where the system does not say.
        flops: 2 x the connections that are multiplied with, x positions, for one sample; `None`
            where positions are not known.
        latencies: a `Latency` for each batch size.
        error: max|a - b| / max|b| of its outputs a and the model's b; `None` for the dense
            original, which computes something else.
        accuracy: the share of samples of the right class, `None` without classes.
    """

    form: str
    disk_bytes: int | None
    memory_bytes: int | None
    flops: int | None
    latencies: tuple[Latency, ...]
    error: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The forms of a network, measured in one run; its `str` is a table in Markdown.

    Attributes:
        forms: a `FormMeasurement` for each.
        left_out: why forms that were asked for are not there, by form.
    """

    forms: tuple[FormMeasurement, ...]
    left_out: Mapping[str, str]

    def __getitem__(self, form: str) -> FormMeasurement:
        for measured in self.forms:
            if measured.form == form:
                return measured
        raise KeyError(
            f"There is no measurement of {form!r}. Received: {[m.form for m in self.forms]}; "
            f"left out: {dict(self.left_out)}"
        )

    def as_dict(self) -> dict:
        """The measurement as JSON takes it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def __str__(self) -> str:
        sizes = [latency.batch_size for latency in self.forms[0].latencies]
        header = ["form", "disk, kB", "memory, MB", "FLOPs"]
        header += [f"batch {size}, ms" for size in sizes] + ["error", "accuracy"]
        rows = [header, ["---", *["---:"] * (len(header) - 1)]]
        for form in self.forms:
            rows.append(
                [
                    form.form,
                    "-" if form.disk_bytes is None else f"{form.disk_bytes / 1e3:,.1f}",
                    "-" if form.memory_bytes is None else f"{form.memory_bytes / 1e6:,.1f}",
                    "-" if form.flops is None else f"{form.flops:,}",
                    *(
                        f"{1e3 * x.median:.3g} ({1e3 * x.lower:.3g} to {1e3 * x.upper:.3g})"
                        for x in form.latencies
                    ),
                    "-" if form.error is None else f"{form.error:.0e}",
                    "-" if form.accuracy is None else f"{form.accuracy:.2%}",
                ]
            )
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join(lines + [f"\n{form}: {why}" for form, why in self.left_out.items()])


def measure(
    model: keras.Model,
    data: Any = None,
    *,
    dense: keras.Model | None = None,
    batch_sizes: Sequence[int] = (1, 32, 256),
    forms: Sequence[str] = FORMS,
    seconds: float = 3.0,
    measures_memory: bool = True,
    verbose: int = 0,
) -> Measurement:
    """Measures what a grown network costs in each form in which it can be served.

    The forms are the dense original, as Keras exports it and as LiteRT file; the masked model
    itself, and the compact one, in compiled functions; and the exports of the compact model. For
    each batch size the forms are called in turns of about two milliseconds, so that they see the
    same machine, and the medians and quartiles over the turns are given. TensorFlow and ONNX
    Runtime have the threads that they take by default, LiteRT has one. TensorFlow takes some time
    for a call that computes nothing, which is measured beside them.

    Args:
        model: a built Sequential or functional model with growable layers.
        data: samples x, or a tuple (x, y) of samples and integer classes, which the largest
            output is to meet; by default random samples. LiteRT's int8 is calibrated on the first
            500.
        dense: the dense original; by default a plain copy of `model`, dormant connections at
            random, so that its outputs mean nothing.
        batch_sizes: which to time.
        forms: which of "dense SavedModel", "dense LiteRT", "masked model", "compact model",
            "SavedModel", "LiteRT", "LiteRT float16", "LiteRT int8" and "ONNX".
        seconds: how long to time each batch size, all forms together; each always has five turns.
        measures_memory: whether to measure the memory of exports, in a fresh process each, which
            takes some seconds.
        verbose: 1 shows progress.

    Returns:
        A `Measurement`. Forms that can't be made, because a runtime is not installed or can't
        express the model, are named in `left_out` with the reason.

    Raises:
        TypeError, ValueError: for a model without growable layers, a subclassed one, unknown forms,
            batch sizes that are not positive integers and data that does not fit.

    Example:

    ```python
    print(keras_grow.measure(model, (x_test, y_test)))
    ```
    """
    growable_layers(model)
    unknown = [form for form in forms if form not in FORMS]
    if unknown or not forms:
        raise ValueError(f"`forms` must be some of {FORMS}. Received: forms={tuple(forms)!r}")
    sizes = [as_integer(size) for size in batch_sizes]
    if not sizes or any(size is None or size <= 0 for size in sizes):
        raise ValueError(
            f"`batch_sizes` must be positive integers. Received: batch_sizes={batch_sizes!r}"
        )
    batch_sizes = [size for size in sizes if size]
    samples, classes = _samples(model, data, max(batch_sizes))
    with tempfile.TemporaryDirectory(prefix="keras_grow-") as folder:
        maker = FormMaker(model, dense, samples, batch_sizes[0], folder)
        served: dict[str, Served] = {}
        left_out: dict[str, str] = {}
        progress = keras.utils.Progbar(2 * len(forms) + len(batch_sizes), verbose=verbose)
        for form in forms:
            progress.add(1)
            try:
                served[form] = maker.make(form)
            except (ValueError, ImportError) as error:
                left_out[form] = str(error)
        expected = maker.expected(samples)
        serves = [one.serve for one in served.values()]
        latencies = _latencies(serves, samples, batch_sizes, seconds, progress)
        largest = _first(samples, max(batch_sizes))
        measured = []
        for (form, one), times in zip(served.items(), latencies[:-1], strict=True):
            progress.add(1)
            outputs = outputs_of(one.serve, samples, maker.output_names)
            is_other = form.startswith("dense") and dense is None
            measured.append(
                FormMeasurement(
                    form,
                    num_bytes(one.path),
                    _memory_bytes(one, largest) if measures_memory else None,
                    one.flops,
                    times,
                    None if form.startswith("dense") else compare(outputs, expected)[0],
                    None if classes is None or is_other else _accuracy(outputs[0], classes),
                )
            )
        progress.update(progress.target, finalize=True)
    measured.append(FormMeasurement(DISPATCH, None, None, 0, latencies[-1], None, None))
    return Measurement(tuple(measured), left_out)


def _samples(
    model: keras.Model, data: Any, count: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Samples by input name, at least `count` of them, and their classes, if they have."""
    signature = input_signature(model)
    x, classes = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if x is None:
        x = random_inputs(signature, count)
    specs, arrays = tree.flatten(signature), tree.flatten(x)
    if len(specs) != len(arrays):
        raise ValueError(
            f"`data` must be samples for the model's {len(specs)} inputs, or a tuple of these and "
            f"their classes. Received: {len(arrays)} arrays"
        )
    named = {
        spec.name: np.asarray(array, tf.as_dtype(spec.dtype).as_numpy_dtype)
        for spec, array in zip(specs, arrays, strict=True)
    }
    if classes is not None:
        classes = np.asarray(classes).reshape(-1)
        if len(classes) != len(arrays[0]):
            raise ValueError(
                "`data` must hold one class for each sample. Received: "
                f"{len(classes)} classes for {len(arrays[0])} samples"
            )
    return named, classes


def _first(samples: serving.Arrays, count: int) -> dict[str, np.ndarray]:
    """The first samples, again from the start where there are too few."""
    return {
        name: np.ascontiguousarray(np.resize(values, (count, *values.shape[1:])))
        for name, values in samples.items()
    }


def _latencies(
    serves: Sequence[serving.Serve],
    samples: serving.Arrays,
    batch_sizes: Sequence[int],
    seconds: float,
    progress: keras.utils.Progbar,
) -> list[tuple[Latency, ...]]:
    """For each form, and at last for a call that computes nothing, a latency of each size."""
    nothing = as_serve(compiled_nothing(samples))
    found: list[list[Latency]] = [[] for _ in (*serves, nothing)]
    for size in batch_sizes:
        progress.add(1)
        batch = _first(samples, size)
        calls = [functools.partial(serve, batch) for serve in (*serves, nothing)]
        for latencies, times in zip(found, interleaved_seconds(calls, seconds), strict=True):
            lower, median, upper = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
            latencies.append(Latency(size, median, lower, upper, len(times)))
    return [tuple(latencies) for latencies in found]


def _accuracy(outputs: np.ndarray, classes: np.ndarray) -> float:
    return float(np.mean(np.argmax(outputs, axis=-1) == classes))


def _memory_bytes(served: Served, inputs: serving.Arrays) -> int | None:
    if served.runtime is None or not os.path.exists("/proc/self/status"):
        return None
    with tempfile.TemporaryDirectory(prefix="keras_grow-") as folder:
        file = os.path.join(folder, "inputs.npz")
        np.savez(file, **dict(inputs))  # type: ignore[arg-type]
        # Without -P, the modules beside the script would hide others of their names.
        command = [sys.executable, "-P", str(_SERVING), served.runtime, served.path, file]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"A process that serves {served.path} failed. {done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])
