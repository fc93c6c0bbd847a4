"""What pictures of connections show: densities of blocks of a kernel."""

import numpy as np

from keras_grow.kernel_axes import KernelAxes


def block_densities(
    indices: np.ndarray, axes: KernelAxes, num_pixels: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """The density of the blocks into which a kernel is cut, so that a picture can hold it.

    Memory follows the number of connections given and of blocks, never the kernel's size.

    Args:
        indices: int64 of shape `(count,)`, flat indices of the active connections.
        axes: the axes of the kernel. It is drawn with a column for each unit.
        num_pixels: positive integer, how many blocks there may be along a side.

    Returns:
        float64 of shape `(block rows, block columns)`, from 0 to 1, and the connections of a block
        along both sides; those at the lower and right edge may be smaller. Where the kernel has no
        more than `num_pixels` a side, that is 1 x 1, and the densities are the mask.

    Example:

    >>> import numpy as np
    >>> from keras_grow.kernel_axes import KernelAxes
    >>> densities, block = block_densities(np.array([0, 1, 4, 5, 8]), KernelAxes((3, 4)), 2)
    >>> densities
    array([[1. , 0. ],
           [0.5, 0. ]])
    >>> block
    (2, 2)
    """
    num_rows, num_columns = axes.fan_in, axes.num_units
    height, width = -(-num_rows // num_pixels), -(-num_columns // num_pixels)
    tops, lefts = np.arange(0, num_rows, height), np.arange(0, num_columns, width)
    indices = axes.in_matrix(indices)
    blocks = indices // num_columns // height * len(lefts) + indices % num_columns // width
    counts = np.bincount(blocks, minlength=len(tops) * len(lefts)).reshape(len(tops), len(lefts))
    heights = np.minimum(height, num_rows - tops)
    widths = np.minimum(width, num_columns - lefts)
    return counts / np.outer(heights, widths), (height, width)
