"""Keras networks that grow to the size they need.

Here are the layers, verbs and callbacks. Policies, results and errors stand in modules of their
own: `scores`, `statistics`, `start_values`, `densities`, `seeds`, `patterns`, `sparse_training`,
`neuron_initializers`, `neuron_scores`, `budgets`, `kernel_types`, `unit_rules`, `formats`,
`storages`; `records`; `errors`. `areas` and `synthesis` are rooms for more of NeST, `plotting`
one for figures.
"""

from keras_grow import areas, errors, plotting, records, synthesis
from keras_grow.callbacks.backup import BackupAndRestore
from keras_grow.callbacks.drop_and_grow import DropAndGrowCallback
from keras_grow.callbacks.growth import GrowthCallback
from keras_grow.callbacks.history import ConnectionHistory
from keras_grow.callbacks.moments import Epochs, Steps
from keras_grow.callbacks.neuron_pruning import NeuronPruningCallback
from keras_grow.callbacks.neurons import NeuronGrowthCallback
from keras_grow.callbacks.pruning import PruningCallback
from keras_grow.callbacks.scheduled import ScheduledChange
from keras_grow.callbacks.summaries import GrowthSummaries
from keras_grow.callbacks.tensorboard import TensorBoard
from keras_grow.connections.drop_and_grow import drop_and_grow
from keras_grow.connections.growing import grow
from keras_grow.connections.pruning import prune
from keras_grow.connections.reseeding import reseed
from keras_grow.conversion.compaction import compact
from keras_grow.conversion.conversion import make_growable, make_plain, make_sparse
from keras_grow.conversion.deepening import grow_depth
from keras_grow.conversion.optimizers import convert_optimizer
from keras_grow.conversion.quantization import quantize
from keras_grow.conversion.reach import plan_conversion
from keras_grow.conversion.widening import widen
from keras_grow.environment import environment
from keras_grow.export import formats, storages
from keras_grow.export.litert import export_litert
from keras_grow.export.measurement import measure
from keras_grow.export.onnx import export_onnx
from keras_grow.export.saved_model import export_saved_model
from keras_grow.layers import kernel_types
from keras_grow.layers.conv import GrowableConv1D, GrowableConv2D
from keras_grow.layers.dense import GrowableDense
from keras_grow.layers.growable import Growable, growable_layers
from keras_grow.layers.growable_kernels import GrowableKernels, WeightNormKernels
from keras_grow.layers.initializers import ActiveFanIn
from keras_grow.layers.mean_only_batch_normalization import MeanOnlyBatchNormalization
from keras_grow.layers.sparse_dense import SparseDense
from keras_grow.layers.weight_norm import (
    WeightNormConv1D,
    WeightNormConv2D,
    WeightNormDense,
)
from keras_grow.measuring.gradients import GradientMeter, growth_gradients
from keras_grow.measuring.hebbian import hebbian_gradients
from keras_grow.neurons import budgets
from keras_grow.neurons import initializers as neuron_initializers
from keras_grow.neurons import scores as neuron_scores
from keras_grow.neurons.births import grow_neurons
from keras_grow.neurons.dead import remove_dead_neurons
from keras_grow.neurons.feature_maps import grow_feature_maps
from keras_grow.neurons.latencies import measure_latencies
from keras_grow.neurons.pruning import prune_neurons
from keras_grow.policies import (
    densities,
    patterns,
    scores,
    seeds,
    sparse_training,
    start_values,
    statistics,
)
from keras_grow.report import report
from keras_grow.search.sampled_search import SampledSearch
from keras_grow.search.tiled_search import TiledSearch
from keras_grow.structure import rules as unit_rules
from keras_grow.structure.unit_graph import groups
from keras_grow.version import __version__
from keras_grow.weight_norm_initialization import initialize_weight_norm

__all__ = [
    "ActiveFanIn",
    "BackupAndRestore",
    "ConnectionHistory",
    "DropAndGrowCallback",
    "Epochs",
    "GradientMeter",
    "Growable",
    "GrowableConv1D",
    "GrowableConv2D",
    "GrowableDense",
    "GrowableKernels",
    "GrowthCallback",
    "GrowthSummaries",
    "MeanOnlyBatchNormalization",
    "NeuronGrowthCallback",
    "NeuronPruningCallback",
    "PruningCallback",
    "SampledSearch",
    "ScheduledChange",
    "SparseDense",
    "Steps",
    "TensorBoard",
    "TiledSearch",
    "WeightNormConv1D",
    "WeightNormConv2D",
    "WeightNormDense",
    "WeightNormKernels",
    "__version__",
    "areas",
    "budgets",
    "compact",
    "convert_optimizer",
    "densities",
    "drop_and_grow",
    "environment",
    "errors",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "formats",
    "groups",
    "grow",
    "grow_depth",
    "grow_feature_maps",
    "grow_neurons",
    "growable_layers",
    "growth_gradients",
    "hebbian_gradients",
    "initialize_weight_norm",
    "kernel_types",
    "make_growable",
    "make_plain",
    "make_sparse",
    "measure",
    "measure_latencies",
    "neuron_initializers",
    "neuron_scores",
    "patterns",
    "plan_conversion",
    "plotting",
    "prune",
    "prune_neurons",
    "quantize",
    "records",
    "remove_dead_neurons",
    "report",
    "reseed",
    "scores",
    "seeds",
    "sparse_training",
    "start_values",
    "statistics",
    "storages",
    "synthesis",
    "unit_rules",
    "widen",
]
