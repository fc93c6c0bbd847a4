"""What a model has grown to: connections, parameters and FLOPs, per layer and in all."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_grow.layers.growable import Growable, growable_layers, weights_outside
from keras_grow.layers.paths import paths_of
from keras_grow.measuring.gradients import GradientMeter, MeasuredStatistics
from keras_grow.policies.statistics import InputDensity
from keras_grow.search.tiled_array import entries


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """Counts of one growable layer.

    Attributes:
        name: the layer's path in the model.
        kernel_shape: shape of the kernel with every connection in it.
        num_connections: all connections.
        num_active: active connections; "parameters" of NeST and Han et al., weights only.
        num_units, num_inputs: how many units the kernel makes, and inputs it reads.
        connected_units: units with at least one active input.
        connected_inputs: inputs (of a convolution, input maps) with at least one active connection.
        connected_biases: biases of connected units, 0 without biases.
        num_positions: at how many places of one sample a convolution is applied, those at which
            padding takes part included; 1 for a dense layer. Where inputs may have any size it is
            the mean over the data, `None` without data.
        flops: 2 x the positions of every active connection, for one sample, less what a
            partial-area convolution leaves out; a dense layer that is applied to several vectors
            of a sample counts once. `None` where `num_positions` is.
        scaled_flops: the same, each connection scaled by the share of samples in which its input
            is not 0, the convention of Han et al. and NeST; of a convolution, the share of the
            places of its input map, over all samples. `None` without data, and for kernels in
            other layers, which do not show what they are applied to.
    """

    name: str
    kernel_shape: tuple[int, ...]
    num_connections: int
    num_active: int
    num_units: int
    num_inputs: int
    connected_units: int
    connected_inputs: int
    connected_biases: int
    num_positions: int | float | None
    flops: int | None
    scaled_flops: float | None

    @property
    def density(self) -> float:
        """Active connections over all connections."""
        return self.num_active / self.num_connections

    @property
    def num_parameters(self) -> int:
        """Active connections, and biases of connected units."""
        return self.num_active + self.connected_biases


@dataclasses.dataclass(frozen=True)
class Report:
    """Counts of a model's growable layers; its `str` is a table.

    Attributes:
        layers: a `LayerReport` for each growable layer, in the model's order.
        other_parameters: the parameters of all other layers.
        left: of these, weights of two axes and more that can't grow: how many, by the path of
            their variable. `keras_grow.plan_conversion` says why.
        frozen: the names of growable layers that are not trainable, which `grow` and `prune` leave
            alone.
    """

    layers: tuple[LayerReport, ...]
    other_parameters: int
    left: Mapping[str, int]
    frozen: tuple[str, ...] = ()

    @property
    def num_connections(self) -> int:
        """All connections of all growable layers."""
        return sum(layer.num_connections for layer in self.layers)

    @property
    def num_active(self) -> int:
        """Active connections of all growable layers."""
        return sum(layer.num_active for layer in self.layers)

    @property
    def density(self) -> float:
        """Active connections over all connections."""
        return self.num_active / self.num_connections

    @property
    def reach(self) -> float:
        """Connections over all weights of two axes and more, those that can't grow included."""
        return self.num_connections / (self.num_connections + sum(self.left.values()))

    @property
    def trainable_density(self) -> float:
        """Active connections over all connections, of the layers that `grow` and `prune` change."""
        layers = [layer for layer in self.layers if layer.name not in self.frozen]
        connections = sum(layer.num_connections for layer in layers)
        active = sum(layer.num_active for layer in layers)
        return active / connections if connections else math.nan

    @property
    def num_parameters(self) -> int:
        """Active connections, and biases of connected units."""
        return sum(layer.num_parameters for layer in self.layers)

    @property
    def flops(self) -> int | None:
        """2 x active connections x positions; `None` where a layer's are not known."""
        flops = [layer.flops for layer in self.layers if layer.flops is not None]
        return sum(flops) if len(flops) == len(self.layers) else None

    @property
    def scaled_flops(self) -> float | None:
        """FLOPs scaled by the measured density of the inputs; `None` without data."""
        scaled = [layer.scaled_flops for layer in self.layers if layer.scaled_flops is not None]
        return sum(scaled) if len(scaled) == len(self.layers) else None

    def __str__(self) -> str:
        has_scaled = self.scaled_flops is not None
        has_positions = any(layer.num_positions != 1 for layer in self.layers)
        header = ["layer", "kernel", "connections", "active", "density", "units", "inputs"]
        header += ["with biases"] + ["positions"] * has_positions
        header += ["FLOPs"] + ["FLOPs x input density"] * has_scaled
        rows = [header]
        for layer in self.layers:
            rows.append(
                [
                    layer.name,
                    " x ".join(map(str, layer.kernel_shape)),
                    f"{layer.num_connections:,}",
                    f"{layer.num_active:,}",
                    f"{layer.density:.2%}",
                    f"{layer.connected_units} of {layer.num_units}",
                    f"{layer.connected_inputs} of {layer.num_inputs}",
                    f"{layer.num_parameters:,}",
                ]
                + [_number(layer.num_positions)] * has_positions
                + [_number(layer.flops)]
                + [_number(layer.scaled_flops)] * has_scaled
            )
        rows.append(
            [
                "in all",
                "",
                f"{self.num_connections:,}",
                f"{self.num_active:,}",
                f"{self.density:.2%}",
                "",
                "",
                f"{self.num_parameters:,}",
            ]
            + [""] * has_positions
            + [_number(self.flops)]
            + [_number(self.scaled_flops)] * has_scaled
        )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        lines[1:1] = [rule]
        lines[-1:-1] = [rule]
        if self.frozen:
            lines.append(
                f"frozen: {', '.join(self.frozen)}; density of the others, which `grow` and "
                f"`prune` change: {self.trainable_density:.2%}"
            )
        if self.other_parameters:
            lines.append(f"and {self.other_parameters:,} parameters in other layers")
        if self.left:
            count = sum(self.left.values())
            lines.append(
                f"{self.reach:.1%} of the weights can grow, but for {count:,} in "
                f"{', '.join(self.left)}"
            )
        return "\n".join(lines)


def report(model: keras.Model, data: Any = None, *, batch_size: int | None = None) -> Report:
    """Counts what is active in `model`.

    Args:
        model: a built model with growable layers.
        data: with data (in any form that `grow` takes; only `x` is used), FLOPs are also given
            scaled by the measured density of each layer's input activations, and convolutions
            of inputs of any size get theirs.
        batch_size: samples per batch where the data is a tuple of arrays; by default as many as
            fit, see `GradientMeter`.

    Returns:
        A `Report`. `print(keras_grow.report(model))` shows it as a table.

    Raises:
        TypeError, ValueError: for a model without growable layers, and data that does not fit.
    """
    layers = growable_layers(model)
    measured = None
    if data is not None:
        meter = GradientMeter(batch_size=batch_size)
        seen = [layer for layer in layers if layer.shows_activities]
        measured = meter.measure(model, data, seen, statistics=[InputDensity()])
    counted = tuple(
        _count(path, layer, measured)
        for path, layer in zip(paths_of(model, layers), layers, strict=True)
    )
    growable_variables = {
        id(variable)
        for layer in layers
        for variable in (*layer.variables, *layer.kernel_variables, getattr(layer, "bias", None))
    }
    other = sum(
        v.value.shape.num_elements() for v in model.weights if id(v) not in growable_variables
    )
    frozen = [layer for layer in layers if not layer.trainable]
    left = {each.path: each.size for each in weights_outside(model).values()}
    return Report(counted, other, left, tuple(paths_of(model, frozen)))


def _number(value: int | float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _count(path: str, layer: Growable, measured: MeasuredStatistics | None) -> LayerReport:
    indices, _ = layer.active_connections()
    inputs_of = layer.axes.inputs_of(indices)
    connected_units = len(tf.unique(layer.axes.units_of(indices)).y)
    num_positions: int | float | None = layer.num_positions
    if not layer.shows_activities:
        measured = None
    if num_positions is None and measured is not None:
        mean = measured.num_positions[layer]
        if math.isfinite(mean):
            num_positions = int(mean) if mean.is_integer() else mean
    flops = scaled_flops = None
    if num_positions is not None:
        positions = layer.positions_of(indices)
        if positions is None:
            positions = tf.fill(tf.shape(indices), tf.constant(num_positions, tf.float64))
        flops = round(2 * float(tf.reduce_sum(positions)))
        if measured is not None:
            densities = measured.values[layer][InputDensity()]
            input_density = tf.cast(entries(densities, layer.kernel_shape, indices), tf.float64)
            scaled_flops = 2.0 * float(tf.reduce_sum(positions * input_density))
    return LayerReport(
        name=path,
        kernel_shape=layer.kernel_shape,
        num_connections=layer.num_connections,
        num_active=len(indices),
        num_units=layer.axes.num_units,
        num_inputs=layer.axes.num_inputs,
        connected_units=connected_units,
        connected_inputs=len(tf.unique(inputs_of).y),
        connected_biases=connected_units if getattr(layer, "bias", None) is not None else 0,
        num_positions=num_positions,
        flops=flops,
        scaled_flops=scaled_flops,
    )
