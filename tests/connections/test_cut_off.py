"""Layers keep their last connection, and what cuts outputs from all inputs says so."""

import warnings

import keras
import numpy as np
import pytest

from keras_grow import (
    Epochs,
    GrowableConv2D,
    GrowableDense,
    PruningCallback,
    SparseDense,
    WeightNormDense,
    densities,
    growable_layers,
    make_growable,
    prune,
    prune_neurons,
)
from keras_grow.errors import NothingToChange

_layers = keras.layers


def _dense(kind, units, *arguments, **options):
    if kind is SparseDense:
        options["capacity"] = 1.0
    return kind(units, *arguments, **options)


def _network(kind=GrowableDense, num_units=(20, 2, 2), **options):
    """A network whose last layer has 4 connections."""
    names = ("first", "second", "last")
    layers = [_dense(kind, n, "tanh", name=name, **options) for n, name in zip(num_units, names)]
    return keras.Sequential([keras.Input((10,)), *layers])


def _active(model):
    return [layer.num_active for layer in growable_layers(model)]


def _largest(layer):
    return int(np.argmax(np.abs(layer.effective_kernel().numpy())))


_CUTS_OUTPUTS = "'last' answers with depend on no input"


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_per_layer_a_small_layer_keeps_one_connection_and_the_largest_gives_it(kind):
    model = _network(kind)
    best = _largest(model.get_layer("last"))
    with pytest.warns(UserWarning, match=f"1 of the 2 units that {_CUTS_OUTPUTS}"):
        record = prune(model, density=0.1, per_layer=True)
    # 20, 4 and 0.4 of 200, 40 and 4.
    assert _active(model) == [19, 4, 1]
    assert record.num_active == 24
    assert model.get_layer("last").active_connections()[0].numpy().tolist() == [best]


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_of_all_layers_together_each_keeps_its_best_and_the_total_is_exact(kind):
    model = _network(kind)
    last = model.get_layer("last")
    # The smallest weights are those of the last layer.
    best = _largest(last)
    weights = last.get_weights()
    weights[0] = weights[0] * np.float32(1e-3)
    last.set_weights(weights)
    if kind is WeightNormDense:
        last.g.assign(1e-3 * last.g)
    with pytest.warns(UserWarning, match=r"are left with one connection.*'last'.*per_layer=True"):
        record = prune(model, density=0.2)
    assert record.num_active == 49 == sum(_active(model))
    assert last.active_connections()[0].numpy().tolist() == [best]


def test_less_than_one_connection_a_layer_can_not_be_left():
    model = _network()
    with pytest.warns(UserWarning, match="3 of 3 layers are left with one connection"):
        prune(model, density=0.001)
    assert _active(model) == [1, 1, 1]
    with pytest.raises(NothingToChange, match="leaves every layer a connection"):
        prune(model, density=0.001)
    with pytest.raises(
        ValueError, match="at least one in each layer. Received: count=242, exp.*241"
    ):
        prune(_network(), count=242)
    with pytest.warns(UserWarning, match=_CUTS_OUTPUTS):
        assert prune(_network(), count=241).num_active == 3


def test_a_threshold_leaves_a_layer_its_best_connection():
    model = _network()
    last = model.get_layer("last")
    last.kernel.assign([[0.01, -0.03], [0.02, 0.03]])
    with pytest.warns(UserWarning, match="1 of 3 layers are left with one connection"):
        prune(model, threshold=0.05)
    # Among equals the lower index is pruned first.
    assert last.active_connections()[0].numpy().tolist() == [3]
    assert _active(model)[0] > 1
    with pytest.raises(ValueError, match="above the scores of all"):
        prune(model, threshold=100.0)
    with pytest.raises(NothingToChange, match="only the last ones of layers"):
        prune(model, threshold=0.05)


class _Zero(densities.DensityDistribution):
    def __call__(self, shapes):
        return [self.density, self.density, 0.0]


def test_a_distribution_that_says_0_empties_a_layer_and_the_warning_says_what_that_does():
    model = _network()
    with pytest.warns(UserWarning, match=f"2 of the 2 units that {_CUTS_OUTPUTS}"):
        prune(model, density=_Zero(0.5))
    assert _active(model) == [100, 20, 0]
    with pytest.raises(ValueError, match="density of 0 leaves no connection"):
        prune(model, density=0)


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
def test_a_layer_starts_with_a_connection_unless_its_density_is_0(kind):
    model = _network(kind, initial_density=0.1)
    assert _active(model) == [20, 4, 1]
    assert _active(_network(kind, initial_density=0)) == [0, 0, 0]


def test_a_converted_model_starts_with_the_exact_total():
    plain = keras.Sequential([keras.Input((10,)), *(_layers.Dense(n) for n in (20, 2, 2))])
    for density in (0.1, densities.Uniform(0.1)):
        assert _active(make_growable(plain, initial_density=density, seed=0)) == [19, 4, 1]
    assert _active(make_growable(plain, initial_density=_Zero(0.5))) == [100, 20, 0]


def test_nothing_is_said_where_all_outputs_still_depend_on_an_input():
    model = _network(num_units=(20, 20, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, density=0.5)
        prune(model, density=0.3, per_layer=True)


def test_what_was_cut_off_before_is_not_said_again():
    model = _network()
    model.get_layer("last").prune_connections([0, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, count=5, layers=["first"])


def test_an_output_is_cut_off_where_all_that_leads_to_it_is():
    """Every layer keeps connections, and no path is left."""
    model = _network(num_units=(2, 2, 2))
    first, second, last = growable_layers(model)
    first.prune_connections(np.flatnonzero(np.arange(20) % 2 == 0)[:9])  # Unit 0 has one input.
    second.prune_connections([2, 3])  # Only unit 0 is read,
    last.prune_connections([1, 3])  # and only the first output reads.
    first.kernel.assign(np.where(first.kernel_mask, 2.0, 0.0) - np.eye(10, 2, -9) * 1.0)
    unit_0 = np.flatnonzero(first.kernel_mask.numpy()[:, 0])
    kernel = first.kernel.numpy()
    kernel[unit_0, 0] = 0.1
    first.kernel.assign(kernel)
    with pytest.warns(UserWarning, match=f"1 of the 2 units that {_CUTS_OUTPUTS}"):
        prune(model, count=1, layers=["first"])
    x = np.random.default_rng(0).normal(size=(5, 10)).astype("float32")
    assert np.ptp(model(x), axis=0).tolist() == [0, 0]


def test_softmax_does_not_hide_a_class_without_inputs():
    x = keras.Input((4, 4, 2))
    h = GrowableConv2D(3, 3, padding="same", name="convolution")(x)
    h = _layers.BatchNormalization()(h)
    h = _layers.Add()([h, _layers.Conv2D(3, 1)(x)])
    h = _layers.Flatten()(_layers.ReLU()(h))
    named = GrowableDense(3, "softmax", name="named")(h)
    behind = _layers.Softmax()(GrowableDense(3, name="linear")(h))
    model = keras.Model(x, [named, behind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, count=40, layers=["convolution"])
    for name in ("named", "linear"):
        layer = model.get_layer(name)
        layer.kernel.assign(layer.kernel.numpy() * np.array([1, 1e-3, 1]))
    expected = "1 of the 3 units that 'named' .* 1 of the 3 units that 'softmax' answers with"
    with pytest.warns(UserWarning, match=expected):
        prune(model, count=48, layers=["named", "linear"], per_layer=True)


def test_a_subclassed_model_is_pruned_without_a_word_about_its_outputs():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.last = GrowableDense(5), GrowableDense(2)

        def call(self, x):
            return self.last(self.hidden(x))

    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, density=0.1, per_layer=True)
    assert _active(model) == [2, 1]


def test_removed_neurons_that_cut_outputs_off_are_told():
    model = keras.Sequential(
        [keras.Input((3,)), GrowableDense(2, name="hidden"), GrowableDense(2, name="last")]
    )
    hidden, last = model.layers
    hidden.kernel.assign(np.ones((3, 2)) * [1, 5])
    last.prune_connections([1, 2])  # Each output reads a unit of its own.
    x = np.ones((4, 3), "float32")
    with pytest.warns(UserWarning, match=f"1 of the 2 units that {_CUTS_OUTPUTS}"):
        prune_neurons(model, count=1, data=(x,))


def test_a_callback_warns_in_fit(blobs):
    model = keras.Sequential([keras.Input((8,)), GrowableDense(4), GrowableDense(3, name="last")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = PruningCallback(density=0.05, when=Epochs(start=1))
    with pytest.warns(UserWarning, match=_CUTS_OUTPUTS):
        model.fit(*blobs, epochs=3, verbose=0, callbacks=[callback])
    assert sum(_active(model)) == 2
