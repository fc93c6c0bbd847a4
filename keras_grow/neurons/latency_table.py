"""Tables of how long layers of some sizes take, which are measured once and kept."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping

Times = Mapping[tuple[int, int], float]
"""Milliseconds of a call by `(inputs, units)`."""

_FORM = '{"batch_size": 1, "milliseconds": {"layer": [[inputs, units, milliseconds], ...]}}'


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable(Mapping[str, Times]):
    """What `keras_grow.measure_latencies` measured, for `keras_grow.budgets.Milliseconds`.

    It is a mapping from layer paths to milliseconds by `(inputs, units)`.

    Attributes:
        milliseconds: for each layer path, pairs of `(inputs, units)` and milliseconds of a call.
        batch_size: how many samples a call had.
    """

    milliseconds: Mapping[str, Times]
    batch_size: int = 1

    def __getitem__(self, path: str) -> Times:
        return self.milliseconds[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.milliseconds)

    def __len__(self) -> int:
        return len(self.milliseconds)

    def __str__(self) -> str:
        rows = []
        for path, times in self.items():
            sizes = (f"{inputs} x {units}: {time:.3g}" for (inputs, units), time in times.items())
            rows.append(f"{path}: {', '.join(sizes)} ms")
        return "\n".join(rows)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the table to a JSON file, in the place of one that is there."""
        layers = {
            name: [[*size, time] for size, time in times.items()] for name, times in self.items()
        }
        content = {"batch_size": self.batch_size, "milliseconds": layers}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LatencyTable":
        """The table in a file that `save` wrote.

        Raises:
            ValueError: for a file of another form.
        """
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            content = json.loads(text)
            milliseconds = {
                name: {(int(inputs), int(units)): float(time) for inputs, units, time in times}
                for name, times in content["milliseconds"].items()
            }
            return cls(milliseconds, int(content["batch_size"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"A table of latencies is JSON of the form {_FORM}. Received: {os.fspath(path)!r}, "
                f"which begins {text[:60]!r}. Measure and save it anew."
            ) from error
