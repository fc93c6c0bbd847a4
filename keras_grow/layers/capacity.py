"""How many connections a sparse layer can hold, and starts with."""

import numbers
from typing import Any

from keras_grow.integers import as_integer
from keras_grow.kernel_axes import KernelAxes
from keras_grow.policies.densities import FanIn, initial_count


def checked_capacity(capacity: Any, initial_density: float | FanIn | None) -> Any:
    """`capacity`, an integer as Python's own; raises `ValueError` for what can't be one.

    Args:
        capacity: a positive integer counts connections, a float up to 1 is a density, or a `FanIn`;
            `None` where the initial density says it.
        initial_density: the layer's, `None` where the capacity says it.
    """
    if capacity is None and initial_density is None:
        raise ValueError(
            "A sparse layer needs to know how many connections to hold. Received: neither "
            "`capacity` nor `initial_density`. Pass "
            "`capacity=keras_grow.densities.FanIn(32)`, a number of connections, or a density."
        )
    count = as_integer(capacity)
    is_number = isinstance(capacity, numbers.Real) and not isinstance(capacity, bool)
    is_density = count is None and is_number and 0 < capacity <= 1
    if not (capacity is None or is_density or isinstance(capacity, FanIn)) and not (
        count is not None and count > 0
    ):
        raise ValueError(
            "`capacity` must be a positive integer (connections), a float from 0 to 1 (a "
            f"density) or a keras_grow.densities.FanIn. Received: capacity={capacity!r}"
        )
    return capacity if count is None else count  # A configuration is written with Python's own.


def atoms_to_start_with(
    capacity: Any, initial_density: float | FanIn | None, axes: KernelAxes, atom_size: int
) -> tuple[int, int]:
    """How many atoms a layer starts with, and how many it can hold.

    Atoms are whole: there are no more connections than asked for, but an atom where any are.

    Args:
        capacity, initial_density: see `checked_capacity`.
        axes: of the kernel.
        atom_size: how many connections can only come and go together.

    Raises:
        ValueError: if the first are more than the second.
    """
    if isinstance(capacity, (float, FanIn)):
        capacity = initial_count(capacity, axes)
    if initial_density is not None:
        count = initial_count(initial_density, axes)
    else:
        count = min(int(capacity), axes.size)
    capacity = max(1, count if capacity is None else min(int(capacity), axes.size))
    num_atoms, most = (max(n // atom_size, min(n, 1)) for n in (count, capacity))
    if num_atoms > most:
        raise ValueError(
            f"`initial_density` asks for {count} connections of a kernel of shape {axes.shape}, "
            f"more than the capacity holds. Received: initial_density={initial_density!r}, "
            f"capacity={capacity}"
        )
    return num_atoms, most
