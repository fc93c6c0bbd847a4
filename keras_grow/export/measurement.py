"""What a grown network costs in each form in which it can be served, measured side by side."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_grow.conversion.compaction import compact
from keras_grow.conversion.conversion import make_growable
from keras_grow.export.formats import FORMATS
from keras_grow.export.inference import Arrays, Inference, Serve
from keras_grow.export.pipeline import Format
from keras_grow.export.quiet import silent
from keras_grow.export.samples import cut, outputs_of, random_inputs
from keras_grow.export.turns import interleaved_seconds
from keras_grow.export.verification import compare
from keras_grow.export.writing import num_bytes
from keras_grow.integers import checked_integer
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.observer import Observer
from keras_grow.layers.paths import nested_layers

KERAS_MODEL = "Keras model"
# Samples at a time when outputs are compared.
_CHUNK = 256


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
        form: "Keras model", or the label of a format; "dense ..." of the dense original.
        disk_bytes: of all its files; of the Keras model, of its `.keras` file.
        latencies: a `Latency` for each batch size.
        error: max|a - b| / max|b| of its outputs a and the model's b; `None` for the dense
            original, which computes something else.
        agreement: the share of predictions that are the model's, whatever the form.
        accuracy: the share of samples of the right class, `None` without classes.
    """

    form: str
    disk_bytes: int
    latencies: tuple[Latency, ...]
    error: float | None
    agreement: float
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

    def __str__(self) -> str:
        sizes = [latency.batch_size for latency in self.forms[0].latencies]
        header = ["form", "disk, kB", *(f"batch {size}, ms" for size in sizes)]
        rows = [[*header, "error", "agreement", "accuracy"]]
        rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
        for form in self.forms:
            times = [[1e3 * t for t in (x.median, x.lower, x.upper)] for x in form.latencies]
            rows.append(
                [
                    form.form,
                    f"{form.disk_bytes / 1e3:,.1f}",
                    *("{:.3g} ({:.3g} to {:.3g})".format(*quartiles) for quartiles in times),
                    "-" if form.error is None else f"{form.error:.0e}",
                    f"{form.agreement:.2%}",
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
    formats: Sequence[Format] | None = None,
    batch_sizes: Sequence[int] = (1, 32, 256),
    seconds: float = 3.0,
) -> Measurement:
    """Measures what a grown network costs in each form in which it can be served.

    The forms are the model itself, in a compiled function, and the exports of the compact model;
    of a dense original too, where there is one. For each batch size the forms are called in turns
    of about two milliseconds, so that they see the same machine. LiteRT has one thread, TensorFlow
    and ONNX Runtime have what they take by default.

    Args:
        model: a built Sequential or functional model with growable layers.
        data: samples x, or a tuple (x, y) of samples and integer classes, which the largest
            output is to meet; by default random samples.
        dense: the dense original, to be measured beside the model in the same formats.
        formats: objects of `keras_grow.formats`, by default one of each.
        batch_sizes: positive integers, which to time.
        seconds: how long to time each batch size, all forms together; each always has five turns.

    Returns:
        A `Measurement`. Forms that can't be made, because a runtime is not installed or can't
        express the model, are named in `left_out` with the reason.

    Raises:
        TypeError, ValueError: for a model without growable layers, a subclassed one, what is no
            format, batch sizes that are not positive integers and data that does not fit.

    Example:

    ```python
    litert = keras_grow.formats.LiteRT
    print(keras_grow.measure(model, (x_test, y_test), formats=[litert(), litert("float16")]))
    ```
    """
    growable_layers(model)
    formats = [form() for form in FORMATS] if formats is None else list(formats)
    unknown = [form for form in formats if not isinstance(form, Format)]
    if unknown:
        raise TypeError(
            f"`formats` must be objects such as keras_grow.formats.LiteRT(). Received: {unknown!r}"
        )
    sizes = [checked_integer(size, "batch_sizes") for size in batch_sizes]
    inference = Inference(model)
    samples, classes = _samples(inference, data, max(sizes, default=1))
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="keras_grow-") as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        own = inference.serve(Observer(), is_compiled=True)
        made = [_Form(KERAS_MODEL, False, num_bytes(path), own)]
        sources = {"": compact(model).model}
        if dense is not None:
            is_growable = any(isinstance(layer, Growable) for layer in nested_layers(dense))
            sources["dense "] = dense if is_growable else make_growable(dense)
        for prefix, source in sources.items():
            for form in formats:
                label, path = prefix + form.label, os.path.join(folder, str(len(made)))
                try:
                    size = form.export(source, path).num_bytes
                    with silent():
                        serve = form.open(path)
                    made.append(_Form(label, bool(prefix), size, _by_position(serve, source)))
                except (ValueError, ImportError) as reason:
                    left_out[label] = str(reason)
        serves = [each.serve for each in made]
        latencies = [_latencies(serves, samples, size, seconds) for size in sizes]
        outputs = [outputs_of(serve, cut(samples, _CHUNK)) for serve in serves]
    measured = []
    for i, (each, values) in enumerate(zip(made, outputs, strict=True)):
        # The dense original may call its outputs by other names.
        names = outputs[0] if set(outputs[0]) == set(values) else values
        arrays = [values[name] for name in names]
        error, agreement = compare(arrays, list(outputs[0].values()))
        right = None if classes is None else np.mean(np.argmax(arrays[0], axis=-1) == classes)
        measured.append(
            FormMeasurement(
                form=each.label,
                disk_bytes=each.size,
                latencies=tuple(of_size[i] for of_size in latencies),
                error=None if each.is_dense else error,
                agreement=agreement,
                accuracy=None if right is None else float(right),
            )
        )
    return Measurement(tuple(measured), left_out)


class _Form(NamedTuple):
    label: str
    is_dense: bool
    size: int
    serve: Serve


def _by_position(serve: Serve, model: keras.Model) -> Serve:
    # The dense original may call its inputs by other names.
    names = [spec.name for spec in Inference(model).specs]
    return lambda inputs: serve(dict(zip(names, inputs.values(), strict=True)))


def _latencies(
    serves: Sequence[Serve], samples: Arrays, size: int, seconds: float
) -> list[Latency]:
    # The first samples, again from the start where there are too few.
    batch = {name: np.resize(array, (size, *array.shape[1:])) for name, array in samples.items()}
    found = []
    for times in interleaved_seconds([functools.partial(s, batch) for s in serves], seconds):
        lower, median, upper = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
        found.append(Latency(size, median, lower, upper, len(times)))
    return found


def _samples(
    inference: Inference, data: Any, count: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Samples by input name, at least `count` of them, and their classes, if they have."""
    x, classes = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    named = random_inputs(inference, count) if x is None else inference.named(x)
    if classes is not None:
        classes = np.asarray(classes).reshape(-1)
        num_samples = len(next(iter(named.values())))
        if len(classes) != num_samples:
            raise ValueError(
                "`data` must hold one class for each sample. Received: "
                f"{len(classes)} classes for {num_samples} samples"
            )
    return named, classes
