"""grow(): which connections, with which values, and nothing else.

That the connections chosen lower the loss most is held by measuring/test_first_order.py; what
scores and start values do to growth by connections/test_policies_in_growth.py.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GradientMeter,
    GrowableDense,
    WeightNormDense,
    densities,
    grow,
    growable_layers,
    growth_gradients,
)
from keras_grow.errors import NothingToChange
from keras_grow.optimizer_slots import slots
from keras_grow.records import ChangeRecord


def _masks(model):
    return [layer.kernel_mask.numpy() for layer in growable_layers(model)]


def _best_first(model, promises):
    """(layer, flat index) of all dormant connections, largest promise first, then by place."""
    dormant = [np.flatnonzero(~mask) for mask in _masks(model)]
    places = [(number, int(i)) for number, indices in enumerate(dormant) for i in indices]
    return sorted(places, key=lambda place: (-promises[place[0]].flat[place[1]], place))


def _promises(model, data):
    return [np.abs(gradient) for gradient in growth_gradients(model, data).values()]


def _places(record):
    return {(n, int(i)) for n, layer in enumerate(record.layers) for i in layer.indices}


@pytest.mark.parametrize("count", [1, 20, 131])
def test_exactly_the_dormant_connections_of_largest_gradient_wake(blobs, classifier, count):
    order = _best_first(classifier, _promises(classifier, blobs))
    before = _masks(classifier)
    record = grow(classifier, blobs, count=count)
    assert _places(record) == set(order[:count])
    for mask, mask_before, change in zip(_masks(classifier), before, record.layers, strict=True):
        expected = mask_before.copy()
        expected.flat[change.indices.numpy()] = True
        np.testing.assert_array_equal(mask, expected)


def test_per_layer_each_layer_grows_its_own_best(blobs, classifier):
    order = _best_first(classifier, _promises(classifier, blobs))
    expected = [sorted([i for n, i in order if n == number][:7]) for number in (0, 1)]
    record = grow(classifier, blobs, count=7, per_layer=True)
    assert [layer.indices.numpy().tolist() for layer in record.layers] == expected


def test_growth_at_zero_keeps_outputs_bit_identical(blobs, classifier):
    classifier.fit(*blobs, verbose=0)
    normalized = classifier.get_layer("classes")
    dead_unit = np.flatnonzero(normalized.kernel_mask.numpy()[:, 1]) * 3 + 1
    normalized.prune_connections(dead_unit)
    outputs = classifier(blobs[0]).numpy()
    for _ in range(3):
        grow(classifier, blobs, count=30)
        assert classifier(blobs[0]).numpy().tobytes() == outputs.tobytes()
    assert normalized.kernel_mask.numpy()[:, 1].any()


def test_a_dead_unit_with_weight_norm_learns_after_it_grew_at_zero(blobs):
    layer = WeightNormDense(3, "softmax", initial_density=1.0)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    layer.prune_connections(np.arange(8) * 3 + 1)
    assert layer.g.numpy()[1] == 0
    grow(model, blobs, count=3)
    grown = layer.kernel_mask.numpy()[:, 1]
    assert grown.sum() == 3
    np.testing.assert_array_equal(layer.effective_kernel().numpy()[:, 1], 0)
    gradient = next(iter(growth_gradients(model, blobs).values())).numpy()[:, 1]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=blobs[1], y_pred=model(blobs[0]))
    # Every grown connection pulls the gain the same way: its direction is down the gradient.
    assert tape.gradient(loss, layer.g.value)[1] < 0
    np.testing.assert_array_equal(np.sign(layer.v.numpy()[grown, 1]), -np.sign(gradient[grown]))
    model.fit(*blobs, epochs=1, verbose=0)
    learnt = layer.effective_kernel().numpy()[:, 1]
    assert (np.sign(learnt[grown]) == -np.sign(gradient[grown])).all()
    np.testing.assert_array_equal(learnt[~grown], 0)


def test_more_than_is_dormant_takes_all_and_then_nothing_is_left(blobs, classifier):
    assert grow(classifier, blobs, count=10_000).count == 132
    assert all(mask.all() for mask in _masks(classifier))
    with pytest.raises(NothingToChange, match="nothing to grow"):
        grow(classifier, blobs, count=1)


def test_a_density_is_reached_exactly(blobs, classifier):
    record = grow(classifier, blobs, density=0.4)
    assert record.num_active == sum(mask.sum() for mask in _masks(classifier)) == 70
    record = grow(classifier, blobs, density=0.6, per_layer=True)
    # 0.6 of 128 and of 48 to the nearest integer, where a layer is not denser already.
    assert [layer.num_active for layer in record.layers] == [
        77,
        max(29, record.layers[1].num_active),
    ]
    with pytest.raises(NothingToChange, match="below the density to reach"):
        grow(classifier, blobs, density=0.3)


def test_a_distribution_gives_each_layer_its_own_density(blobs, classifier):
    record = grow(classifier, blobs, density=densities.ErdosRenyi(0.5))
    # 88 connections shared as (8 + 16) : (16 + 3).
    assert [layer.num_active for layer in record.layers] == [49, 39]
    with pytest.raises(NothingToChange):
        grow(classifier, blobs, density=densities.ErdosRenyi(0.5))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one of `count`"),
        ({"count": 3, "density": 0.5}, "exactly one of `count`"),
        ({"count": 0}, "`count` must be a positive integer"),
        ({"count": 2.0}, "`count` must be a positive integer"),
        ({"count": True}, "`count` must be a positive integer"),
        ({"density": 1.5}, "`density` must be a number from 0"),
        ({"density": 0.0}, "leaves no connection"),
        ({"count": 1, "layers": ["absent"]}, "`layers` must list growable layers"),
        ({"count": 1, "layers": "hidden"}, "`layers` must list growable layers"),
        ({"count": 1, "layers": []}, "`layers` must list growable layers"),
        ({"count": 1, "score": "gradient"}, "`score` must be an object of a subclass"),
        ({"count": 1, "start_value": 0.0}, "`start_value` must be an object of a subclass"),
    ],
)
def test_arguments_out_of_range_are_refused_in_words(blobs, classifier, arguments, words, snapshot):
    before = snapshot(classifier)
    with pytest.raises((ValueError, TypeError), match=words):
        grow(classifier, blobs, **arguments)
    snapshot.assert_same(classifier, before)


@pytest.mark.parametrize("by_name", [True, False])
def test_only_the_layers_asked_for_grow(blobs, classifier, by_name):
    hidden, classes = growable_layers(classifier)
    before = hidden.kernel_mask.numpy()
    record = grow(classifier, blobs, count=5, layers=["classes" if by_name else classes])
    assert [(layer.name, layer.count) for layer in record.layers] == [("classes", 5)]
    np.testing.assert_array_equal(hidden.kernel_mask.numpy(), before)


def test_frozen_layers_are_left_alone(blobs, classifier):
    hidden, classes = growable_layers(classifier)
    hidden.trainable = False
    before = hidden.kernel_mask.numpy()
    record = grow(classifier, blobs, density=1.0)
    assert [layer.name for layer in record.layers] == ["classes"]
    np.testing.assert_array_equal(hidden.kernel_mask.numpy(), before)
    classes.trainable = False
    with pytest.raises(ValueError, match="no trainable growable layer"):
        grow(classifier, blobs, count=1)


def test_a_frozen_layer_asked_for_by_name_is_refused(blobs, classifier, snapshot):
    classifier.get_layer("hidden").trainable = False
    before = snapshot(classifier)
    with pytest.raises(ValueError, match="hidden"):
        grow(classifier, blobs, count=1, layers=["hidden"])
    snapshot.assert_same(classifier, before)


def test_the_record_tells_what_was_done(blobs, classifier):
    loss = classifier.evaluate(*blobs, verbose=0)[0]
    record = grow(classifier, blobs, count=np.int64(10))
    assert isinstance(record, ChangeRecord)
    assert [layer.name for layer in record.layers] == ["hidden", "classes"]
    assert [layer.num_active for layer in record.layers] == [m.sum() for m in _masks(classifier)]
    assert (record.count, record.num_active, record.num_connections) == (10, 54, 176)
    assert record.density == 54 / 176
    assert record.loss == pytest.approx(loss, rel=1e-5)
    assert record.seconds > 0
    assert all(layer.indices.dtype == tf.int64 for layer in record.layers)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.loss = 0.0


def test_a_custom_loop_passes_its_optimizer_and_its_loss(blobs, classifier):
    model = keras.Sequential(classifier.layers)
    model.build((None, 8))
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    hidden, _ = growable_layers(model)
    for slot in slots(optimizer, hidden.kernel).values():
        slot.assign(tf.ones_like(slot))
    meter = GradientMeter(loss="sparse_categorical_crossentropy")
    record = grow(model, blobs, count=20, meter=meter, optimizer=optimizer)
    expected = np.ones((8, 16))
    expected.flat[record.layers[0].indices.numpy()] = 0
    assert record.layers[0].count > 0
    assert len(slots(optimizer, hidden.kernel)) == 2
    for slot in slots(optimizer, hidden.kernel).values():
        np.testing.assert_array_equal(slot, expected)


def test_in_a_custom_loop_dropout_draws_afresh_at_every_step_of_the_optimizer(blobs):
    layers = [keras.layers.Dropout(0.5), GrowableDense(3, "softmax", initial_density=0.2)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    meter = GradientMeter(loss="sparse_categorical_crossentropy")
    losses = []
    for step in (0, 0, 1):
        optimizer.iterations.assign(step)
        losses.append(grow(model, blobs, count=1, meter=meter, optimizer=optimizer).loss)
    # Growth at 0 leaves the loss as it was, so that only the draw tells the steps apart.
    assert losses[0] == losses[1] != losses[2]


def test_in_a_custom_loop_the_optimizers_loss_scale_keeps_small_gradients(blobs):
    def grown(factor, loss_scale):
        def loss(y_true, y_pred):
            return factor * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

        layers = [
            GrowableDense(16, "tanh", initial_density=0.3, seed=0, dtype="mixed_float16"),
            GrowableDense(3, "softmax", dtype="mixed_float16"),
        ]
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), *layers])
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(), initial_scale=loss_scale
        )
        return _places(
            grow(model, blobs, count=10, meter=GradientMeter(loss=loss), optimizer=optimizer)
        )

    # Without the scale, gradients of this size are 0 in float16.
    assert grown(2.0**-26, 2.0**30) == grown(1.0, 2.0**4)


def test_under_an_l1_penalty_growth_ranks_by_gradient_less_penalty(blobs):
    def network(penalty):
        keras.utils.set_random_seed(0)
        regularizer = keras.regularizers.L1(penalty)
        layers = [
            GrowableDense(6, "tanh", kernel_regularizer=regularizer, initial_density=0.3),
            GrowableDense(3, "softmax", initial_density=0.3),
        ]
        model = keras.Sequential([keras.Input((8,)), *layers])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    def unpenalized_loss(model, x, y, sample_weight):
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, model(x)))

    model = network(1.0)
    plain = growth_gradients(model, blobs, loss=unpenalized_loss)
    promise = [np.abs(plain[layer]) for layer in model.layers]
    order = _best_first(model, promise)
    # By the penalty, the last of the eight best that bears one gets behind the ninth that does not.
    bears_one = next(place for place in reversed(order[:8]) if place[0] == 0)
    bears_none = next(place for place in order[8:] if place[0] == 1)
    gap = promise[0].flat[bears_one[1]] - promise[1].flat[bears_none[1]]
    penalty = float(gap) + 1e-3

    model = network(penalty)
    layers = model.layers
    plain = growth_gradients(model, blobs, loss=unpenalized_loss)
    for layer, gradient in growth_gradients(model, blobs).items():
        # At 0 the penalty has no derivative, and the growth gradient leaves it out.
        dormant = ~layer.kernel_mask.numpy()
        np.testing.assert_allclose(gradient[dormant], plain[layer][dormant], atol=1e-7)
    promise = [np.abs(plain[layers[0]]) - penalty, np.abs(plain[layers[1]])]
    expected = set(_best_first(model, promise)[:8])
    assert expected != set(order[:8])
    assert _places(grow(model, blobs, count=8)) == expected


def test_layers_in_different_precisions_compete(blobs):
    layers = [
        GrowableDense(6, "tanh", initial_density=0.3, dtype="float64"),
        GrowableDense(3, "softmax", initial_density=0.3),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy")
    order = _best_first(model, _promises(model, blobs))
    assert _places(grow(model, blobs, count=9)) == set(order[:9])
