"""The one way out: convert, open, compare, move into place; a format fills in the first two."""

import abc
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras

from keras_grow.export.inference import Arrays, Inference, Serve
from keras_grow.export.quiet import silent
from keras_grow.export.samples import batches, outputs_of
from keras_grow.export.stored import StoredKernel
from keras_grow.export.verification import ExportRecord, check
from keras_grow.export.writing import num_bytes, written_beside
from keras_grow.layers.growable import check_finite
from keras_grow.layers.observer import Observer

Stored = Mapping[str, Sequence[StoredKernel]]


class Format(abc.ABC):
    """A format of exports, with its options; `export` is the same for all.

    To write your own, say what is abstract here. One of the package's own gets its line in
    `keras_grow.formats`.

    Attributes:
        name: of the format, in records and errors.
        runtime: what runs its files, in errors.

    Example:

    ```python
    record = keras_grow.formats.LiteRT(dtype="float16").export(model, "grown.tflite")
    ```
    """

    name: ClassVar[str]
    runtime: ClassVar[str]

    @property
    def label(self) -> str:
        """The format and its options, in a word or two."""
        return self.name

    def check(self, model: keras.Model) -> None:
        """Raises `ValueError` or `ImportError` where the model is known not to be exportable."""
        return None

    @abc.abstractmethod
    def is_own(self, path: str) -> bool:
        """Whether what stands at `path` is a file of this format, which an export may replace."""

    @abc.abstractmethod
    def convert(self, inference: Inference, path: str, samples: list[Arrays]) -> Stored:
        """Writes the file.

        Args:
            inference: the model.
            path: where to write.
            samples: on which the file is compared with the model afterwards.

        Returns:
            What was made of each growable layer's kernel, by the layer's path.

        Raises:
            ValueError: where the format can't express the model.
        """

    @abc.abstractmethod
    def open(self, path: str) -> Serve:
        """Runs a file: a function from inputs by name to outputs by name."""

    def limits(self, inference: Inference) -> tuple[float | None, float]:
        """The largest error and the smallest agreement to accept where the user names none."""
        return 1e-5, 0.0

    def expected(self, inference: Inference) -> Observer:
        """Kernels that the model is compared with: rounded where the file holds them rounded."""
        return Observer()

    def default_data(self) -> Any:
        """Samples to compare on where the user gives none; `None` for random ones."""
        return None

    def describe(self, path: str, inference: Inference, stored: Any, facts: dict[str, Any]) -> None:
        """Writes into the export what is to be known of it: `stored`, and the facts."""
        return None

    def run(self, path: str, samples: list[Arrays]) -> dict[str, Any]:
        """The outputs of a file for all samples, by name; `ValueError` where it can't be run."""
        runs = f"{self.runtime} can't run the file that was made of the model, and it was not"
        with silent(), refused(f"{runs} written."):
            return outputs_of(self.open(path), samples)

    def export(
        self,
        model: keras.Model,
        path: str | os.PathLike,
        *,
        data: Any = None,
        tolerance: float | None = None,
        min_agreement: float | None = None,
        input_signature: Any = None,
    ) -> ExportRecord:
        """Writes the model at inference, runs what was written, and compares it with the model.

        Args:
            model: a built model.
            path: the file or directory to write. An earlier export of this format there is
                replaced, in one step at the end; nothing stands there half-written.
            data: samples to compare on, in the structure of the model's inputs; by default 64
                random ones.
            tolerance: the largest error to accept, max|a - b| / max|b| over the outputs; by
                default what the format's rounding makes of it.
            min_agreement: the share of predictions that must be the same.
            input_signature: for subclassed models, which do not know their inputs: the structure
                of `tf.TensorSpec` that the model takes, each with a name.

        Returns:
            What was written, and how near its outputs are to the model's.

        Raises:
            TypeError: if `model` is not a Keras 3 model.
            ImportError: where a package that the format needs is not installed.
            NotVerified: where the file does not compute what the model does. It is not written.
            ValueError: for a model that TensorFlow can't trace or the format can't express,
                weights that are NaN or infinite, and a `path` at which something else stands.
            OSError: where `path` can't be written.
        """
        inference = Inference(model, input_signature)
        self.check(model)
        check_finite(model, inference.layers)
        error_limit, agreement_limit = self.limits(inference)
        if tolerance is None:
            tolerance = error_limit
        if min_agreement is None:
            min_agreement = agreement_limit
        with written_beside(path, self.is_own, self.name) as written:
            samples = batches(inference, self.default_data() if data is None else data)
            # First, so that a model that fails by itself is not blamed on the format.
            wanted = outputs_of(inference.serve(self.expected(inference)), samples)
            with silent():
                stored = self.convert(inference, written, samples)
            outputs = self.run(written, samples)
            if set(outputs) != set(wanted):
                raise ValueError(
                    f"A {self.name} file must name its outputs as the model does. Received: "
                    f"{sorted(outputs)}, expected {sorted(wanted)}"
                )
            outputs = {name: outputs[name] for name in wanted}
            error, agreement = check(outputs, wanted, tolerance, min_agreement, self.name)
            self.describe(written, inference, stored, {"error": error, "tolerance": tolerance})
        words = {
            layer: ", and ".join(dict.fromkeys(kernel.words for kernel in kernels))
            for layer, kernels in stored.items()
        }
        sparsely = [
            layer
            for layer, kernels in stored.items()
            if kernels and all(kernel.is_computed_sparsely for kernel in kernels)
        ]
        return ExportRecord(
            path=os.path.abspath(os.fspath(path)),
            format=self.name,
            num_bytes=num_bytes(path),
            storages={layer: how or "folded into other constants" for layer, how in words.items()},
            error=error,
            tolerance=tolerance,
            agreement=agreement,
            computed_sparsely=tuple(sparsely),
        )


@contextlib.contextmanager
def refused(words: str) -> Iterator[None]:
    """Says whatever converters and runtimes raise, which have errors of no common kind, in words.

    Only the first line of what they say: the rest is their view of their own code.
    """
    try:
        yield
    except Exception as error:
        said = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"{words} Received: {type(error).__name__}: {said}") from error
