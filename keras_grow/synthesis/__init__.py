"""NeST's whole recipe in one call: growth, then pruning in stages with retraining."""

from keras_grow.synthesis.recipe import GrowthPhase, PruningStage, Recipe
from keras_grow.synthesis.synthesis import PhaseRecord, SynthesisRecord, synthesize

__all__ = [
    "GrowthPhase",
    "PhaseRecord",
    "PruningStage",
    "Recipe",
    "SynthesisRecord",
    "synthesize",
]
