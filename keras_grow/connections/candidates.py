"""Which connections of a layer may grow or go, with their scores."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.layers.sparse_candidates import seen_as_atoms
from keras_grow.policies.scores import Score
from keras_grow.search.atoms import Runs, connections_of
from keras_grow.search.in_pattern import InPattern
from keras_grow.search.measurements import Measurements
from keras_grow.search.sampled_search import SampledSearch
from keras_grow.search.selection import Candidates, best_candidates


def growth_candidates(
    layer: Growable,
    count: int,
    score: Score,
    measured: Measurements,
    freed: tf.Tensor | None = None,
    pattern: InPattern | None = None,
) -> Candidates:
    """The best dormant connections of a layer, of all or of a sample.

    Args:
        layer, count, score, measured, freed: see `Growable.growth_candidates`.
        pattern: what active connections lie in, and those that grow with them.
    """
    if pattern is None:
        return _best_dormant(layer, count, score, measured, freed)
    active = np.asarray(layer.active_connections()[0])
    if freed is not None:
        active = np.setdiff1d(active, np.asarray(freed), assume_unique=True)
    num_dormant = layer.num_connections - len(active)
    if isinstance(measured.search, SampledSearch):
        num_judged = max(count, round(measured.search.ratio * len(active)))
    else:
        # Whole atoms are judged by all their connections; of others the best few often have room.
        num_judged = 2 * count if pattern.atoms_are_connections else num_dormant
    while True:
        num_judged = min(num_judged, num_dormant)
        found = _best_dormant(layer, num_judged, score, measured, freed)
        best = pattern.best(active, np.asarray(found.indices), np.asarray(found.scores), count)
        # A search that has no more time, or is to judge a sample, has found what it can.
        is_over = num_judged == num_dormant or not found.is_complete
        if is_over or len(best.indices) == count:
            return best._replace(is_complete=found.is_complete)
        num_judged *= 4


def pruning_candidates(
    layer: Growable,
    count: int,
    score: Score,
    measured: Measurements,
    pattern: InPattern | None = None,
) -> Candidates:
    """The worst active connections of a layer, the scores negated.

    Args:
        layer, count, score, measured: see `Growable.pruning_candidates`.
        pattern: whose atoms go as a whole.
    """
    if pattern is None or pattern.atoms_are_connections:
        return layer.pruning_candidates(count, score, measured)
    found = layer.pruning_candidates(layer.num_active, score, measured)
    return pattern.worst(np.asarray(found.indices), -np.asarray(found.scores), count)


def _best_dormant(
    layer: Growable,
    count: int,
    score: Score,
    measured: Measurements,
    freed: tf.Tensor | None,
) -> Candidates:
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
    return Candidates(found.scores, tf.gather(drawn, found.indices), is_complete, Runs(size))
