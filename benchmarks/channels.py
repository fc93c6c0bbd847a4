"""Networks whose channels are pruned to a share of their FLOPs: how fast their files are.

    python -m benchmarks.channels

makes each network of `benchmarks/networks.py` and what is left of it, exports them by the same
calls, and times the files side by side: a SavedModel, LiteRT and ONNX, at batch 1 and 8, with one
thread and two, in a process of its own for each. It takes about an hour; `--networks` says which
are measured, beside those that were before, and `--quick` measures little. The networks are not
trained: it is their speed that is measured, beside the dense one's, and beside the share of FLOPs
that is left.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

import keras_grow
from benchmarks import harness
from benchmarks.networks import NETWORKS
from keras_grow.neurons.budgets import Sizes
from keras_grow.structure.unit_graph import UnitGraph

COMMAND = "python -m benchmarks.channels"
SHARES = (0.5, 0.3)
# The number of units that a group keeps is a multiple of the first of these that will do.
MULTIPLES = (16, 8, 1)
_FACTS = ("network, format", "batch", "threads", "what")
DENSE = "dense"


def saved_model(path: str, inputs: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of a SavedModel; TensorFlow has the threads that `timed` gave it."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    function = loaded.signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    tensor = tf.constant(inputs)

    def call(keep: Any = loaded) -> Any:  # TensorFlow drops the weights with what was loaded.
        (output,) = function(**{name: tensor}).values()
        return output.numpy()

    return call


def litert(path: str, inputs: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=threads).get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    return lambda: runner(**{name: inputs})


def onnx(path: str, inputs: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda: session.run(None, {given.name: inputs})


FORMATS: dict[str, tuple[Callable[..., Any], Callable[..., Callable[[], Any]]]] = {
    "SavedModel": (keras_grow.export_saved_model, saved_model),
    "LiteRT": (keras_grow.export_litert, litert),
    "ONNX": (keras_grow.export_onnx, onnx),
}


def pruned(
    model: keras.Model, samples: np.ndarray, shares: Sequence[float]
) -> dict[str, keras.Model]:
    """A network, and what is left of it at each share of its FLOPs, compact."""
    random = np.random.default_rng(0)
    for variable in model.weights:  # As if it were trained: no two channels are alike.
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    found = {DENSE: keras_grow.make_growable(model, verify=samples)}
    for share in shares:
        smaller = keras_grow.make_growable(model, verify=False)
        for multiple_of in MULTIPLES:
            try:
                keras_grow.prune_neurons(
                    smaller,
                    budget=keras_grow.budgets.FLOPs(share),
                    multiple_of=multiple_of,
                    score=keras_grow.neuron_scores.Relative(),
                    data=(samples,),
                )
                break
            except ValueError:  # The network is too narrow for such a multiple.
                continue
        compact = keras_grow.compact(smaller, verify=samples).model
        found[f"{share:.0%} of the FLOPs"] = compact
    return found


def flops(model: keras.Model) -> float:
    """What a budget of FLOPs counts of a model, for one sample."""
    graph = UnitGraph(model)
    whole = np.ones(graph.num_units, bool)
    return Sizes(graph).cost(whole, keras_grow.budgets.FLOPs(0.5))


def timed(form: str, folder: str, names: Sequence[str], batch: str, threads: int, seconds: float):
    """Times files of one format side by side; in a process of its own, see `harness.run_alone`."""
    tensorflow = importlib.import_module("tensorflow")
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    opened, inputs = FORMATS[form][1], np.load(batch)
    calls = {name: opened(_path(folder, form, name), inputs, threads) for name in names}
    control = opened(_path(folder, form, DENSE), inputs, threads)
    timings = harness.compare(calls, DENSE, rounds=400, max_seconds=seconds, control=control)
    found = {name: dataclasses.asdict(timing) for name, timing in timings.items()}
    for timing in found.values():
        del timing["seconds"]  # Of each round: six networks have too many of them.
    return found


def _path(folder: str, form: str, name: str) -> str:
    return str(pathlib.Path(folder, f"{form}, {name}"))


def measured(
    network: str,
    is_quick: bool,
    shares: Sequence[float],
    batches: Sequence[int],
    threads: Sequence[int],
    seconds: float,
) -> list[dict[str, Any]]:
    """A row for each format, size of a batch, number of threads and share."""
    make, *sizes = NETWORKS[network]
    keras.utils.set_random_seed(0)
    model, batch_of = make(sizes[is_quick])
    models = pruned(model, batch_of(4), shares)
    left = {what: flops(each) / flops(models[DENSE]) for what, each in models.items()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in batches:
            np.save(pathlib.Path(folder, f"{count}.npy"), batch_of(count))
        for form, (export, _) in FORMATS.items():
            num_bytes = {
                what: export(
                    each, _path(folder, form, what), data=(batch_of(4),), tolerance=1e-3
                ).num_bytes
                for what, each in models.items()
            }
            for batch in batches:
                for num_threads in threads:
                    timings = harness.run_alone(
                        "benchmarks.channels:timed",
                        form=form,
                        folder=folder,
                        names=list(models),
                        batch=str(pathlib.Path(folder, f"{batch}.npy")),
                        threads=num_threads,
                        seconds=seconds,
                    ).result
                    for what, timing in timings.items():
                        is_model = what in models
                        rows.append(
                            {
                                "network": network,
                                "size": sizes[is_quick],
                                "format": form,
                                "batch": batch,
                                "threads": num_threads,
                                "what": what,
                                "flops": left[what] if is_model else None,
                                "bytes": num_bytes.get(what),
                                "parameters": models[what].count_params() if is_model else None,
                                **timing,
                            }
                        )
    return rows


def _others(output: pathlib.Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of networks that were measured before, and are not now."""
    path = output / "channels.json"
    data = json.loads(path.read_text())["data"] if path.exists() else []
    is_new = all("size" in row for row in data)
    return [row for row in data if row["network"] not in names] if is_new else []


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS))
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)
    is_quick = arguments.quick
    seconds, shares = (0.5, SHARES[:1]) if is_quick else (10.0, SHARES)
    batches, threads = ((1,), (1,)) if is_quick else ((1, 8), (1, 2))
    names = arguments.networks or list(NETWORKS)[: 1 if is_quick else None]
    rows = _others(arguments.output, names)
    for name in names:
        print(f"-- {name}", flush=True)
        rows += measured(name, is_quick, shares, batches, threads, seconds)
    rows.sort(key=lambda row: list(NETWORKS).index(row["network"]))
    table = harness.table(
        [*_FACTS, "FLOPs", "latency", "95%", "ms", "MB", "rounds"],
        [
            [
                f"{row['network']}, {row['format']}",
                row["batch"],
                row["threads"],
                row["what"],
                "" if row["flops"] is None else f"{row['flops']:.3f}",
                f"**{row['ratio']:.3f}**",
                "{:.3f} to {:.3f}".format(*row["interval"]),
                f"{1000 * row['median']:.3g}",
                "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
                row["rounds"],
            ]
            for row in rows
        ],
    )
    every = dict.fromkeys(row["network"] for row in rows)
    sizes = ", ".join(f"{name} {NETWORKS[name][1 + is_quick]}" for name in every)
    text = [
        f"Networks of `benchmarks/networks.py` of these sizes (edge of the images, or length of "
        f"the text): {sizes}. Pruned by "
        "`prune_neurons(budget=FLOPs(share), multiple_of=16, score=Relative())` (8 or 1 where a "
        "network is too narrow for that) and made compact; "
        "files of one format interleaved in one process; FLOPs and latency are ratios to the dense "
        "network's, latency the median over rounds with its 95% interval. The control is a second "
        "copy of the dense one. They are not trained: what pruning costs in accuracy is not "
        "measured here. What is normalized over units (LayerNormalization) keeps them all, as of a "
        "transformer the width: its heads are too few for such a multiple, the dimensions of its "
        "queries, keys and values and the units in between go.",
        table,
    ]
    harness.write(
        "channels", "Networks whose channels are gone", text, rows, COMMAND, arguments.output
    )


if __name__ == "__main__":
    main()
