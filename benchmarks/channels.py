"""Published networks whose channels are pruned to a share of their FLOPs: how fast their files are.

    python -m benchmarks.channels

takes about ten minutes. The networks are not trained: it is their speed that is measured, beside
the dense one's, both exported by the same call. `--quick` measures little.
"""

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_grow
from benchmarks import harness

COMMAND = "python -m benchmarks.channels"
NETWORKS = ("MobileNetV2", "ResNet50")
SHARES = (0.5, 0.3)
DENSE = "dense"


def litert(path: pathlib.Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    return lambda: runner(**{name: images})


def onnx(path: pathlib.Path, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda: session.run(None, {given.name: images})


FORMATS = {
    "LiteRT": (keras_grow.export_litert, litert),
    "ONNX": (keras_grow.export_onnx, onnx),
}


def networks(name: str, size: int, shares: tuple[float, ...]) -> dict[str, keras.Model]:
    """A network and what is left of it at each share of its FLOPs, compact."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    random = np.random.default_rng(0)
    for variable in model.weights:  # As if it were trained: no two channels are alike.
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    images = random.normal(size=(4, size, size, 3)).astype("float32")
    found = {DENSE: keras_grow.make_growable(model, verify=images)}
    for share in shares:
        pruned = keras_grow.make_growable(model, verify=False)
        keras_grow.prune_neurons(
            pruned,
            budget=keras_grow.budgets.FLOPs(share),
            multiple_of=8,
            score=keras_grow.neuron_scores.Relative(),
            data=(images,),
        )
        found[f"{share:.0%} of the FLOPs"] = keras_grow.compact(pruned, verify=images).model
    return found


def measured(
    name: str, size: int, shares: tuple[float, ...], threads: tuple[int, ...], seconds: float
) -> list[dict]:
    """A row for each format, number of threads and share."""
    rows = []
    images = np.random.default_rng(1).normal(size=(1, size, size, 3)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        models = networks(name, size, shares)
        for form, (export, opened) in FORMATS.items():
            sizes = {}
            for what, model in models.items():
                path = pathlib.Path(folder, f"{form}-{what}")
                sizes[what] = export(model, path, data=(images,), tolerance=1e-3).num_bytes
            for count in threads:
                calls = {
                    what: opened(pathlib.Path(folder, f"{form}-{what}"), images, count)
                    for what in models
                }
                control = opened(pathlib.Path(folder, f"{form}-{DENSE}"), images, count)
                timings = harness.compare(
                    calls, DENSE, rounds=400, max_seconds=seconds, control=control
                )
                for what, timing in timings.items():
                    rows.append(
                        {
                            "network": name,
                            "format": form,
                            "threads": count,
                            "what": what,
                            "bytes": sizes.get(what),
                            "parameters": models[what].count_params() if what in models else None,
                            **dataclasses.asdict(timing),
                        }
                    )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    size, seconds = (32, 0.5) if arguments.quick else (224, 20.0)
    shares, threads = (SHARES[:1], (1,)) if arguments.quick else (SHARES, (1, 2))
    names = arguments.networks[:1] if arguments.quick else arguments.networks
    rows = [row for name in names for row in measured(name, size, shares, threads, seconds)]
    table = harness.table(
        ["network, format", "threads", "what", "ms", "by the dense one", "95%", "MB", "rounds"],
        [
            [
                f"{row['network']}, {row['format']}",
                row["threads"],
                row["what"],
                f"{1000 * row['median']:.3g}",
                f"**{row['ratio']:.3f}**",
                "{:.3f} to {:.3f}".format(*row["interval"]),
                "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
                row["rounds"],
            ]
            for row in rows
        ],
    )
    text = [
        f"Networks of keras.applications at {size} x {size}, pruned by "
        "`prune_neurons(budget=FLOPs(share), multiple_of=8, score=Relative())` and made compact, "
        "at batch 1; interleaved in one process, ratios to the dense network's file, medians over "
        "rounds with 95% intervals. The control is a second copy of the dense one. They are not "
        "trained: what pruning costs in accuracy is not measured here.",
        table,
    ]
    title = "Networks whose channels are gone"
    harness.write("channels", title, text, rows, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
