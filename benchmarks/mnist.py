"""NeST's table on MNIST: networks grown and pruned, beside growth at random and a dense start.

    python -m benchmarks.mnist lenet_300_100 --data-dir DIR
    python -m benchmarks.mnist lenet_5 --seeds 0 --data-dir DIR

All 60,000 training images are used and the last epoch of each stage counts. `--validate` trains on
the first 50,000 and reports the error on the other 10,000, to choose a recipe
(`mnist_training.RECIPES`). Runs are kept under `output/` as they finish, so that an interrupted
benchmark goes on where it stopped; `--scratch` names another folder.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
from typing import Any

import numpy as np

from benchmarks import harness

STARTS = {
    "grown": "grown by the gradient",
    "exchanged": "the same, dropped and grown in the stages",
    "random": "grown at random",
    "dense": "dense start",
}
KINDS = {
    "lenet_300_100": [
        ("grown", True),
        ("exchanged", True),
        ("random", True),
        ("dense", True),
        ("dense", False),
    ],
    "lenet_5": [("grown", True)],
}
TITLES = {"lenet_300_100": "LeNet-300-100 on MNIST", "lenet_5": "LeNet-5 on MNIST"}
ABOUT = {
    "lenet_300_100": "For each seed, networks train from three starts through the same epochs: a "
    "seed of 10% of the connections that grows by the gradient to 30%, one that grows at random, "
    "and a dense network; all are then pruned in the same stages, in which a network of the first "
    "kind also drops and grows connections (RigL, 30% at first). They see eight copies of each "
    "image, seven of them distorted a little (`mnist_data`); the dense one is trained on the plain "
    "images too, with more dropout and weight decay. All 60,000 training images are used, and the "
    "last epoch of each stage counts. Weight decay, dropout and the strength of distortion were "
    "chosen on the last 10,000 training images. Test images were evaluated once for each network "
    "and stage, and before that for two networks of a recipe with shorter stages.",
    "lenet_5": "A LeNet-5 of half the widths (10 and 25 maps of 5 x 5, 250 units), as NeST starts "
    "from fewer maps, grows by the gradient from 10% of its connections to 50% and is pruned in "
    "stages; then areas are pruned (Policy 5) in six rounds of 8% of every pair of maps, with two "
    "epochs of training after each. It sees eight copies of each image, seven of them distorted a "
    "little. All 60,000 training images are used, and the last epoch of each stage counts. The "
    "recipe is that of LeNet-300-100 and was not tuned; test images were evaluated once for each "
    "stage.",
}


def collect(
    network: str, kinds: list, seeds: list[int], arguments: argparse.Namespace
) -> dict[tuple[str, bool], list[dict]]:
    """The result of every run, by start and data, in the order of the seeds."""
    folder = arguments.scratch / ("validation" if arguments.validate else "test")
    folder.mkdir(parents=True, exist_ok=True)

    def run(start: str, is_distorted: bool, seed: int) -> dict:
        data = "distorted" if is_distorted else "plain"
        kept = folder / f"{network}-{start}-{data}-{seed}.json"
        if not kept.exists():
            done = harness.run_alone(
                "benchmarks.mnist_training:train",
                timeout=4 * 3600,
                network=network,
                start=start,
                is_distorted=is_distorted,
                seed=seed,
                data_dir=arguments.data_dir,
                cache=str(arguments.scratch),
                is_validation=arguments.validate,
                num_threads=max(1, (os.cpu_count() or 1) // arguments.workers),
                **arguments.changes,
            )
            result = {"seed": seed, "peak_bytes": done.peak_bytes, **done.result}
            kept.write_text(json.dumps(result))
            last = result["stages"][-1]
            print(f"{kept.stem}: {last['error']}% at {last['weights']:,}, {done.seconds:.0f} s")
        return json.loads(kept.read_text())

    jobs = [(*kind, seed) for seed in seeds for kind in kinds]
    with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(lambda job: run(*job), jobs))
    return {
        kind: [result for job, result in zip(jobs, results, strict=True) if job[:2] == kind]
        for kind in kinds
    }


def errors_table(runs: dict) -> str:
    """Mean error, and each seed's, by start and stage."""
    stages = next(iter(runs.values()))[0]["stages"][1:]
    rows = []
    for (start, is_distorted), results in runs.items():
        cells = []
        for i in range(1, len(stages) + 1):
            errors = [result["stages"][i]["error"] for result in results]
            each = ", ".join(f"{error:.2f}" for error in errors)
            cells.append(f"**{statistics.mean(errors):.2f}** ({each})")
        rows.append([STARTS[start], "distorted" if is_distorted else "plain", *cells])
    header = ["start", "images", *_names(stages)]
    return harness.table(header, rows)


def _names(stages: list[dict]) -> list[str]:
    """What each stage left: weights, or, where they stayed as many, areas."""
    names = []
    for i, stage in enumerate(stages):
        is_of_areas = i > 0 and stage["weights"] == stages[i - 1]["weights"]
        names.append(f"{stage['weights']:,} weights" + (", partial areas" if is_of_areas else ""))
    return names


def costs_table(runs: dict) -> str:
    """What each start costs until a stage's end: training, peak, biases and wall time."""
    rows = []
    for (start, is_distorted), results in runs.items():
        for i in range(1, len(results[0]["stages"])):
            stages = [result["stages"][i] for result in results]

            def mean(name, stages=stages):
                return statistics.mean(stage[name] for stage in stages)

            rows.append(
                [
                    STARTS[start],
                    "distorted" if is_distorted else "plain",
                    _names(results[0]["stages"])[i],
                    f"{mean('biases'):.0f}",
                    f"{mean('flops'):,.0f}",
                    f"{mean('scaled_flops'):,.0f}",
                    f"{mean('error'):.2f}",
                    f"{mean('epochs'):.0f}",
                    f"{mean('cost'):.1f}",
                    f"{mean('peak'):,.0f}",
                    f"{mean('seconds'):.0f}",
                ]
            )
    header = ["start", "images", "stage", "living biases", "FLOPs", "FLOPs x input density"]
    header += ["error, %", "epochs"]
    header += ["cost, dense epochs", "peak weights", "seconds"]
    return harness.table(header, rows)


def draw_costs(runs: dict, weights: list[int], path: pathlib.Path) -> None:
    """Error against the cost of training and against the peak, each seed a point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    styles = zip(("#0072B2", "#56B4E9", "#D55E00", "#009E73"), ("o", "D", "s", "^"), strict=True)
    distorted = {start: results for (start, is_distorted), results in runs.items() if is_distorted}
    for (start, results), (color, marker) in zip(distorted.items(), styles):
        for size, fill in zip(weights, ("full", "none")):
            points = [
                stage
                for result in results
                for stage in result["stages"]
                if stage["weights"] == size
            ]
            for axis, name in zip(axes, ("cost", "peak"), strict=True):
                axis.plot(
                    [point[name] for point in points],
                    [point["error"] for point in points],
                    marker,
                    color=color,
                    fillstyle=fill,
                    label=f"{STARTS[start]}, {size:,} weights",
                )
    axes[0].set(xlabel="cost of training, epochs of the dense network", ylabel="test error, %")
    axes[1].set(xlabel="most active weights on the way", xscale="log")
    for axis in axes:
        axis.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def grown_by_place(results: list[dict]) -> tuple[np.ndarray, float, float]:
    """Grown connections per pixel as an image, and their means in the center and the border.

    The center is 14 x 14 pixels, the border the outer four (NeST, figure 3).
    """
    image = np.mean([result["grown_per_pixel"] for result in results], axis=0).reshape(28, 28)
    is_border = np.ones((28, 28), bool)
    is_border[4:-4, 4:-4] = False
    return image, float(image[7:21, 7:21].mean()), float(image[is_border].mean())


def draw_grown(image: np.ndarray, path: pathlib.Path) -> None:
    """Grown connections per pixel."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(image, cmap="cividis", vmin=0)
    for corner, side in ((6.5, 14), (3.5, 20)):
        axis.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor="white"))
    axis.set(xlabel="pixel column", ylabel="pixel row", title="Connections grown by the gradient")
    figure.colorbar(drawn, label="grown connections per pixel")
    figure.savefig(path, dpi=120)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=KINDS)
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--validate", action="store_true", help="report on training images")
    parser.add_argument("--workers", type=int, default=2, help="networks trained at a time")
    parser.add_argument("--changes", type=json.loads, default={}, help="of the recipe, as JSON")
    parser.add_argument("--scratch", type=pathlib.Path, default=pathlib.Path("output/mnist"))
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Trains what is not there yet, and writes the tables and figures."""
    arguments = parse_arguments(argv)
    network = arguments.network
    runs = collect(network, KINDS[network], arguments.seeds, arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    text: list[Any] = [
        ABOUT[network],
        "Error in percent at the last epoch of a stage: the mean, and each seed's. Weights are "
        "those of kernels; biases of units with an active input are counted beside them.",
        errors_table(runs),
        "## Cost",
        "Means over the seeds. Cost counts active weights x images, dense gradients of growth "
        "included, in epochs of the dense network; seconds are those of training with one thread "
        "beside another such run, which held at most "
        f"{max(r.get('peak_bytes', 0) for results in runs.values() for r in results) / 2**30:.1f} "
        "GiB beyond its imports.",
        costs_table(runs),
    ]
    if len(runs) > 1:
        figure = arguments.output / f"{network}_cost.png"
        sizes = [stage["weights"] for stage in runs[("grown", True)][0]["stages"][1:]]
        draw_costs(runs, [sizes[len(sizes) // 3], sizes[-2]], figure)
        text.append(f"![error against cost]({figure.name})")
    if network == "lenet_300_100":
        image, center, border = grown_by_place(runs[("grown", True)])
        figure = arguments.output / f"{network}_grown.png"
        draw_grown(image, figure)
        text += [
            "## Where connections grow",
            f"A pixel of the central 14 x 14 got {center:.1f} connections by growth, one of the "
            f"outer four rows and columns {border:.2f}: "
            + (f"{center / border:.0f} to 1." if border else "none at all."),
            f"![grown connections per pixel]({figure.name})",
        ]
    data = [
        {
            "start": start,
            "is_distorted": is_distorted,
            # The picture shows what grew where; as a list it would fill pages.
            "runs": [{k: v for k, v in r.items() if k != "grown_per_pixel"} for r in results],
        }
        for (start, is_distorted), results in runs.items()
    ]
    what = "validation error" if arguments.validate else "test error"
    seeds = " ".join(map(str, arguments.seeds))
    command = f"python -m benchmarks.mnist {network} --seeds {seeds}"
    harness.write(network, f"{TITLES[network]}: {what}", text, data, command, arguments.output)


if __name__ == "__main__":
    main()
