"""One training of a network on CIFAR-10: dense, pruned, grown, or narrow from the start."""

import contextlib
import math
import time

import keras
import numpy as np
import tensorflow as tf

import keras_grow
from benchmarks.cifar_data import Problem, Split, augmented, scaled
from benchmarks.cifar_networks import NETWORKS, flops, narrower

BATCH = 128
WEIGHT_DECAY = 1e-3
SHARE = 0.5  # Of the dense network's FLOPs.
NARROW = 0.2  # Of them, where growth starts.
# Changes fall behind these shares of the epochs.
MOMENTS = (0.1, 0.2, 0.3, 0.4)
NUM_GROWTH_IMAGES = 1000
CANDIDATES = 4

DENSE, PRUNED, GROWN, AT_RANDOM, NARROWER = (
    "dense",
    "pruned to half",
    "grown to half",
    "grown at random",
    "half as wide from the start",
)
ARMS = (DENSE, PRUNED, GROWN, NARROWER, AT_RANDOM)


class Run:
    """One training of a network, epoch by epoch.

    Args:
        name: of the network.
        arm: how it gets its channels.
        seed: of weights, data and choices.
        learning_rate: at the start; it falls to 0 by a cosine.
        epochs: of training.
        problem: the images; those of validation are for choices.
    """

    def __init__(
        self, name: str, arm: str, seed: int, learning_rate: float, epochs: int, problem: Problem
    ):
        keras.utils.set_random_seed(seed)
        self._random = np.random.default_rng(seed)
        self._name, self._arm, self._seed = name, arm, seed
        self._epochs, self._problem = epochs, problem
        make, widths, inner = NETWORKS[name]
        dense = make(widths, inner)
        self._whole = flops(dense)
        # What an even width leaves: all arms end with as many.
        self._goal = flops(narrower(name, SHARE)) / self._whole
        steps = epochs * math.ceil(len(problem.train[0]) / BATCH)
        self._optimizer = keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps),
            momentum=0.9,
            nesterov=True,
            weight_decay=WEIGHT_DECAY,
        )
        self._moments = [max(1, round(share * epochs)) for share in MOMENTS]
        if arm == NARROWER:
            self.model = narrower(name, SHARE)
        elif arm in (GROWN, AT_RANDOM):
            self.model = keras_grow.make_growable(narrower(name, NARROW), verify=False)
        else:
            self.model = dense
            if arm == PRUNED:
                self.model = keras_grow.make_growable(dense, verify=False)
        self._compile(self.model, self._optimizer)

    def train(self) -> dict[str, float]:
        """Trains it; returns what it took, changes and all.

        Seconds of processors do not pass while the process stands still, or waits for others.
        """
        started, busy = time.perf_counter(), time.process_time()
        for epoch in range(self._epochs):
            for number, moment in enumerate(self._moments):
                if moment == epoch:
                    self._change(number)
            x, y = self._problem.train
            order = self._random.permutation(len(x))
            data = tf.data.Dataset.from_tensor_slices((augmented(x, self._random)[order], y[order]))
            data = data.batch(BATCH).map(lambda a, b: (scaled(a), b)).prefetch(2)
            self.model.fit(data, epochs=epoch + 1, initial_epoch=epoch, verbose=0, shuffle=False)
        return {
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - busy,
        }

    def accuracy(self, split: Split) -> float:
        """The share of images that it knows."""
        logits = self.model.predict(scaled(split[0]), batch_size=500, verbose=0)
        return float(np.mean(np.argmax(logits, -1) == split[1]))

    def _compile(self, model: keras.Model, optimizer: keras.Optimizer) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        self.model = model

    def _growth_data(self) -> Split:
        at = self._random.choice(len(self._problem.train[0]), NUM_GROWTH_IMAGES)
        return scaled(self._problem.train[0][at]), self._problem.train[1][at]

    def _change(self, number: int) -> None:
        share = (number + 1) / len(MOMENTS)
        is_last = number == len(MOMENTS) - 1
        if self._arm == PRUNED:
            with contextlib.suppress(keras_grow.errors.NothingToChange):  # Went too far before.
                keras_grow.prune_neurons(
                    self.model,
                    budget=keras_grow.budgets.FLOPs(1 - share * (1 - self._goal)),
                    score=keras_grow.neuron_scores.Relative(keras_grow.neuron_scores.Taylor()),
                    data=self._growth_data(),
                )
        elif self._arm in (GROWN, AT_RANDOM):
            self._grow(NARROW + share * (SHARE - NARROW))
        if is_last and self._arm in (PRUNED, GROWN, AT_RANDOM):
            compaction = keras_grow.compact(self.model, verify=False)
            optimizer = keras_grow.convert_optimizer(self.model, compaction)
            self._compile(compaction.model, optimizer)
            plain = keras_grow.make_plain(self.model, verify=False)
            self._compile(plain, keras_grow.convert_optimizer(self.model, plain))

    def _grow(self, share: float) -> None:
        """Widens all groups alike to a share of the dense network's FLOPs; maps are born there."""
        wanted, born = narrower(self._name, share), {}
        for group in keras_grow.groups(self.model):
            layer = group.made_by[0].layer.name
            if group.why_fixed is None and wanted.get_layer(layer).filters > group.count:
                born[layer] = wanted.get_layer(layer).filters - group.count
        model = self.model
        for layer, count in born.items():
            units = model.get_layer(layer).filters + count
            model = keras_grow.widen(model, layer, units, verify=False)
        self._compile(model, keras_grow.convert_optimizer(self.model, model))
        data, meter = self._growth_data(), keras_grow.GradientMeter()
        for layer, count in born.items():
            keras_grow.grow_feature_maps(
                self.model,
                data,
                layer,
                count,
                candidates=CANDIDATES if self._arm == GROWN else 1,
                seed=self._seed,
                meter=meter,
            )

    def record(self, is_choice: bool) -> dict:
        """What is kept of it; the test is answered only where nothing is chosen by it."""
        x, y = self._problem.train
        record = {
            "network": self._name,
            "arm": self._arm,
            "seed": self._seed,
            "train": self.accuracy((x[:5000], y[:5000])),
            "validation": self.accuracy(self._problem.validation),
            "flops": flops(self.model) / self._whole,
            "parameters": self.model.count_params(),
        }
        return record if is_choice else record | {"test": self.accuracy(self._problem.test)}
