import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableDense,
    WeightNormDense,
    densities,
    growable_layers,
    prune,
    scores,
)
from keras_grow.errors import NothingToChange
from keras_grow.optimizer_slots import slots
from keras_grow.policies.statistics import Gradient


def _network(layer_class=GrowableDense):
    return keras.Sequential(
        [keras.Input((6,)), layer_class(5, "tanh", name="a"), layer_class(4, name="b")]
    )


def _literal(kernels):
    """A network without biases and with the given kernels."""
    layers = [GrowableDense(np.shape(k)[1], use_bias=False) for k in kernels]
    model = keras.Sequential([keras.Input((np.shape(kernels[0])[0],)), *layers])
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)
    return model


def _masks(model):
    return [layer.kernel_mask.numpy() for layer in growable_layers(model)]


@pytest.mark.parametrize("layer_class", [GrowableDense, WeightNormDense])
@pytest.mark.parametrize("per_layer", [False, True])
def test_exactly_the_smallest_effective_weights_are_pruned(layer_class, per_layer):
    model = _network(layer_class)
    weights = [np.abs(layer.effective_kernel().numpy()) for layer in model.layers]
    record = prune(model, count=7, per_layer=per_layer)
    groups = [[w] for w in weights] if per_layer else [weights]
    thresholds = [np.sort(np.concatenate([w.ravel() for w in group]))[7] for group in groups]
    limits = thresholds if per_layer else thresholds * 2
    for mask, w, limit in zip(_masks(model), weights, limits, strict=True):
        np.testing.assert_array_equal(mask, w >= limit)
    assert record.count == (14 if per_layer else 7)
    assert record.num_active == 50 - record.count
    assert record.loss is None


def test_among_equals_the_earlier_layer_then_the_lower_index_is_pruned():
    model = _literal([[[1.0, 3.0], [1.0, 1.0]], [[1.0, 0.5], [2.0, 1.0]]])
    record = prune(model, count=4)
    first, second = _masks(model)
    np.testing.assert_array_equal(first, [[False, True], [False, False]])
    np.testing.assert_array_equal(second, [[True, False], [True, True]])
    assert [list(layer.indices) for layer in record.layers] == [[0, 2, 3], [1]]


def test_a_threshold_prunes_what_scores_below_it_in_all_layers():
    model = _literal([[[1.0, -3.0], [0.5, 2.0]], [[2.0, 0.5], [-1.0, 2.5]]])
    record = prune(model, threshold=2.0)
    first, second = _masks(model)
    np.testing.assert_array_equal(first, [[False, True], [False, True]])
    np.testing.assert_array_equal(second, [[True, False], [False, True]])
    assert [list(layer.indices) for layer in record.layers] == [[0, 2], [1, 2]]


def test_thresholds_that_prune_nothing_or_everything_are_refused_in_words():
    model = _literal([[[1.0], [2.0]]])
    with pytest.raises(NothingToChange, match="no active connection scores below"):
        prune(model, threshold=1.0)
    with pytest.raises(ValueError, match="must leave active connections"):
        prune(model, threshold=5.0)
    with pytest.raises(ValueError, match="exactly one of .* Received: count=1"):
        prune(model, count=1, threshold=1.5)
    with pytest.raises(ValueError, match="finite number. Received: threshold=nan"):
        prune(model, threshold=float("nan"))
    assert _masks(model)[0].all()


def test_the_record_says_in_a_line_what_was_done():
    record = prune(_network(), count=10)
    assert str(record).startswith("10 connections changed, 40 of 50 active (80.00%), ")


def test_activation_magnitude_prunes_large_weights_on_silent_inputs():
    model = _literal([[[10.0], [1.0], [2.0]]])
    x = np.array([[0.0, 3.0, 1.0], [0.0, 1.0, 1.0]], "float32")
    # |w| times the root mean square: 0, sqrt(5), 2.
    prune(model, count=2, score=scores.ActivationMagnitude(), data=(x,))
    np.testing.assert_array_equal(_masks(model)[0], [[False], [True], [False]])


def test_a_score_that_needs_the_gradient_gets_it():
    class Saliency(scores.Score):
        statistics = (Gradient(),)

        def __call__(self, connections):
            return tf.abs(connections.weight * connections[Gradient()])

    model = _literal([[[1.0], [2.0], [0.5]]])
    model.compile("sgd", "mse")
    x, y = np.array([[1.0, 0.1, 3.0]], "float32"), np.array([[0.0]], "float32")
    # |w x| is 1, 0.2 and 1.5.
    record = prune(model, count=1, score=Saliency(), data=(x, y))
    np.testing.assert_array_equal(_masks(model)[0], [[True], [False], [True]])
    assert record.loss == pytest.approx(2.7**2)


@pytest.mark.parametrize(
    ("density", "per_layer", "expected"),
    [
        (0.5, False, None),
        (0.5, True, [15, 10]),
        (densities.Uniform(0.1), False, [3, 2]),
        (densities.ErdosRenyi(0.5), False, [14, 11]),
    ],
)
def test_the_density_is_reached_exactly(density, per_layer, expected):
    model = _network()
    record = prune(model, density=density, per_layer=per_layer)
    active = [layer.num_active for layer in model.layers]
    assert active == (expected or active)
    assert record.num_active == sum(active) == (5 if expected == [3, 2] else 25)


def test_layers_already_sparser_than_the_target_stay():
    model = _network()
    prune(model, density=0.1, layers=["a"])
    before = _masks(model)[0]
    prune(model, density=0.5, per_layer=True)
    np.testing.assert_array_equal(_masks(model)[0], before)
    assert model.get_layer("b").num_active == 10


def test_pruning_a_network_twice_goes_on_from_where_it_was():
    at_once, in_turns = _network(), _network()
    in_turns.set_weights(at_once.get_weights())
    prune(at_once, count=20)
    prune(in_turns, count=12)
    prune(in_turns, count=8)
    for a, b in zip(_masks(at_once), _masks(in_turns), strict=True):
        np.testing.assert_array_equal(a, b)


def test_slots_of_pruned_connections_start_afresh_in_a_loop_of_ones_own():
    model, optimizer = _network(), keras.optimizers.Adam()
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    prune(model, density=0.5, optimizer=optimizer)
    for layer in model.layers:
        for slot in slots(optimizer, layer.kernel).values():
            np.testing.assert_array_equal(slot.numpy() != 0, layer.kernel_mask.numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of `count`"),
        ({"count": 1, "density": 0.5}, "exactly one of `count`"),
        ({"count": 0}, "positive integer. Received: count=0"),
        ({"count": 2.0}, "positive integer. Received: count=2.0"),
        ({"count": True}, "positive integer. Received: count=True"),
        ({"count": 50}, "must leave active connections"),
        ({"count": 20, "per_layer": True}, "must leave active connections"),
        ({"density": 0}, "density of 0 leaves no connection"),
        ({"density": 1.2}, "Received: density=1.2"),
        ({"density": "0.5"}, "Received: density='0.5'"),
        ({"density": float("nan")}, "Received: density=nan"),
        ({"density": 1.0}, "There is nothing to prune"),
        ({"count": 1, "layers": ["c"]}, "expected some of \\['a', 'b'\\]"),
        ({"count": 1, "layers": []}, "must list growable layers"),
        ({"count": 1, "layers": "a"}, "must list growable layers"),
        ({"count": 1, "score": scores.ActivationMagnitude()}, "Received: data=None"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(arguments, message):
    model = _network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        prune(model, **arguments)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_score_must_be_an_object_that_returns_one_finite_number_per_connection():
    class WrongShape(scores.Score):
        def __call__(self, connections):
            return connections.weight[:1]

    class NotFinite(scores.Score):
        def __call__(self, connections):
            return connections.weight / 0.0

    model = _network()
    with pytest.raises(TypeError, match="`score` must be an object of a subclass"):
        prune(model, count=1, score="magnitude")
    with pytest.raises(ValueError, match="one number per connection"):
        prune(model, count=1, score=WrongShape())
    with pytest.raises(ValueError, match="Scores must be finite"):
        prune(model, count=1, score=NotFinite())
    assert all(mask.all() for mask in _masks(model))


def test_frozen_layers_are_left_alone_and_a_wholly_frozen_model_is_refused():
    model = _network()
    model.get_layer("a").trainable = False
    record = prune(model, density=0.5)
    assert [layer.name for layer in record.layers] == ["b"]
    assert model.get_layer("a").density == 1
    model.trainable = False
    with pytest.raises(ValueError, match="no trainable growable layer"):
        prune(model, density=0.25)


@pytest.mark.parametrize("how", [{"density": 0.3}, {"count": 9, "per_layer": True}])
@pytest.mark.parametrize("layer_class", [GrowableDense, WeightNormDense])
def test_nothing_is_sorted_to_prune_many(monkeypatch, layer_class, how):
    def refuse(*args, **options):
        raise AssertionError("a sort")

    model = _network(layer_class)
    for module, name in [(tf.math, "top_k"), (tf, "sort"), (tf, "argsort"), (tf, "unique")]:
        monkeypatch.setattr(module, name, refuse)
    for name in ("sort", "argsort", "lexsort", "unique"):
        monkeypatch.setattr(np, name, refuse)
    prune(model, threshold=0.1)
    prune(model, **how)
