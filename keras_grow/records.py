"""What verbs return, to be named in annotations: no need to make one by hand."""

from keras_grow.areas import AreaChange, AreaRecord
from keras_grow.connections.record import ChangeRecord, ExchangeRecord, LayerChange
from keras_grow.conversion.compaction import Compaction, LayerCompaction
from keras_grow.conversion.reach import Conversion
from keras_grow.export.measurement import FormMeasurement, Latency, Measurement
from keras_grow.export.verification import ExportRecord
from keras_grow.measuring.gradients import MeasuredStatistics
from keras_grow.neurons.feature_maps import FeatureMapRecord
from keras_grow.neurons.latency_table import LatencyTable
from keras_grow.neurons.units import NeuronChange, NeuronRecord
from keras_grow.report import LayerReport, Report
from keras_grow.search.tiled_array import TiledArray
from keras_grow.structure.unit_groups import End, Group
from keras_grow.synthesis import PhaseRecord, SynthesisRecord

__all__ = [
    "AreaChange",
    "AreaRecord",
    "ChangeRecord",
    "Compaction",
    "Conversion",
    "End",
    "ExchangeRecord",
    "ExportRecord",
    "FeatureMapRecord",
    "FormMeasurement",
    "Group",
    "Latency",
    "LatencyTable",
    "LayerChange",
    "LayerCompaction",
    "LayerReport",
    "MeasuredStatistics",
    "Measurement",
    "NeuronChange",
    "NeuronRecord",
    "PhaseRecord",
    "Report",
    "SynthesisRecord",
    "TiledArray",
]
