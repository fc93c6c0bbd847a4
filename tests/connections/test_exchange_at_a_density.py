"""An exchange that ends at a lower density exchanges as well."""

import keras
import numpy as np

from keras_grow import GrowableDense, drop_and_grow


def test_a_dense_start_is_pruned_and_exchanged_at_once():
    model = keras.Sequential(
        [keras.Input((8,)), GrowableDense(10, initial_density=0.8, seed=0), GrowableDense(3)]
    )
    model.layers[1].prune_connections(np.arange(6))
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    data = random.normal(size=(32, 8)), random.normal(size=(32, 3))
    before = [layer.kernel_mask.numpy() for layer in model.layers]
    record = drop_and_grow(model, data, fraction=0.3, density=0.5, per_layer=True)
    for layer, was, pruned, grown in zip(
        model.layers, before, record.pruned, record.grown, strict=True
    ):
        size = was.size
        assert layer.num_active == size // 2
        # Of what is left, up to three tenths go; what comes back at once is not counted.
        assert pruned.count - grown.count == was.sum() - size // 2
        assert 0 < grown.count <= int(0.3 * (size // 2))
        assert not was.reshape(-1)[grown.indices].any()


def test_where_all_is_to_stay_active_nothing_comes_but_what_goes():
    model = keras.Sequential(
        [keras.Input((8,)), GrowableDense(10), GrowableDense(3, initial_density=0.5, seed=0)]
    )
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    data = random.normal(size=(32, 8)), random.normal(size=(32, 3))
    record = drop_and_grow(model, data, fraction=0.5)
    assert record.pruned[0].count == record.grown[0].count == 0
    assert record.pruned[1].count == record.grown[1].count
    assert model.layers[0].num_active == 80
