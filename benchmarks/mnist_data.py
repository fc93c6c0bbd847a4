"""MNIST for the benchmarks: the official split, and fixed distorted copies of the training images.

NeST and its rivals distort their training images; which way, they hardly say. Here each copy of an
image is turned, scaled, sheared and moved a little, and bent by a smooth random field (Simard,
Steinkraus, Platt, "Best Practices for Convolutional Neural Networks", ICDAR 2003).
"""

import pathlib

import numpy as np
import tensorflow as tf

SIDE = 28
# Images of the training set that a recipe is chosen on, the last ones; the rest trains it.
NUM_VALIDATION = 10_000
# Largest turn in radians, change of scale, shear, and shift in pixels; the deviation in pixels of
# the bending field, and how smooth it is.
_TURN, _SCALE, _SHEAR, _SHIFT = 0.09, 0.06, 0.06, 0.9
_BEND, _SMOOTHNESS = 0.5, 4.0
_AT_ONCE = 2000


def load(data_dir: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, their classes, test images, their classes.

    Images are uint8 of shape `(count, 784)`, from `tensorflow_datasets`.
    """
    import tensorflow_datasets as tfds

    arrays = []
    for split in ("train", "test"):
        images, labels = tfds.as_numpy(
            tfds.load("mnist", split=split, data_dir=data_dir, batch_size=-1, as_supervised=True)
        )
        arrays += [images.reshape(len(images), -1), labels]
    return tuple(arrays)


def distort(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One distorted copy of each image: uint8 of shape `(count, 784)`."""
    from scipy import ndimage

    count, center = len(images), (SIDE - 1) / 2
    turn = random.uniform(-_TURN, _TURN, count)
    scale = 1 + random.uniform(-_SCALE, _SCALE, (2, count))
    shear = random.uniform(-_SHEAR, _SHEAR, count)
    shift = random.uniform(-_SHIFT, _SHIFT, (2, count))
    cos, sin = np.cos(turn), np.sin(turn)
    # Where each pixel of the copy comes from: turned, sheared, scaled, moved.
    matrix = np.array(
        [
            [cos * scale[0], (shear * cos - sin) * scale[0]],
            [sin * scale[1], (shear * sin + cos) * scale[1]],
        ]
    ).astype("float32")
    grid = np.mgrid[:SIDE, :SIDE].astype("float32") - center
    places = np.einsum("ijn,jyx->inyx", matrix, grid) + center
    places += shift.astype("float32")[:, :, None, None]
    bend = random.standard_normal((2, count, SIDE, SIDE), "float32")
    bend = ndimage.gaussian_filter(bend, (0, 0, _SMOOTHNESS, _SMOOTHNESS))
    # Smoothing leaves this deviation of each pixel's displacement.
    places += bend * (_BEND * 2 * np.sqrt(np.pi) * _SMOOTHNESS)
    of_image = np.broadcast_to(np.arange(count, dtype="float32")[:, None, None], places.shape[1:])
    stack = images.reshape(-1, SIDE, SIDE)
    warped = ndimage.map_coordinates(stack, [of_image, *places], order=1, mode="constant")
    return warped.reshape(count, -1)


def distorted_copies(
    images: np.ndarray, num_copies: int, cache: pathlib.Path | None = None, seed: int = 0
) -> np.ndarray:
    """The images and `num_copies - 1` distorted copies of each: uint8 `(copies * count, 784)`.

    Args:
        images: uint8 of shape `(count, 784)`.
        num_copies: positive integer, the originals included.
        cache: a file in which to keep them, read where it exists.
        seed: of the distortions.
    """
    if cache is not None and cache.exists():
        return np.load(cache, mmap_mode="r")
    random = np.random.default_rng(seed)
    copies = np.empty((num_copies, *images.shape), "uint8")
    copies[0] = images
    # In parts, because the places of all pixels take many times the memory of the images.
    starts = range(0, len(images), _AT_ONCE)
    for copy in copies[1:]:
        for part in (slice(start, start + _AT_ONCE) for start in starts):
            copy[part] = distort(images[part], random)
    copies = copies.reshape(-1, images.shape[1])
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, copies)
    return copies


def training_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, epoch_size: int, seed: int
) -> tf.data.Dataset:
    """Batches of float32 images from 0 to 1: an epoch takes `epoch_size` of them at random.

    Each call of an iterator goes on with images that the last one did not show, until all
    copies were shown.

    Args:
        images: uint8 of shape `(count, 784)`; distorted copies stand behind each other.
        labels: integers of shape `(count / copies,)`, which repeat for every copy.
        batch_size: samples per batch; what is left of an epoch is dropped.
        epoch_size: samples per epoch.
        seed: of the order.
    """
    images, labels = tf.constant(images), tf.constant(labels)
    num_images, num_labels = len(images), len(labels)

    def batch(indices):
        x = tf.cast(tf.gather(images, indices), tf.float32) / 255
        return x, tf.gather(labels, indices % num_labels)

    order = tf.data.Dataset.range(num_images).shuffle(num_images, seed=seed)
    order = order.take(epoch_size).batch(batch_size, drop_remainder=True)
    return order.map(batch, num_parallel_calls=1).prefetch(2)
