"""MNIST and CIFAR-10 for the wide networks: uint8 images, the last training images to choose on."""

import os

import numpy as np

from benchmarks import mnist_data
from benchmarks.cifar_data import Problem, cifar10, random_images


def load(problem: str) -> Problem:
    """The images of a problem, from where `TFDS_DATA_DIR` says.

    Args:
        problem: "mnist", "cifar10" or, for quick runs, "random".
    """
    if problem == "random":
        return random_images()
    if problem == "cifar10":
        return cifar10()
    x, y, *test = mnist_data.load(os.environ.get("TFDS_DATA_DIR"))
    chosen_on = slice(-mnist_data.NUM_VALIDATION, None)
    trained_on = slice(0, -mnist_data.NUM_VALIDATION)
    images: tuple[np.ndarray, np.ndarray] = (test[0], test[1])
    return Problem((x[trained_on], y[trained_on]), (x[chosen_on], y[chosen_on]), images)
