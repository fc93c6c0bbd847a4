"""How layers are called with masks on kernels that they keep themselves."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.keras_private import copy_timestep_mask, uncast_variables
from keras_grow.layers.inner_kernel import Inner, MaskedInner
from keras_grow.layers.kernel_types import InnerKernel, inner_kernels
from keras_grow.layers.masked import keep_active
from keras_grow.layers.observer import current_observer
from keras_grow.layers.paths import distinct
from keras_grow.layers.substitution import substituted
from keras_grow.policies.densities import FanIn


def mask_kernels(
    layer: keras.Layer,
    kernel_class: type[Inner],
    initial_density: float | FanIn,
    seed: int | None,
) -> list[Inner]:
    """Gives each kernel in a layer a mask; dormant weights become 0.

    Args:
        layer: a built layer.
        kernel_class: how kernels are stored.
        initial_density, seed: as of `GrowableKernels`.

    Raises:
        ValueError: for a layer without a kernel, and kernels that can't be masked.
    """
    kernels = list(inner_kernels(layer))
    if not kernels:
        raise ValueError(
            f"The layer has no kernel that can grow. Received: {layer.name!r}, a "
            f"{type(layer).__name__}. Say which of its variables are kernels with "
            "`keras_grow.kernel_types.register`."
        )
    for kernel in kernels:
        _check_is_used_as_it_is(kernel)
    seeds: list[int | None] = [None] * len(kernels)
    if seed is not None:
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(kernels))]
    return [
        kernel_class(
            kernel,
            initial_density,
            seed,
            _num_positions(kernel.layer),
            name=name,
            dtype=kernel.layer.dtype_policy,
        )
        for kernel, seed, name in zip(kernels, seeds, _names(kernels), strict=True)
    ]


def call_masked(
    holder: Any,
    layer: keras.Layer,
    call: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """What a layer computes with its effective kernels.

    Args:
        holder: the layer with the `masked_kernels`, to which losses are added.
        layer: the layer that has the kernels.
        call: computes the layer's outputs.
        args, kwargs: what it is called with.
    """
    for kernel in holder.masked_kernels:
        if not isinstance(kernel.inner.variable, keras.Variable):
            _check_is_used_as_it_is(kernel.inner)
    inputs = args[0] if args else kwargs.get("inputs")
    looked_up = _looked_up(holder.masked_kernels, layer, inputs, kwargs)
    with uncast_variables():
        pairs = [
            (kernel.inner.variable, kernel.effective_kernel())
            for kernel in holder.masked_kernels
            if kernel is not looked_up
        ]
    with substituted(pairs, holder.add_loss):
        outputs = call(*args, **kwargs)
    if looked_up is None:
        return outputs
    # A mask for the rows that were looked up, and not for the whole table.
    active = tf.gather(tf.convert_to_tensor(looked_up.kernel_mask), tf.cast(inputs, "int64"))
    return copy_timestep_mask(outputs, keep_active(outputs, active))


def _check_is_used_as_it_is(kernel: InnerKernel) -> None:
    reason = kernel.why_not_growable()
    if reason is not None:
        raise ValueError(
            "A kernel must be a variable that is used as it is. Received: layer "
            f"{kernel.layer.name!r}: {reason}"
        )


def _looked_up(
    kernels: Sequence[Inner], layer: keras.Layer, inputs: Any, arguments: Mapping[str, Any]
) -> Inner | None:
    """The table of which this call reads some rows only, if the layer is an Embedding.

    Ragged and sparse indices take the whole table.
    """
    for kernel in kernels:
        if (
            isinstance(inputs, tf.Tensor)
            and kernel.inner.is_embedding
            and kernel.inner.layer is layer
            and isinstance(kernel, MaskedInner)
            and not arguments.get("reverse", False)
            and current_observer().kernel(kernel) is None
        ):
            return kernel
    return None


def _names(kernels: Sequence[InnerKernel]) -> list[str]:
    """Names for kernels: of the layers on the way to each those that tell it from others."""
    ways = [kernel.path.split("/") for kernel in kernels]
    names = []
    for kernel, way in zip(kernels, ways, strict=True):
        parts = [
            part
            for depth, part in enumerate(way)
            if len({tuple(each[: depth + 1]) for each in ways if each[:depth] == way[:depth]}) > 1
        ]
        names.append("_".join([*parts, kernel.attribute]))
    return distinct(names)


def _num_positions(layer: Any) -> int | None:
    """At how many places of one sample the kernel of a layer is applied, `None` if not known."""
    if not hasattr(layer, "kernel_size"):
        return 1
    input_shape = (layer.get_build_config() or {}).get("input_shape")
    positions = layer.compute_output_shape(input_shape)[1:-1] if input_shape else (None,)
    return None if None in positions else math.prod(positions)
