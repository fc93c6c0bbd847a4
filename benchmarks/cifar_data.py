"""CIFAR-10 for the study of channels, and training images that are moved and mirrored."""

import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf

SIDE, CLASSES = 32, 10
# Images of the training set that choices are made on, the last ones; no network trains on them.
NUM_VALIDATION = 5000
Split = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Images and classes, for training, validation and test."""

    train: Split
    validation: Split
    test: Split


def cifar10() -> Problem:
    """CIFAR-10, as `tensorflow_datasets` prepares or finds it; uint8 images."""
    import tensorflow_datasets as tfds

    folder = os.environ.get("TFDS_DATA_DIR")
    found = [
        tfds.as_numpy(
            tfds.load("cifar10", split=split, data_dir=folder, batch_size=-1, as_supervised=True)
        )
        for split in ("train", "test")
    ]
    (x, y), test = found
    return Problem(
        (x[:-NUM_VALIDATION], y[:-NUM_VALIDATION]), (x[-NUM_VALIDATION:], y[-NUM_VALIDATION:]), test
    )


def random_images(count: int = 256) -> Problem:
    """What a quick run takes: it shows that all goes through, and no accuracy."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (count, SIDE, SIDE, 3), "uint8")
    split = x, random.integers(0, CLASSES, count)
    return Problem(split, split, split)


def scaled(images: Any) -> Any:
    """Numbers from -1 to 1."""
    if isinstance(images, np.ndarray):
        return images.astype("float32") / 127.5 - 1
    return tf.cast(images, tf.float32) / 127.5 - 1


def augmented(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each image moved by up to 4 pixels each way, every other one mirrored."""
    count, pad = len(images), 4
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    at = random.integers(0, 2 * pad + 1, (2, count, 1)) + np.arange(SIDE)
    across = at[1]
    mirrored = random.random(count) < 0.5
    across[mirrored] = across[mirrored, ::-1]
    return padded[np.arange(count)[:, None, None], at[0][:, :, None], across[:, None, :]]
