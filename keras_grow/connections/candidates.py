"""Which dormant connections of a layer may grow, with their scores."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.policies.scores import Score
from keras_grow.search.measurements import Measurements
from keras_grow.search.sampled_search import SampledSearch
from keras_grow.search.selection import Candidates, best_candidates


def growth_candidates(
    layer: Growable,
    count: int,
    score: Score,
    measured: Measurements,
    freed: tf.Tensor | None = None,
) -> Candidates:
    """The best dormant connections of a layer, of all or of a sample.

    Args:
        layer, count, score, measured, freed: see `Growable.growth_candidates`.
    """
    search = measured.search
    if not isinstance(search, SampledSearch):
        return layer.growth_candidates(count, score, measured, freed)
    active = np.asarray(layer.active_connections()[0])
    if freed is not None:
        active = np.setdiff1d(active, freed, assume_unique=True)
    drawn = search.draw(active, layer.num_connections, count, measured.layer_index, measured.step)
    seen = layer.view(measured.seen_by(score), drawn)
    # Those just freed look like the others.
    is_active = tf.zeros_like(seen.active)
    seen = dataclasses.replace(seen, weight=tf.zeros_like(seen.weight), active=is_active)
    found = best_candidates(score(seen), ~is_active, min(count, len(drawn)))
    indices = tf.gather(drawn, found.indices)
    return Candidates(found.scores, indices, len(drawn) == layer.num_connections - len(active))
