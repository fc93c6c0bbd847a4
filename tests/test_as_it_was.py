"""What fails, or is interrupted, leaves variables as they were."""

import keras
import numpy as np
import pytest

from keras_grow import GrowableDense, SparseDense, WeightNormDense, initialize_weight_norm
from keras_grow.as_it_was import Snapshot, as_it_was_on_error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("layer_class", [GrowableDense, WeightNormDense, SparseDense])
def test_weights_and_connections_come_back_after_an_error(layer_class, error, snapshot):
    layer = layer_class(5, initial_density=0.5, seed=1)
    model = keras.Sequential([keras.Input((8,)), layer])
    before = snapshot(model)

    def change_and_fail():
        with as_it_was_on_error(model.variables):
            indices, _ = layer.active_connections()
            layer.prune_connections(indices[:7])
            layer.bias.assign(np.ones(5))
            assert layer.num_active == 13
            raise error("stop")

    with pytest.raises(error):
        change_and_fail()
    snapshot.assert_same(model, before)
    assert layer.num_active == 20


@pytest.mark.parametrize("on_host", [False, True])
def test_a_snapshot_is_of_the_moment_it_was_made(on_host):
    variable = keras.Variable([1.0, 2.0])
    taken = Snapshot([variable], on_host=on_host)
    variable.assign([3.0, 4.0])
    variable.assign_add([1.0, 1.0])
    taken.restore()
    np.testing.assert_array_equal(variable, [1.0, 2.0])


def test_an_interrupted_initialization_changes_nothing(snapshot):
    layers = [WeightNormDense(4, "relu", name="first"), WeightNormDense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    x = np.random.default_rng(0).normal(size=(10, 6)).astype("float32")

    class Interrupted(keras.utils.PyDataset):
        """An interrupt comes once the first layer has its gain."""

        def __init__(self):
            super().__init__()
            self.start = model.layers[0].g.numpy()

        def __len__(self):
            return 2

        def __getitem__(self, index):
            if np.any(model.layers[0].g.numpy() != self.start):
                raise KeyboardInterrupt
            return (x,)

    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        initialize_weight_norm(model, Interrupted())
    snapshot.assert_same(model, before)
