"""One training of a wide network whose hidden layers hold one connection in a hundred."""

import statistics
import time

import keras
import numpy as np

import keras_grow
from benchmarks import harness
from benchmarks.cifar_data import CLASSES, augmented

BATCH = 128
HIDDEN = 3
DENSITY = 0.01
FRACTION = 0.3
# The rest trains what came last.
SHARE_OF_EPOCHS = 0.75
NUM_GROWTH_IMAGES = 1000
# GraNet's, which starts denser and is pruned by and by.
START = 0.1

DENSE, AS_HEAVY, AS_FAST = "dense", "dense, as many weights", "dense, as much time"
# Where a sparse network is ahead of the dense one, this one is tuned further than all others.
DECAYED = "dense, more decay"
STATIC, SET, RIGL, CH2 = "static", "SET", "RigL", "CH2-L3n"
# What CH2-L3n starts from, left as it is.
CORRELATED = "static, correlated inputs"
SNFS, GRANET, CH3 = "SNFS", "GraNet", "CH3-L3p"
SHARED = "RigL, units in groups"
GROUP_SIZE = 32
DENSE_ARMS = (DENSE, AS_HEAVY, AS_FAST, DECAYED)


def _methods(seed: int) -> dict[str, keras_grow.sparse_training.Method]:
    of = keras_grow.sparse_training
    return {
        SET: of.SET(seed),
        RIGL: of.RigL(),
        SHARED: of.RigL(),
        CH2: of.CannistraciHebb(seed=seed),
        SNFS: of.SNFS(),
        GRANET: of.GraNet(),
        CH3: of.CannistraciHebb(keras_grow.statistics.CH3L3p(), seed=seed),
    }


def network(num_inputs: int, width: int, arm: str, seed: int) -> keras.Model:
    """Three hidden layers, sparse but for the dense arms, and a dense one for the classes.

    All are as wide as `width` says.
    """
    model = keras.Sequential([keras.Input((num_inputs,))])
    for number in range(HIDDEN):
        name = f"hidden{number}"
        if arm in DENSE_ARMS:
            layer = keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name=name)
        else:
            # GraNet's starts denser than a sparse layer would pay for.
            kind = keras_grow.GrowableDense if arm == GRANET else keras_grow.SparseDense
            groups = {"group_size": GROUP_SIZE} if arm == SHARED else {}
            layer = kind(
                width,
                "relu",
                initial_density=START if arm == GRANET else DENSITY,
                kernel_initializer=keras_grow.ActiveFanIn("he_normal"),
                seed=10 * seed + number,
                name=name,
                **groups,
            )
        model.add(layer)
    model.add(keras.layers.Dense(CLASSES, name="logits"))
    return model


def num_weights(num_inputs: int, width: int, density: float) -> int:
    """Weights of hidden layers at a density, and of the dense last one."""
    hidden = num_inputs * width + (HIDDEN - 1) * width**2
    return round(density * hidden) + CLASSES * width


def width_as_heavy(num_inputs: int, width: int) -> int:
    """The widest dense network with at most as many weights as the sparse one of some width."""
    most = num_weights(num_inputs, width, DENSITY)
    return max(w for w in range(1, width + 1) if num_weights(num_inputs, w, 1.0) <= most)


def width_as_fast(num_inputs: int, width: int, seed: int) -> int:
    """The widest dense network, a multiple of 32, whose step takes as long as the sparse one's."""
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH, num_inputs)).astype("float32")
    y = random.integers(0, CLASSES, BATCH)

    def seconds(arm: str, wide: int) -> float:
        model = network(num_inputs, wide, arm, seed)
        compile_model(model, 0.01, 0.0)
        model.train_on_batch(x, y)
        times = []
        for _ in range(15):
            started = time.perf_counter()
            model.train_on_batch(x, y)
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    limit, low, high = seconds(RIGL, width), 1, max(2, width // 32)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(DENSE, 32 * middle) <= limit else (low, middle)
    return 32 * low


def memory(num_inputs: int, width: int, arm: str, seed: int) -> int:
    """What a network holds once compiled, at the peak of a step or exchange, in bytes.

    Counted is what goes beyond a process in which one of the same kind, but few units, was trained:
    that has TensorFlow's own, and XLA's compiler. It trains on random images.
    """
    random = np.random.default_rng(0)
    x = random.normal(size=(NUM_GROWTH_IMAGES, num_inputs)).astype("float32")
    y = random.integers(0, CLASSES, len(x))

    def compiled(wide: int) -> tuple[keras.Model, list[keras.callbacks.Callback]]:
        model = network(num_inputs, wide, arm, seed)
        compile_model(model, 0.01, 0.0)
        exchange = _exchange(arm, seed, 6, (x, y))
        model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0, callbacks=exchange)
        return model, exchange

    compiled(GROUP_SIZE)
    harness.give_back_memory()
    before = harness.resident_bytes()
    model, exchange = compiled(width)
    harness.give_back_memory()
    harness.forget_peak()
    model.fit(x, y, batch_size=BATCH, initial_epoch=3, epochs=5, verbose=0, callbacks=exchange)
    return harness.peak_bytes() - before


def compile_model(model: keras.Model, learning_rate: object, weight_decay: float) -> None:
    """SGD with Nesterov momentum on logits."""
    optimizer = keras.optimizers.SGD(
        learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def train(
    problem: str,
    arm: str,
    seed: int,
    epochs: int,
    setting: dict[str, float],
    width: int,
    is_choice: bool,
) -> dict:
    """Trains a network in this process.

    Args:
        problem: "mnist" or "cifar10"; "random" is a quick run's.
        arm: which network, changed how.
        seed: of weights, data and draws.
        epochs: how many.
        setting: `rate` at the start, which falls to 0 by a cosine, and `decay` of weights.
        width: of the sparse network's hidden layers.
        is_choice: whether the test is left alone.
    """
    from benchmarks.wide_data import load

    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    data = load(problem)
    (x, y), num_inputs = data.train, int(np.prod(data.train[0].shape[1:]))
    wide = width
    if arm == AS_HEAVY:
        wide = width_as_heavy(num_inputs, width)
    elif arm == AS_FAST:
        wide = width_as_fast(num_inputs, width, seed)
    model = network(num_inputs, wide, arm, seed)
    if arm in (CH2, CH3, CORRELATED):
        own_inputs = keras_grow.seeds.CorrelatedInputs(scaled(x[:5000]), seed)
        keras_grow.reseed(model, own_inputs, layers=["hidden0"])
    steps = epochs * -(-len(x) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(setting["rate"], steps)
    compile_model(model, schedule, setting["decay"])
    started, busy = time.perf_counter(), time.process_time()
    exchanging, last = 0.0, round(SHARE_OF_EPOCHS * epochs)
    callbacks = _exchange(arm, seed, last, (scaled(x), y))
    for epoch in range(epochs):
        images = augmented(x, random) if problem == "cifar10" else x
        logs = model.fit(
            scaled(images),
            y,
            batch_size=BATCH,
            epochs=epoch + 1,
            initial_epoch=epoch,
            verbose=0,
            callbacks=callbacks,
        ).history
        exchanging += logs.get("exchange_seconds", [0.0])[0]
        if not np.isfinite(logs["loss"][0]):
            break  # It has diverged, and is no better than chance.
    seconds, busy = time.perf_counter() - started, time.process_time() - busy

    def accuracy(split: tuple[np.ndarray, np.ndarray]) -> float:
        logits = model.predict(scaled(split[0]), batch_size=500, verbose=0)
        return float(np.mean(np.argmax(logits, -1) == split[1]))

    record = {
        "train": accuracy((x[:5000], y[:5000])),
        "validation": accuracy(data.validation),
        "width": wide,
        "weights": _weights(model),
        "seconds": seconds,
        "processor_seconds": busy,
        "exchange_seconds": exchanging,
        "images": len(x),
        "num_inputs": num_inputs,
    }
    return record if is_choice else record | {"test": accuracy(data.test)}


def scaled(images: np.ndarray) -> np.ndarray:
    """Rows of numbers from -1 to 1."""
    return images.reshape(len(images), -1).astype("float32") / 127.5 - 1


def _exchange(arm: str, seed: int, last: int, data: tuple) -> list[keras.callbacks.Callback]:
    method = _methods(seed).get(arm)
    if method is None:
        return []
    density = None
    if arm == GRANET:
        density = keras.optimizers.schedules.PolynomialDecay(START, last - 1, DENSITY, power=3)
    callback = keras_grow.DropAndGrowCallback(
        data,
        fraction=keras.optimizers.schedules.CosineDecay(FRACTION, last),
        density=density,
        when=keras_grow.Epochs(stop=last),
        method=method,
        meter=keras_grow.GradientMeter(num_samples=NUM_GROWTH_IMAGES, seed=seed, verbose=0),
    )
    return [callback]


def _weights(model: keras.Model) -> int:
    total = 0
    for layer in model.layers:
        is_growable = isinstance(layer, keras_grow.Growable)
        total += layer.num_active if is_growable else int(np.prod(layer.kernel.shape))
    return total
