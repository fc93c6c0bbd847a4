"""One network on MNIST through one course: grown or dense, then pruned stage by stage."""

import dataclasses
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks import mnist_data


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        network: a name in `NETWORKS`.
        widths: the units, or feature maps, of the hidden layers.
        stages: of pruning: the weights to reach, epochs of pruning, epochs of retraining.
        seed_density, grown_density: where growth starts and ends.
        growth_epochs: how long it takes; a dense start trains as long.
        batch_size: samples per step.
        learning_rate: of Adam, until pruning, when it falls along a cosine in each stage.
        weight_decay: the factor of an L2 penalty on the weights.
        input_dropout: the share of input pixels dropped.
        num_copies: how many copies of each image, distorted but for the first.
        num_growth_images: on how many images growth measures gradients.
        epoch_size: images per epoch, all by default.
        sparse_below: the density from which on the network trains as one of sparse layers;
            a step that costs what is active is the faster one there.
        area_rounds, area_share, area_epochs: of pruning the areas of convolutions after the last
            stage: how often, the share of a map each time, and epochs of training after each.
        exchanged: the share of connections that an "exchanged" start drops and grows at the first
            epoch of a stage; it falls to 0 along a cosine with half of the retraining.
    """

    network: str
    widths: tuple[int, ...]
    stages: tuple[tuple[int, int, int], ...]
    seed_density: float = 0.1
    grown_density: float = 0.3
    growth_epochs: int = 9
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 2e-5
    input_dropout: float = 0.03
    num_copies: int = 8
    num_growth_images: int = 10_000
    epoch_size: int | None = None
    sparse_below: float = 0.1
    area_rounds: int = 0
    area_share: float = 0.08
    area_epochs: int = 2
    exchanged: float = 0.3


def _lenet_300_100(recipe: Recipe, options: dict) -> list[keras.Layer]:
    hidden = [keras_grow.GrowableDense(units, "relu", **options) for units in recipe.widths]
    return [
        keras.Input((784,)),
        keras.layers.Dropout(recipe.input_dropout),
        *hidden,
        keras_grow.GrowableDense(10, **options),
    ]


def _lenet_5(recipe: Recipe, options: dict) -> list[keras.Layer]:
    first, second, units = recipe.widths
    return [
        keras.Input((784,)),
        keras.layers.Dropout(recipe.input_dropout),
        keras.layers.Reshape((28, 28, 1)),
        keras_grow.GrowableConv2D(first, 5, activation="relu", **options),
        keras.layers.MaxPooling2D(),
        keras_grow.GrowableConv2D(second, 5, activation="relu", **options),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras_grow.GrowableDense(units, "relu", **options),
        keras_grow.GrowableDense(10, **options),
    ]


NETWORKS = {"lenet_300_100": _lenet_300_100, "lenet_5": _lenet_5}

# Drawn anew for each exchange.
EXCHANGE_IMAGES = 1000

# Images that are not distorted call for more regularization.
PLAIN = {"input_dropout": 0.15, "weight_decay": 1e-4}

RECIPES = {
    "lenet_300_100": Recipe(
        "lenet_300_100",
        widths=(300, 100),
        stages=(
            (15_000, 8, 6),
            (7_800, 12, 24),
            (3_800, 16, 40),
            (2_000, 14, 40),
        ),
    ),
    # Half of the widths, as NeST starts from fewer maps: a quarter of the time.
    "lenet_5": Recipe(
        "lenet_5",
        widths=(10, 25, 250),
        stages=((12_000, 5, 5), (5_800, 8, 16), (2_600, 10, 16)),
        area_rounds=6,
        growth_epochs=6,
        grown_density=0.5,
    ),
}


def build(recipe: Recipe, start: str) -> keras.Sequential:
    """A compiled network of growable layers: all dense, or at the density of the seed."""
    options = {
        "kernel_initializer": keras_grow.ActiveFanIn("he_normal"),
        "kernel_regularizer": keras.regularizers.L2(recipe.weight_decay),
        "initial_density": 1.0 if start == "dense" else recipe.seed_density,
    }
    network = keras.Sequential(NETWORKS[recipe.network](recipe, options))
    return _compiled(network, keras.optimizers.Adam(recipe.learning_rate))


def _compiled(network: keras.Sequential, optimizer: keras.Optimizer) -> keras.Sequential:
    network.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=39,
    )
    return network


def train(
    network: str,
    start: str,
    is_distorted: bool,
    seed: int,
    *,
    data_dir: str | None = None,
    cache: str | None = None,
    is_validation: bool = False,
    num_threads: int | None = None,
    keep: str | None = None,
    **changes: Any,
) -> dict:
    """Trains one network through all stages.

    Args:
        network: a name in `RECIPES`.
        start: "grown" by the gradient, "random" (grown at random), "dense", or "exchanged": grown
            by the gradient, and connections are dropped and grown in the stages.
        is_distorted: whether it sees distorted copies of the images.
        seed: of everything random.
        data_dir: where `tensorflow_datasets` keeps MNIST.
        cache: a folder for distorted copies.
        is_validation: trains on all but the last 10,000 training images and reports on these.
        num_threads: of TensorFlow, in a process that has not used it yet; by default its own.
        keep: a folder in which the network is saved after each stage, as `WEIGHTS.keras`.
        **changes: of the recipe.

    Returns:
        "stages": what was found at the end of growth, of each stage, and of the pruning of
        areas: weights, biases of living units, FLOPs, also scaled by the density of activations,
        error in percent, and so far: epochs, the most active weights, seconds, and
        the cost of training, which is active weights x images, growth's dense gradients included,
        in epochs of the dense network. "grown_per_pixel": how many connections each pixel got in
        growth.
    """
    changes = changes if is_distorted else {**PLAIN, **changes}
    recipe = dataclasses.replace(RECIPES[network], **changes)
    if num_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = mnist_data.load(data_dir)
    if is_validation:
        split = len(x) - mnist_data.NUM_VALIDATION
        (x, x_test), (y, y_test) = (x[:split], x[split:]), (y[:split], y[split:])
    num_images = len(x)
    if is_distorted:
        name = f"mnist_{num_images}_x{recipe.num_copies}.npy"
        cached = None if cache is None else pathlib.Path(cache) / name
        x = mnist_data.distorted_copies(x, recipe.num_copies, cached)
    epoch_size = num_images if recipe.epoch_size is None else recipe.epoch_size
    batches = mnist_data.training_batches(x, y, recipe.batch_size, epoch_size, seed)
    chosen = np.random.default_rng(seed).permutation(len(x))[: recipe.num_growth_images]
    growth_data = x[chosen].astype("float32") / 255, y[chosen % num_images]
    test = x_test.astype("float32") / 255, y_test

    model = build(recipe, start)
    num_connections = keras_grow.report(model).num_connections
    seed_inputs = _inputs_used(model)
    grown_inputs = None
    cost, peak, epochs, found = 0.0, 0, 0, []
    started = time.perf_counter()

    def look(training_accuracy: float) -> None:
        loss, accuracy = model.evaluate(*test, batch_size=1000, verbose=0)
        counted = keras_grow.report(model, (growth_data[0][:2000],))
        found.append(
            {
                "weights": counted.num_active,
                "biases": counted.num_parameters - counted.num_active,
                "flops": counted.flops,
                "scaled_flops": counted.scaled_flops,
                "error": round(100 * (1 - accuracy), 2),
                "loss": loss,
                "training_accuracy": training_accuracy,
                "epochs": epochs,
                "peak": peak,
                "cost": float(cost),
                "seconds": time.perf_counter() - started,
            }
        )
        if keep is not None:
            folder = pathlib.Path(keep)
            folder.mkdir(parents=True, exist_ok=True)
            model.save(folder / f"{counted.num_active}.keras")

    for course in _courses(recipe, start, num_connections, seed):
        has_masks = any(
            not layer.is_sparse
            for layer in keras_grow.growable_layers(model)
            if isinstance(layer, keras_grow.GrowableDense)
        )
        if has_masks and keras_grow.report(model).density < recipe.sparse_below:
            sparse = keras_grow.make_sparse(model)
            model = _compiled(sparse, keras_grow.convert_optimizer(model, sparse))
        record = keras_grow.synthesis.synthesize(
            model,
            batches,
            course,
            growth_data=growth_data,
            verbose=0,
            callbacks=_exchange(recipe, course, growth_data) if start == "exchanged" else (),
        )
        connections = record.history["connections"]
        epochs += len(connections)
        cost += sum(connections) * epoch_size / (num_connections * num_images)
        if start in ("grown", "exchanged"):
            num_growths = np.count_nonzero(record.history.get("grown_connections", []))
            num_exchanges = np.count_nonzero(record.history.get("exchanged_connections", []))
            measured = num_growths * len(chosen) + num_exchanges * EXCHANGE_IMAGES
            cost += measured / num_images
        peak = max(peak, record.peak_connections)
        if grown_inputs is None:
            grown_inputs = _inputs_used(model) - seed_inputs
        look(record.history["accuracy"][-1])
    if recipe.area_rounds:
        partial = keras_grow.areas.make_partial_area(model)
        model = _compiled(partial, keras_grow.convert_optimizer(model, partial))
        for step in range(recipe.area_rounds):
            keras_grow.areas.prune_areas(model, (growth_data[0][:2000],), share=recipe.area_share)
            # A gentler learning rate, which falls to 0 with the rounds.
            left = 1 - step / recipe.area_rounds
            model.optimizer.learning_rate = recipe.learning_rate * left / 4
            history = model.fit(batches, epochs=recipe.area_epochs, verbose=0).history
            epochs += recipe.area_epochs
            cost += recipe.area_epochs * found[-1]["weights"] / num_connections
        look(history["accuracy"][-1])
    return {"stages": found, "grown_per_pixel": grown_inputs.tolist()}


def _courses(recipe: Recipe, start: str, num_connections: int, seed: int):
    by_gradient, at_random = keras_grow.scores.GradientMagnitude(), keras_grow.scores.Random(seed)
    yield keras_grow.synthesis.Recipe(
        keras_grow.synthesis.GrowthPhase(
            1.0 if start == "dense" else recipe.grown_density,
            recipe.growth_epochs,
            score=at_random if start == "random" else by_gradient,
        )
    )
    for weights, pruning_epochs, retraining_epochs in recipe.stages:
        density = weights / num_connections
        # Dead neurons stay, so that weights are exactly those of the table.
        stage = keras_grow.synthesis.PruningStage(
            density, pruning_epochs, retraining_epochs, removes_dead_neurons=False
        )
        yield keras_grow.synthesis.Recipe(None, [stage])


def _exchange(
    recipe: Recipe, course: keras_grow.synthesis.Recipe, growth_data: Any
) -> list[keras.callbacks.Callback]:
    """Connections that go and come while a stage prunes, and in half of its retraining."""
    if not course.stages:
        return []
    stage = course.stages[-1]
    last = stage.pruning_epochs + stage.retraining_epochs // 2
    callback = keras_grow.DropAndGrowCallback(
        growth_data,
        fraction=keras.optimizers.schedules.CosineDecay(recipe.exchanged, last),
        when=keras_grow.Epochs(start=0, stop=last),
        meter=keras_grow.GradientMeter(num_samples=EXCHANGE_IMAGES, verbose=0),
    )
    return [callback]


def _inputs_used(model: keras.Model) -> np.ndarray:
    """How many active connections leave each input of the first growable layer."""
    layer = keras_grow.growable_layers(model)[0]
    indices, _ = layer.active_connections()
    *_, num_inputs, num_units = layer.kernel_shape
    return np.bincount(indices.numpy() // num_units % num_inputs, minlength=num_inputs)
