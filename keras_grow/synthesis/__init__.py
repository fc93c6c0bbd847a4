"""NeST's whole course in one call: growth, then pruning in stages with retraining."""

from keras_grow.synthesis.course import Course, GrowthPhase, PruningStage
from keras_grow.synthesis.synthesis import PhaseRecord, SynthesisRecord, synthesize

__all__ = [
    "Course",
    "GrowthPhase",
    "PhaseRecord",
    "PruningStage",
    "SynthesisRecord",
    "synthesize",
]
