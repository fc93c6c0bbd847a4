"""NeST's study of the seed: how wide it starts, how long it grows, how small it ends.

    python -m benchmarks.seed_size --data-dir DIR

A LeNet-300-100 whose hidden widths are scaled by r, 10% of its connections active, grows by the
gradient until it classifies 97% of the validation images (the last 10,000 training images; the
first 50,000 train it), and is pruned stage by stage until retraining no longer brings 97.2% back.
Said of each r: the epochs of growth, the size after growth, and the final size: the smallest that
was accepted. One seed. Test images are evaluated once for each final network.
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import pathlib

import numpy as np

from benchmarks import harness

COMMAND = "python -m benchmarks.seed_size"
RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)
GROWN_ACCURACY, ACCEPTED_ACCURACY = 0.97, 0.972
# Densities rise by this share of all connections an epoch, and each stage leaves this share.
GROWTH_PER_EPOCH, SHRINKAGE = 0.04, 0.7
LEAST_WEIGHTS = 1500


def study(ratio: float, seed: int = 0, data_dir: str | None = None, epoch_size=None) -> dict:
    """The course of one seed."""
    import keras

    import keras_grow
    from benchmarks import mnist_data, mnist_training

    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = mnist_data.load(data_dir)
    split = len(x) - mnist_data.NUM_VALIDATION
    validation = x[split:].astype("float32") / 255, y[split:]
    x, y = x[:split], y[:split]
    recipe = mnist_training.RECIPES["lenet_300_100"]
    widths = tuple(round(ratio * width) for width in recipe.widths)
    recipe = dataclasses.replace(recipe, widths=widths)
    epoch_size = len(x) if epoch_size is None else epoch_size
    batches = mnist_data.training_batches(x, y, recipe.batch_size, epoch_size, seed)
    chosen = np.random.default_rng(seed).permutation(len(x))[: recipe.num_growth_images]
    growth_data = x[chosen].astype("float32") / 255, y[chosen]

    model = mnist_training.build(recipe, "grown")
    num_connections = keras_grow.report(model).num_connections
    most_epochs = 1 + round((1 - recipe.seed_density) / GROWTH_PER_EPOCH)
    growth = keras_grow.synthesis.GrowthPhase(
        1.0, most_epochs, until=lambda logs: logs["val_accuracy"] >= GROWN_ACCURACY
    )

    def course(part):
        options = {"growth_data": growth_data, "validation_data": validation, "verbose": 0}
        return keras_grow.synthesis.synthesize(model, batches, part, **options)

    (grown,) = course(keras_grow.synthesis.Recipe(growth)).phases
    sizes = itertools.takewhile(
        lambda size: size >= LEAST_WEIGHTS,
        (grown.num_active * SHRINKAGE**i for i in itertools.count(1)),
    )
    stages = [keras_grow.synthesis.PruningStage(size / num_connections, 3, 6) for size in sizes]
    pruned = course(
        keras_grow.synthesis.Recipe(
            None, stages, accept=lambda logs: logs["val_accuracy"] >= ACCEPTED_ACCURACY
        )
    )
    x_test = x_test.astype("float32") / 255
    _, accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    return {
        "ratio": ratio,
        "widths": widths,
        "connections": num_connections,
        "growth_epochs": grown.epochs,
        "grown": grown.num_active,
        "final": keras_grow.report(model).num_active,
        "test_error": round(100 * (1 - accuracy), 2),
        "stages": [(p.num_active, p.logs["val_accuracy"], p.is_accepted) for p in pruned.phases],
    }


def main(argv: list[str] | None = None) -> None:
    """Runs the study for each width, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where tensorflow_datasets keeps MNIST")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--epoch-size", type=int, help="images per epoch, by default all")
    parser.add_argument("--workers", type=int, default=2, help="networks trained at a time")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args(argv)

    def run(ratio: float) -> dict:
        done = harness.run_alone(
            "benchmarks.seed_size:study",
            timeout=3600,
            ratio=ratio,
            data_dir=arguments.data_dir,
            epoch_size=arguments.epoch_size,
        )
        result = {**done.result, "seconds": done.seconds}
        print(result, flush=True)
        return result

    with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        found = list(pool.map(run, arguments.ratios))
    rows = [
        [
            f"{row['ratio']:.1f}",
            "-".join(map(str, row["widths"])),
            f"{row['connections']:,}",
            row["growth_epochs"],
            f"{row['grown']:,}",
            f"{row['final']:,}",
            f"{row['test_error']:.2f}",
            f"{row['seconds']:.0f}",
        ]
        for row in found
    ]
    header = ["r", "hidden units", "connections", "epochs of growth", "weights after growth"]
    header += ["final weights", "test error, %", "seconds"]
    text = [" ".join(__doc__.split("\n\n")[2].split()), harness.table(header, rows)]
    harness.write("seed_size", "The width of the seed", text, found, COMMAND, arguments.output)


if __name__ == "__main__":
    main()
