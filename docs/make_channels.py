"""Draws how many channels of a network like MobileNetV2 go, layer by layer, with half its FLOPs.

    TFDS_DATA_DIR=DIR python docs/make_channels.py

The network of the study of channels (`benchmarks.cifar`: mobile, pruned to half, seed 0) trains on
CIFAR-10; about ten minutes of a core. It writes docs/channels.png. `--quick` trains a little on
random images.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
from matplotlib.figure import Figure

from benchmarks.cifar_data import Problem, cifar10, random_images
from benchmarks.cifar_networks import NETWORKS
from benchmarks.cifar_training import PRUNED, Run
from benchmarks.harness import COLORS

HERE = pathlib.Path(__file__).parent
NETWORK, SEED, RATE, EPOCHS = "mobile", 0, 0.2, 15  # The rate that the study chose.
_CELLS = 48  # Of a row; wider layers take more rows.


def widths(model: keras.Model) -> dict[str, int]:
    """The channels of each convolution but depthwise ones, whose channels are their inputs'."""
    convolutions = [each for each in model.layers if isinstance(each, keras.layers.Conv2D)]
    return {layer.name: layer.filters for layer in convolutions}


def draw(before: dict[str, int], after: dict[str, int], path: pathlib.Path) -> None:
    """A square for each channel, those that stayed first; those that went are empty."""
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axis = figure.subplots()
    labels, row = {}, 0
    for name, count in before.items():
        first = row
        kept, gone = range(after[name]), range(after[name], count)
        for places, word, color in ((kept, "stayed", COLORS[0]), (gone, "gone", "none")):
            axis.scatter(
                [place % _CELLS for place in places],
                [first + place // _CELLS for place in places],
                s=52,
                marker="s",
                facecolor=color,
                edgecolor="#999999" if color == "none" else color,
                linewidth=0.8,
                label=word if first == 0 else None,
            )
        row = first + -(-count // _CELLS)
        labels[(first + row - 1) / 2] = f"{name}: {after[name]} of {count}"
        row += 0.6
    axis.set_yticks(list(labels), labels.values())
    axis.set_xticks([])
    axis.invert_yaxis()
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(left=False)
    axis.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Trains the network and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, default=HERE)
    arguments = parser.parse_args(argv)
    problem: Problem = random_images() if arguments.quick else cifar10()
    run = Run(NETWORK, PRUNED, SEED, RATE, 3 if arguments.quick else EPOCHS, problem)
    run.train()
    make, *sizes = NETWORKS[NETWORK]
    before = widths(make(*sizes))
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(before, widths(run.model), arguments.output / "channels.png")
    if not arguments.quick:
        record = run.record(is_choice=False)
        print({name: record[name] for name in ("test", "flops", "parameters")})


if __name__ == "__main__":
    main()
