"""Random networks of all kinds of layers, pruned by groups: compact, they compute what is left."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow.neurons.units import Units
from tests.quick import among
from tests.random_models import difference, inputs_of, random_wired_model


@pytest.mark.parametrize(
    "seed", among({str(n): n for n in range(300)}, quick=[str(n) for n in range(9)])
)
def test_what_is_compact_computes_what_is_left(seed):
    model = random_wired_model(seed)
    random = np.random.default_rng(seed)
    groups = [group for group in keras_grow.groups(model) if group.why_fixed is None]
    gone = {}
    for group in groups:
        units = Units(group)
        gone[group] = random.permutation(group.count)[: random.integers(0, group.count)]
        units.cut_incoming(gone[group], None)
        units.cut_outgoing(gone[group], None)
    x = inputs_of(model)
    expected = model(x)
    compaction = keras_grow.compact(model)
    assert difference(compaction.model(x), expected) < 1e-4
    if np.ptp(expected, axis=0).max() == 0:  # Masks have cut the model off from its inputs.
        return
    # What was cut on both sides is gone, but where one must be left, or counts in a mean.
    left = {layer.name: layer.units for layer in compaction.layers}
    for group in groups:
        kinds = [type(end.layer) for end in group.passed]
        if keras.layers.RMSNormalization not in kinds:
            most = max(1, group.count - len(gone[group]))
            for end in group.made_by:
                copies = end.indices.shape[1]
                assert np.isin(end.indices, left[end.path]).sum() <= most * copies


def test_the_networks_are_of_all_kinds():
    kinds = set()
    for seed in range(60):
        model = random_wired_model(seed)
        kinds |= {type(getattr(layer, "layer", layer)) for layer in model.layers}
        # Collecting after each took nearly all of the time.
        keras.backend.clear_session(free_memory=False)
    layers = keras.layers
    assert kinds >= {
        layers.LSTM,
        layers.GRU,
        layers.SimpleRNN,
        layers.Bidirectional,
        layers.MultiHeadAttention,
        layers.GroupQueryAttention,
        layers.EinsumDense,
        layers.Embedding,
        layers.SeparableConv2D,
        layers.Conv2DTranspose,
        layers.DepthwiseConv2D,
        layers.BatchNormalization,
        layers.LayerNormalization,
    }
