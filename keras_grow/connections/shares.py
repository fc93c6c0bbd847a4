"""How a count of connections is shared among layers."""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_grow.layers.growable import Growable
from keras_grow.policies.sparse_training import Method
from keras_grow.search.measurements import Measurements


def shared_counts(
    counts: list[int],
    layers: Sequence[Growable],
    dropped: Sequence[tf.Tensor],
    method: Method,
    measured: dict[Growable, Measurements],
) -> list[int]:
    """How many connections each layer grows: what it dropped, or its share of all.

    Args:
        counts: how many each layer dropped.
        layers: those layers.
        dropped: the flat indices of what each dropped.
        method: its `share`, where it has one, weighs layers by the mean over active connections.
        measured: what that score sees.
    """
    if method.share is None:
        return counts
    remaining = [x.num_active - len(freed) for x, freed in zip(layers, dropped, strict=True)]
    room = [x.num_active + x.num_free - n for x, n in zip(layers, remaining, strict=True)]
    means = []
    for layer in layers:
        seen = layer.view(measured[layer].seen_by(method.share), layer.active_connections()[0])
        mean = float(tf.reduce_mean(tf.cast(method.share(seen), tf.float64)))
        means.append(max(mean, 0.0) if layer.num_active else 0.0)
    # Whole atoms of any layer; what is left of a count goes where it is a whole number of them.
    unit = math.lcm(*(layer.atom_size for layer in layers))
    shares = in_proportion(sum(counts) // unit, means, [most // unit for most in room])
    shares, rest = [unit * share for share in shares], sum(counts) % unit
    for i, layer in enumerate(layers):
        part = min(rest, room[i] - shares[i])
        part -= part % layer.atom_size
        shares[i], rest = shares[i] + part, rest - part
    return shares


def in_proportion(count: int, weights: Sequence[float], most: Sequence[int]) -> list[int]:
    """Shares of a count in proportion to weights, none above its limit; remainders to the largest.

    Args:
        count: integer, at most the sum of the limits.
        weights: not negative; where all that have room left are 0, they share evenly.
        most: the limits.
    """
    shares, rest = [0] * len(most), count
    while rest:
        open_ = [i for i, limit in enumerate(most) if shares[i] < limit]
        total = sum(weights[i] for i in open_)
        parts = [weights[i] / total if total else 1 / len(open_) for i in open_]
        exact = [rest * part for part in parts]
        takes = [min(most[i] - shares[i], int(part)) for i, part in zip(open_, exact, strict=True)]
        if not any(takes):
            # Less than one each is left: the largest remainders get it, of equals the first.
            by_remainder = sorted(range(len(open_)), key=lambda i: -exact[i])
            takes = [0] * len(open_)
            for i in by_remainder[:rest]:
                takes[i] = 1
        for i, take in zip(open_, takes, strict=True):
            shares[i] += take
        rest -= sum(takes)
    return shares
