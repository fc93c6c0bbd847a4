"""What all benchmarks share: interleaved timing, memory in fresh processes, and written results.

Timings on a shared machine drift. Variants are therefore timed side by side in one process, in a
random order in every round, and compared by the ratio within a round. A second copy of the
baseline (A/A) shows what the noise alone does to a ratio.
"""

import ctypes
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"
CONTROL = "A/A control"
# Okabe and Ito's colors, which the color-blind can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# With markers and lines for gray.
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_STYLES = list(zip(COLORS, "os^DvP", _LINES, strict=True))


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a variant took.

    Attributes:
        median, lower, upper: seconds, the median and the quartiles over the rounds.
        ratio: the median over the rounds of its time by the baseline's in the same round.
        interval: the 95% interval of `ratio`, by bootstrap over the rounds.
        rounds: how often it ran.
        seconds: of every round.
    """

    median: float
    lower: float
    upper: float
    ratio: float
    interval: tuple[float, float]
    rounds: int
    seconds: list[float]


def compare(
    variants: Mapping[str, Callable[[], Any]],
    baseline: str,
    *,
    rounds: int = 20,
    max_seconds: float | None = None,
    warm_up: int = 2,
    seed: int = 0,
    control: Callable[[], Any] | None = None,
) -> dict[str, Timing]:
    """Times variants side by side.

    Args:
        variants: functions without arguments that return when their work is done.
        baseline: the name of the one that the others are compared with.
        rounds: how often each runs.
        max_seconds: no new round begins after this time, but three are always made.
        warm_up: how often each runs before, untimed.
        seed: of the order within rounds.
        control: a second copy of the baseline, with data of its own; by default the baseline is
            called twice in each round, which leaves what it reads in the caches more often than
            what others read.

    Returns:
        A `Timing` for each variant, and for `CONTROL`, the baseline once more.

    Raises:
        ValueError: for a baseline that is no variant, and a variant with the control's name.
    """
    if CONTROL in variants or baseline not in variants:
        raise ValueError(
            f"`baseline` must be one of the variants, and none may be called {CONTROL!r}. "
            f"Received: baseline={baseline!r}, variants {list(variants)}"
        )
    runs = {**variants, CONTROL: variants[baseline] if control is None else control}
    for run in runs.values():
        for _ in range(warm_up):
            run()
    random = np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    for done in range(rounds):
        is_late = max_seconds is not None and time.perf_counter() - begun > max_seconds
        if done >= 3 and is_late:
            break
        for name in random.permutation(list(runs)):
            started = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: _timing(np.array(s), np.array(seconds[baseline])) for name, s in seconds.items()}


def _timing(seconds: np.ndarray, baseline: np.ndarray) -> Timing:
    ratios = seconds / baseline
    draws = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    lower, median, upper = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Timing(
        float(median),
        float(lower),
        float(upper),
        float(np.median(ratios)),
        (float(low), float(high)),
        len(seconds),
        seconds.tolist(),
    )


@dataclasses.dataclass(frozen=True)
class ProcessRun:
    """What a function did in a process of its own.

    Attributes:
        result: what it returned.
        peak_bytes: the most memory that the process held beyond what it held after importing the
            function's module.
        seconds: wall time of the call.
    """

    result: Any
    peak_bytes: int
    seconds: float


def run_alone(function: str, timeout: float = 600.0, **arguments: Any) -> ProcessRun:
    """Calls a function in a fresh process, and measures its memory.

    Args:
        function: "module:name" of an importable function.
        timeout: seconds after which the process is stopped.
        **arguments: what it is called with; they and the result must go through JSON.

    Raises:
        RuntimeError: if the process fails or takes too long, with the end of what it wrote.
    """
    command = [sys.executable, "-m", "benchmarks.harness", function, json.dumps(arguments)]
    root = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")[-2000:]
        raise RuntimeError(
            f"{function}({arguments}) took more than {timeout} seconds. {said}"
        ) from error
    if done.returncode != 0:
        raise RuntimeError(
            f"{function}({arguments}) ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return ProcessRun(**json.loads(done.stdout.splitlines()[-1]))


def _serve(function: str, arguments: str) -> None:
    """The other side of `run_alone`."""
    module, name = function.split(":")
    called = getattr(importlib.import_module(module), name)
    # What was held while importing does not count.
    forget_peak()
    before = resident_bytes()
    started = time.perf_counter()
    result = called(**json.loads(arguments))
    seconds = time.perf_counter() - started
    peak = peak_bytes() - before
    print(json.dumps({"result": result, "peak_bytes": peak, "seconds": seconds}))


def resident_bytes() -> int:
    """The memory that this process holds."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that this process has held, since `forget_peak` where that was called."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Sets the high-water mark of memory to what is held now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def give_back_memory() -> None:
    """Gives back to the system what the process holds and no longer uses, where it can."""
    gc.collect()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def machine() -> dict[str, str]:
    """The machine and the versions that a result depends on; nothing that names its owner."""
    import keras
    import tensorflow as tf

    import keras_grow

    cpu_info = pathlib.Path("/proc/cpuinfo")
    cpu = platform.processor()
    if cpu_info.exists():
        names = [line for line in cpu_info.read_text().splitlines() if "model name" in line]
        cpu = names[0].split(":")[1].strip() if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "unknown")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "gpu": ", ".join(gpus) or "none",
        "system": platform.system(),
        "versions": f"Python {platform.python_version()}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}, NumPy {np.__version__}, keras_grow {keras_grow.__version__}",
        "date": time.strftime("%Y-%m-%d"),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; all but the first column are set to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write(
    name: str,
    title: str,
    text: Sequence[str],
    data: Any,
    command: str,
    folder: pathlib.Path = RESULTS,
) -> None:
    """Writes `<name>.md` and `<name>.json`, with the machine and the command that made them.

    Args:
        name: of the files.
        title: the heading.
        text: paragraphs and tables, in Markdown.
        data: what the tables were made of, for JSON.
        command: how to make the numbers again.
        folder: where to write.
    """
    where = machine()
    folder.mkdir(parents=True, exist_ok=True)
    record = {"command": command, "machine": where, "data": data}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    facts = f"Made by `{command}` on {where['date']}: {where['cpu']}; GPU: {where['gpu']}; "
    parts = [f"# {title}", *text, facts + where["versions"] + "."]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n")


def log_log_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: pathlib.Path,
    x_label: str,
    y_label: str,
    title: str,
) -> dict[str, float]:
    """Draws y against x on logarithmic axes, and fits an exponent to each curve.

    Args:
        curves: positive x and y by name, six at most.
        path: the PNG to write.
        x_label, y_label: with units.
        title: what is shown.

    Returns:
        The exponent of each curve, by least squares on the logarithms.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.subplots()
    exponents = {}
    for (name, (x, y)), (color, marker, line) in zip(
        curves.items(), _STYLES[: len(curves)], strict=True
    ):
        exponents[name] = float(np.polyfit(np.log(x), np.log(y), 1)[0])
        label = f"{name}, exponent {exponents[name]:.2f}"
        axis.loglog(x, y, color=color, marker=marker, linestyle=line, label=label)
    axis.set(xlabel=x_label, ylabel=y_label, title=title)
    # Powers of ten alone would leave most of these axes without a label.
    measured = sorted({value for x, _ in curves.values() for value in x})
    axis.set_xticks(measured, [f"{value:,}" for value in measured])
    axis.set_xticks([], minor=True)
    axis.grid(which="both", alpha=0.25)
    figure.legend(loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return exponents


if __name__ == "__main__":
    _serve(*sys.argv[1:])
