"""Which dormant connections of a layer may grow, with their scores."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.sparse_candidates import seen_as_atoms
from keras_grow.policies.scores import Score
from keras_grow.search.atoms import connections_of
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
    size = layer.atom_size
    active = np.asarray(layer.active_connections()[0])[::size] // size
    if freed is not None:
        active = np.setdiff1d(active, np.asarray(freed)[::size] // size, assume_unique=True)
    num_atoms = layer.num_connections // size
    drawn = search.draw(active, num_atoms, count // size, measured.layer_index, measured.step)
    measured = measured.seen_by(score)
    seen = layer.view(measured, connections_of(drawn, size))
    if size > 1:
        seen = seen_as_atoms(seen, measured, layer.kernel_shape, size, drawn)
    # Those just freed look like the others.
    is_active = tf.zeros(tf.shape(seen.weight), bool)
    seen = dataclasses.replace(seen, weight=tf.zeros_like(seen.weight), active=is_active)
    found = best_candidates(score(seen), ~is_active, min(count // size, len(drawn)))
    is_complete = len(drawn) == num_atoms - len(active)
    return Candidates(found.scores, tf.gather(drawn, found.indices), is_complete, size)
