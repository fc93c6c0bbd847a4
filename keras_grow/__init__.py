"""Keras networks that grow to the size they need."""

from keras_grow import plotting
from keras_grow.callbacks.growth import GrowthCallback
from keras_grow.callbacks.history import ConnectionHistory
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.pruning import PruningCallback
from keras_grow.callbacks.summaries import GrowthSummaries
from keras_grow.callbacks.tensorboard import TensorBoard
from keras_grow.change import CapacityUsedUp, ChangeRecord, LayerChange, NothingToChange
from keras_grow.compaction import Compaction, LayerCompaction, compact
from keras_grow.connections import (
    densities,
    neuron_initializers,
    neuron_scores,
    scores,
    start_values,
    statistics,
)
from keras_grow.connections.densities import FanIn
from keras_grow.connections.tiled_array import TiledArray
from keras_grow.connections.tiled_search import TiledSearch
from keras_grow.connections.view import Connections
from keras_grow.conversion import make_growable, make_plain, make_sparse
from keras_grow.course import Course, GrowthPhase, PruningStage
from keras_grow.dead_neurons import remove_dead_neurons
from keras_grow.export import storages
from keras_grow.export.litert import export_litert
from keras_grow.export.measurement import FormMeasurement, Latency, Measurement, measure
from keras_grow.export.onnx import export_onnx
from keras_grow.export.saved_model import export_saved_model
from keras_grow.export.verification import ExportRecord, NotVerified
from keras_grow.feature_maps import FeatureMapRecord, grow_feature_maps
from keras_grow.growing import grow
from keras_grow.layers.conv import GrowableConv1D, GrowableConv2D
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.initializers import ActiveFanIn
from keras_grow.layers.mean_only_batch_normalization import MeanOnlyBatchNormalization
from keras_grow.layers.partial_area_conv import PartialAreaConv2D
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.layers.weight_norm import (
    WeightNormConv1D,
    WeightNormConv2D,
    WeightNormDense,
)
from keras_grow.measuring.agreement import CopyDiffers
from keras_grow.measuring.gradients import GradientMeter, MeasuredStatistics, growth_gradients
from keras_grow.measuring.hebbian import hebbian_gradients
from keras_grow.neuron_pruning import prune_neurons
from keras_grow.neurons import grow_neurons
from keras_grow.optimizer_conversion import convert_optimizer
from keras_grow.partial_area import AreaChange, AreaRecord, make_partial_area, prune_areas
from keras_grow.pruning import prune
from keras_grow.reach import Conversion, plan_conversion
from keras_grow.report import LayerReport, Report, report
from keras_grow.structure.units import NeuronChange, NeuronRecord
from keras_grow.synthesis import PhaseRecord, SynthesisRecord, synthesize
from keras_grow.version import __version__
from keras_grow.weight_norm_initialization import initialize_weight_norm
from keras_grow.widening import widen

__all__ = [
    "ActiveFanIn",
    "AreaChange",
    "AreaRecord",
    "CapacityUsedUp",
    "ChangeRecord",
    "Compaction",
    "ConnectionHistory",
    "Connections",
    "Conversion",
    "CopyDiffers",
    "Course",
    "Epochs",
    "ExportRecord",
    "FanIn",
    "FeatureMapRecord",
    "FormMeasurement",
    "GradientMeter",
    "Growable",
    "GrowableConv1D",
    "GrowableConv2D",
    "GrowableDense",
    "GrowthCallback",
    "GrowthPhase",
    "GrowthSummaries",
    "Latency",
    "LayerChange",
    "LayerCompaction",
    "LayerReport",
    "MeanOnlyBatchNormalization",
    "MeasuredStatistics",
    "Measurement",
    "NeuronChange",
    "NeuronRecord",
    "NotVerified",
    "NothingToChange",
    "PartialAreaConv2D",
    "PhaseRecord",
    "PruningCallback",
    "PruningStage",
    "Report",
    "SparseDense",
    "Steps",
    "SynthesisRecord",
    "TensorBoard",
    "TiledArray",
    "TiledSearch",
    "WeightNormConv1D",
    "WeightNormConv2D",
    "WeightNormDense",
    "__version__",
    "compact",
    "convert_optimizer",
    "densities",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "grow",
    "grow_feature_maps",
    "grow_neurons",
    "growable_layers",
    "growth_gradients",
    "hebbian_gradients",
    "initialize_weight_norm",
    "make_growable",
    "make_partial_area",
    "make_plain",
    "make_sparse",
    "measure",
    "neuron_initializers",
    "neuron_scores",
    "plan_conversion",
    "plotting",
    "prune",
    "prune_areas",
    "prune_neurons",
    "remove_dead_neurons",
    "report",
    "scores",
    "start_values",
    "statistics",
    "storages",
    "synthesize",
    "widen",
]
