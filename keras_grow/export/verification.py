"""Whether an export computes what its model does, and what it says of itself."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class NotVerified(ValueError):
    """Raised where an export does not compute what its model does; it was not written."""


@dataclasses.dataclass(frozen=True)
class ExportRecord:
    """What was exported, how it is stored, and how near its outputs are to the model's.

    Attributes:
        path: the file or directory.
        format: "SavedModel", "LiteRT" or "ONNX".
        num_bytes: of all files.
        storages: how the kernel of each layer is stored, in words, by the layer's path.
        error: max|a - b| / max|b| of the export's outputs a and the model's b, the largest of all
            outputs, on the samples that were compared.
        tolerance: the largest error that was accepted; `None` for integer formats, which are
            judged by `agreement`.
        agreement: the share of the samples for which the largest output is the same one.
        computed_sparsely: the paths of the layers whose products cost what is active, not what
            their kernels' shapes say, whatever the batch size.
    """

    path: str
    format: str
    num_bytes: int
    storages: Mapping[str, str]
    error: float
    tolerance: float | None
    agreement: float
    computed_sparsely: tuple[str, ...] = ()

    def __str__(self) -> str:
        stored = "; ".join(f"{name}: {how}" for name, how in self.storages.items())
        accepted = "" if self.tolerance is None else f" of {self.tolerance:.0e} accepted"
        return (
            f"{self.format} of {self.num_bytes:,} bytes at {self.path!r} ({stored}), error "
            f"{self.error:.1e}{accepted}, {self.agreement:.2%} of predictions the same"
        )


def compare(outputs: Sequence[Any], expected: Sequence[Any]) -> tuple[float, float]:
    """How near two lists of outputs are: the largest error, and the share of equal predictions.

    The error of an output is max|a - b| / max|b|, both of 0 where b is 0 everywhere and a is too;
    entries that are NaN or infinite in both alike count as equal, and else as an infinite error.
    The prediction of a sample is the position of the largest entry, or the sign of a single one.
    """
    error, agreements = 0.0, []
    for output, wanted in zip(outputs, expected, strict=True):
        a, b = np.asarray(output, np.float64), np.asarray(wanted, np.float64)
        if a.shape != b.shape:
            return np.inf, 0.0
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            difference = np.where(same, 0.0, np.abs(a - b))
            scale = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
            largest = np.max(difference, initial=0.0)
            relative = 0.0 if largest == 0 else largest / scale if scale > 0 else np.inf
        error = max(error, float(np.where(np.isnan(relative), np.inf, relative)))
        agreements.append(np.mean(_prediction(a) == _prediction(b)) if a.size else 1.0)
    return error, float(min(agreements, default=1.0))


def check(
    outputs: Mapping[str, Any],
    expected: Mapping[str, Any],
    tolerance: float | None,
    min_agreement: float,
    what: str,
) -> tuple[float, float]:
    """The error and the agreement of `compare`, where they are accepted.

    Args:
        outputs, expected: arrays by the same names, in the same order.
        tolerance: the largest error to accept; `None` accepts any.
        min_agreement: the smallest share of equal predictions to accept.
        what: names the export in the error.

    Raises:
        NotVerified: where one of them is not accepted.
    """
    error, agreement = compare(list(outputs.values()), list(expected.values()))
    if (tolerance is not None and not error <= tolerance) or agreement < min_agreement:
        accepted = "any error" if tolerance is None else f"an error of at most {tolerance:.1e}"
        knob = "smaller `min_agreement`" if tolerance is None else "larger `tolerance`"
        raise NotVerified(
            f"The {what} file does not compute what the model does, and was not written. Expected "
            f"{accepted} and {min_agreement:.0%} of the predictions to be the same. Received: an "
            f"error of {error:.1e} and {agreement:.2%} of the predictions. Pass a {knob}, or other "
            "`data` to compare on, if that is what you expect."
        )
    return error, agreement


def _prediction(values: np.ndarray) -> np.ndarray:
    if values.ndim == 0:
        return values > 0
    return values[..., 0] > 0 if values.shape[-1] == 1 else np.argmax(values, axis=-1)
