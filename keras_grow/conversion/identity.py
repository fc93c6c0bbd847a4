"""Layers that are born as the identity: what they are given, they give on."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_grow.as_it_was import Snapshot
from keras_grow.kernel_axes import KernelAxes
from keras_grow.layers.growable import Growable
from keras_grow.layers.inner_kernel import Inner
from keras_grow.layers.paths import nested_layers
from keras_grow.measuring.loss import call_model
from keras_grow.structure.cloning import set_connections
from keras_grow.structure.kernels import axes_of, has_kernel

# The largest error in parts of the largest input, from the roots that BatchNormalization takes.
_TOLERANCES = {"float64": 1e-12, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}


def born_as_identity(
    block: keras.Layer,
    tensor: keras.KerasTensor,
    probes: Sequence[tf.Tensor],
    residual: bool | None,
    name: str,
) -> keras.Layer:
    """`block`, with weights that make it the identity, alone or added to its input.

    Three forms are tried, in this order. A block of the form x + f(x) adds nothing where the last
    weights of f are 0. A layer with a kernel, or a chain of such layers, passes on what it is given
    where kernels are unit matrices (in a convolution, at the center of the window). What any other
    block makes is added to its input, and is 0 where its last weights are.

    Which weights are the last is found by trying: all are set to 0, and one after the other, in the
    block's order, gets its value back where that changes no output.

    Args:
        block: a built layer or model, of inputs and outputs of one shape; changed.
        tensor: what it will be called on.
        probes: what it may be given, in as many kinds as matter.
        residual: whether its output is added to its input: True for the last form alone, False for
            the first two.
        name: of the model around it, where the addition is not its own.

    Raises:
        ValueError: for a block that is none of these, or that could not learn from its start.
    """
    # Frozen are the layers that it may be a copy of.
    block.trainable = True
    weights = block.trainable_variables
    if not weights:
        raise ValueError(_refusal(block, "which has no weights to learn"))
    start = Snapshot(block.variables)
    _set_to_zero(weights)
    silent = _outputs(block, probes)
    for output, probe in zip(silent, probes, strict=True):
        if getattr(output, "shape", None) != probe.shape:
            what = f"which makes {_shape(output)} of inputs of shape {tuple(probe.shape)}"
            raise ValueError(_refusal(block, what))
    if residual is not True and _are_same(silent, probes):
        _give_back(block, weights, start, probes, silent)
        return _alive(block, block, probes)
    if residual is not True:
        start.restore()
        if _set_to_unit_kernels(block) and _are_same(_outputs(block, probes), probes):
            return _alive(block, block, probes)
        start.restore()
        _set_to_zero(weights)
    if residual is False:
        raise ValueError(
            _refusal(
                block,
                "which alone can't pass on what it is given: with `residual=False` it must be of "
                "the form x + f(x), or apply kernels with no activation but such as leaves the "
                "outputs of the layer before it as they are, as ReLU does behind ReLU",
            )
        )
    if any(np.any(np.asarray(output, np.float32)) for output in silent):
        raise ValueError(
            _refusal(block, "which makes other numbers than 0 where all its weights are 0")
        )
    _give_back(block, weights, start, probes, silent)
    return _alive(_added_to_its_input(block, tensor, name), block, probes)


def _set_to_zero(weights: Sequence[keras.Variable]) -> None:
    for weight in weights:
        weight.assign(tf.zeros_like(weight.value))


def _give_back(
    block: keras.Layer,
    weights: Sequence[keras.Variable],
    start: Snapshot,
    probes: Sequence[tf.Tensor],
    silent: Sequence[tf.Tensor],
) -> None:
    """Gives weights that are 0 their values back, but those without which outputs would change."""
    start.restore()
    values = [tf.identity(weight.value) for weight in weights]
    _set_to_zero(weights)
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
        outputs = _outputs(block, probes)
        if not all(np.array_equal(a, b) for a, b in zip(outputs, silent, strict=True)):
            weight.assign(tf.zeros_like(value))


def _set_to_unit_kernels(block: keras.Layer) -> bool:
    """Whether all weights of a block could be set so that units pass through one by one."""
    layers = [layer for layer in nested_layers(block) if not isinstance(layer, Inner)]
    inner = {id(each) for layer in layers if has_kernel(layer) for each in nested_layers(layer)[1:]}
    for layer in layers:
        if has_kernel(layer):
            if not _set_to_unit_kernel(layer):
                return False
        elif type(layer) is keras.layers.BatchNormalization:
            deviation = keras.ops.sqrt(layer.moving_variance + layer.epsilon)
            if layer.scale:
                layer.gamma.assign(deviation)
            if layer.center:
                layer.beta.assign(layer.moving_mean)
        elif _own_weights(layer) and id(layer) not in inner:
            return False
    return True


def _set_to_unit_kernel(layer: keras.Layer) -> bool:
    axes = axes_of(layer)
    if axes.num_inputs != axes.num_units:
        return False
    connections = _unit_connections(axes, _center(layer))
    if isinstance(layer, Growable):
        active = np.union1d(layer.active_connections()[0].numpy(), connections)
        weights = np.isin(active, connections)
        set_connections(layer, tf.constant(active), tf.constant(weights, layer.variable_dtype))
    else:
        kernel = np.zeros(axes.size, np.float32)
        kernel[connections] = 1.0
        layer.kernel.assign(kernel.reshape(axes.shape))
    if layer.bias is not None:
        layer.bias.assign(tf.zeros_like(layer.bias.value))
    return True


def _unit_connections(axes: KernelAxes, center: int) -> np.ndarray:
    """The connections from each input to the unit of the same number; int64, ascending."""
    if axes.num_groups == 1:
        numbers = np.arange(axes.num_units, dtype=np.int64)
        return np.sort(axes.connection(numbers, numbers, center))
    every = np.arange(axes.size, dtype=np.int64)
    is_own = axes.inputs_of(every) == axes.units_of(every)
    return every[is_own & (axes.positions_of(every) == center)]


def _center(layer: keras.Layer) -> int:
    """The position in the window of a convolution that looks at where its output stands."""
    size = getattr(layer, "kernel_size", None)
    if size is None:
        return 0
    is_causal = layer.padding == "causal"
    return int(np.ravel_multi_index([n - 1 if is_causal else (n - 1) // 2 for n in size], size))


def _own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The trainable variables of a layer that are in none of the layers inside it."""
    inside = {id(w) for each in nested_layers(layer)[1:] for w in each.trainable_variables}
    return [w for w in layer.trainable_variables if id(w) not in inside]


def _added_to_its_input(block: keras.Layer, tensor: keras.KerasTensor, name: str) -> keras.Model:
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    added = keras.layers.Add(dtype=block.dtype_policy, name="add")([inputs, block(inputs)])
    return keras.Model(inputs, added, name=name)


def _alive(new: keras.Layer, block: keras.Layer, probes: Sequence[tf.Tensor]) -> keras.Layer:
    """`new`; raises `ValueError` if no gradient would ever reach its weights."""
    weights = new.trainable_variables
    for number, probe in enumerate(probes):
        with tf.GradientTape() as tape:
            outputs = call_model(new, probe, training=False)
            random = np.random.default_rng(number).normal(size=outputs.shape)
            total = tf.reduce_sum(outputs * tf.cast(random, outputs.dtype))
        for gradient in tape.gradient(total, [weight.value for weight in weights]):
            if gradient is not None and np.any(tf.convert_to_tensor(gradient).numpy()):
                return new
    raise ValueError(
        _refusal(
            block,
            "to which no gradient leads where its last weights are 0, as through a ReLU, which is "
            "flat there: it would never learn. End the block in a layer without activation",
        )
    )


def _outputs(block: keras.Layer, probes: Sequence[tf.Tensor]) -> list[Any]:
    return [call_model(block, probe, training=False) for probe in probes]


def _are_same(outputs: Sequence[tf.Tensor], probes: Sequence[tf.Tensor]) -> bool:
    for output, probe in zip(outputs, probes, strict=True):
        a, b = (tf.cast(each, tf.float64).numpy() for each in (output, probe))
        tolerance = max(_TOLERANCES.get(each.dtype.name, 0.0) for each in (output, probe))
        if not np.max(np.abs(a - b), initial=0.0) <= tolerance * np.max(np.abs(b), initial=0.0):
            return False
    return True


def _shape(output: Any) -> str:
    shape = getattr(output, "shape", None)
    return "no single tensor" if shape is None else f"outputs of shape {tuple(shape)}"


def _refusal(block: keras.Layer, what: str) -> str:
    return (
        "New layers are born as the identity: of the form x + f(x), where f makes 0, or with unit "
        f"matrices for kernels. Received: block {block.name!r} of class {type(block).__name__}, "
        f"{what}."
    )
