"""Densities of blocks are those of counting connection by connection."""

import itertools

import numpy as np
import pytest

from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.pictures import block_densities


@pytest.mark.parametrize("shape", [(7, 5), (5, 9), (3, 2, 4), (1, 1), (6, 6)])
@pytest.mark.parametrize("num_pixels", [1, 2, 3, 4, 100])
def test_it_counts_what_is_in_each_block(shape, num_pixels):
    axes = KernelAxes(shape)
    mask = np.random.default_rng(0).random((axes.fan_in, axes.num_units)) < 0.4
    found, (height, width) = block_densities(np.flatnonzero(mask), axes, num_pixels)
    for side, block, whole in zip(found.shape, (height, width), mask.shape, strict=True):
        assert side == np.ceil(whole / block) <= num_pixels
        # No smaller block would do.
        assert block == 1 or np.ceil(whole / (block - 1)) > num_pixels
    for row, column in itertools.product(*map(range, found.shape)):
        top, left = row * height, column * width
        assert found[row, column] == mask[top : top + height, left : left + width].mean()


def test_columns_are_units_wherever_their_axis_stands():
    axes = KernelAxes((3, 4), inputs=(1,), units=(0,))
    found, block = block_densities(np.array([0, 1, 11]), axes, 10)
    assert block == (1, 1)
    np.testing.assert_array_equal(found, np.array([[1, 1, 0, 0], [0] * 4, [0, 0, 0, 1]]).T)
