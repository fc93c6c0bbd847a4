import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import (
    GradientMeter,
    GrowableConv2D,
    GrowableDense,
    convert_optimizer,
    grow_feature_maps,
    make_sparse,
    report,
    widen,
)
from keras_grow.areas import PartialAreaConv2D, make_partial_area


@pytest.fixture
def data():
    """64 images of two maps, in three classes."""
    random = np.random.default_rng(0)
    labels = np.arange(64) % 3
    x = random.normal(size=(64, 6, 6, 2)) + random.normal(size=(3, 6, 6, 2))[labels]
    return x.astype("float32"), labels


def _network(second=GrowableConv2D, is_normalized=False, filters=4, born=2):
    """Two convolutions and a Dense; of each convolution's maps, the first `born` are alive."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6, 6, 2)),
        GrowableConv2D(filters, 3, name="first", activation=None if is_normalized else "relu"),
        *([keras.layers.BatchNormalization(name="normalization")] if is_normalized else []),
        *([keras.layers.Activation("relu")] if is_normalized else []),
        second(filters, 3, activation="relu", name="second"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        GrowableDense(3, name="classes"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    alive = np.arange(filters) < born
    for name, inputs, units in [
        ("first", np.ones(2, bool), alive),
        ("second", alive, alive),
        ("classes", alive, np.ones(3, bool)),
    ]:
        layer = model.get_layer(name)
        mask = np.broadcast_to(inputs[:, None] & units, layer.kernel.shape)
        layer.kernel_mask.assign(mask)
        layer.kernel.assign(np.where(mask, layer.kernel.numpy(), 0))
    return model


def _loss(model, data):
    return model.evaluate(*data, verbose=0)


def test_the_best_of_the_candidates_is_born(data):
    model = _network()
    before = _loss(model, data)
    record = grow_feature_maps(model, data, "first", count=2, candidates=8)
    assert list(record.layer.units) == [2, 3]
    np.testing.assert_allclose(record.loss_before, before, rtol=1e-5)
    assert [len(losses) for losses in record.losses] == [8, 8]
    # The second map was tried beside the first.
    np.testing.assert_allclose(record.loss, min(record.losses[1]), rtol=0)
    np.testing.assert_allclose(_loss(model, data), record.loss, rtol=1e-5)
    # 18 connections into each map; 9 to each of the second layer's two that are not dormant.
    assert (record.layer.num_incoming, record.layer.num_outgoing) == (36, 36)
    assert record.layer.num_connected == record.layer.units.size + 2
    assert str(record).startswith("2 feature maps and 72 connections born, 4 connected in 'first'")


def test_candidates_differ_and_depend_on_seed_and_step_alone(data):
    losses = [
        grow_feature_maps(_network(), data, "first", candidates=3, seed=seed).losses[0]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1]
    assert len({*losses[0], *losses[2]}) == 6
    trained = _network()
    trained.optimizer.iterations.assign(5)
    assert grow_feature_maps(trained, data, "first", candidates=3).losses[0] != losses[0]


def test_the_best_of_many_is_better_than_the_mean_of_one(data):
    changes = []
    for seed in range(6):
        record = grow_feature_maps(_network(), data, "first", candidates=6, seed=seed)
        changes.append((record.loss - record.loss_before, record.losses[0][0] - record.loss_before))
    best, first = np.mean(changes, axis=0)
    assert best < min(0, first)


@pytest.mark.parametrize("layer", ["first", "second"])
def test_maps_are_born_before_a_convolution_and_before_flatten(data, layer):
    model = _network(is_normalized=True)
    model.fit(*data, epochs=2, verbose=0)
    if layer == "first":
        model.get_layer("normalization").moving_variance.assign([0.5, 0.5, 9.0, 9.0])
    record = grow_feature_maps(model, data, layer, candidates=2)
    np.testing.assert_allclose(_loss(model, data), record.loss, rtol=1e-5)
    if layer == "first":
        assert model.get_layer("normalization").moving_variance.numpy()[2] == 1
        assert model.get_layer("normalization").moving_variance.numpy()[3] == 9
    else:  # 2 x 2 positions are pooled to one, which 3 classes read.
        assert record.layer.num_outgoing == 3
    losses = model.fit(*data, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_readers_may_be_sparse_and_say_when_they_are_full(data):
    full = make_sparse(_network(), ["classes"])
    full.compile("adam", full_loss := keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = full.get_weights()
    with pytest.raises(keras_grow.errors.CapacityUsedUp, match="layer 'classes' has room for 0"):
        grow_feature_maps(full, data, "second")
    for a, b in zip(before, full.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    roomy = make_sparse(_network(), ["classes"], capacity=1.0)
    roomy.compile("adam", full_loss)
    roomy.fit(*data, verbose=0)
    record = grow_feature_maps(roomy, data, "second", candidates=2)
    np.testing.assert_allclose(_loss(roomy, data), record.loss, rtol=1e-5)


def test_slots_of_a_newborn_start_afresh_and_nothing_is_traced_again(data):
    class TraceCounter(keras.Sequential):
        traces = 0

        def train_step(self, batch):
            self.traces += 1
            return super().train_step(batch)

    model = TraceCounter(_network().layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data, epochs=2, verbose=0)
    traces = model.traces
    grow_feature_maps(model, data, "first", candidates=2)
    layer = model.get_layer("first")
    for slot in keras_grow.optimizer_slots.slots(model.optimizer, layer.kernel).values():
        assert not slot.numpy()[..., 2].any()
        assert slot.numpy()[..., 0].any()
    model.fit(*data, epochs=2, verbose=0)
    assert model.traces == traces


def test_a_full_layer_is_widened_and_grows_on(data):
    model = _network(born=4)
    model.fit(*data, verbose=0)
    with pytest.raises(ValueError, match=r"widen\(model, 'first', 5\)"):
        grow_feature_maps(model, data, "first")
    wider = widen(model, "first", 6)
    np.testing.assert_allclose(wider(data[0]), model(data[0]), rtol=0, atol=1e-5)
    assert report(wider).num_active == report(model).num_active
    wider.compile(convert_optimizer(model, wider), model.loss)
    for each in (model, wider):
        each.fit(*data, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(wider(data[0]), model(data[0]), rtol=0, atol=1e-4)
    grow_feature_maps(wider, data, "first", count=2, candidates=2)
    # Through Flatten too, where the inputs of the Dense are renumbered.
    widest = widen(wider, "second", 7)
    np.testing.assert_allclose(widest(data[0]), wider(data[0]), rtol=0, atol=1e-5)
    widest.compile("adam", model.loss)
    assert grow_feature_maps(widest, data, "second", count=3, candidates=2).count == 3


def test_new_maps_of_a_partial_area_convolution_are_computed_everywhere(data):
    partial = make_partial_area(_network(born=4))
    partial.compile("adam", _network().loss)
    area = np.random.default_rng(0).random((4, 4, 2, 4)) < 0.5
    partial.get_layer("first").area_mask.assign(area)
    wider = widen(partial, "first", 5)
    assert isinstance(wider.get_layer("first"), PartialAreaConv2D)
    np.testing.assert_array_equal(wider.get_layer("first").area_mask[..., :4], area)
    assert tf.reduce_all(wider.get_layer("first").area_mask[..., 4])
    np.testing.assert_allclose(wider(data[0]), partial(data[0]), rtol=0, atol=1e-5)


def test_where_it_cannot_work_it_says_why_and_leaves_the_model(data):
    model = _network()
    model.fit(*data, verbose=0)
    before = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    for arguments, words in [
        ({"layer": "classes"}, "units of an output layer are the model's answer"),
        ({"layer": "absent"}, r"expected some of \['first', 'second', 'classes'\]"),
        ({"layer": "first", "count": 0}, "`count` must be a positive integer"),
        ({"layer": "first", "candidates": 1.5}, "`candidates` must be a positive integer"),
        ({"layer": "first", "birth_strength": 0}, "Received: birth_strength=0"),
        ({"layer": "first", "count": 3}, "with 2 of them among 4"),
        ({"layer": "first", "birth_strength": 1e30}, "must be finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            grow_feature_maps(model, data, **arguments)
    for a, v in zip(before, (*model.variables, *model.optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, v.numpy())
    layers = [*_network().layers[:-1], keras.layers.Dense(3, name="plain")]
    plain = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    plain.compile("adam", model.loss)
    with pytest.raises(ValueError, match=r"read by plain layers \['plain'\]"):
        grow_feature_maps(plain, data, "second")


def test_the_meter_says_how_the_loss_is_measured(data):
    model = _network()
    meter = GradientMeter(loss=lambda y_true, y_pred: tf.reduce_sum(y_pred**2, axis=-1))
    record = grow_feature_maps(model, data, "first", candidates=2, meter=meter)
    np.testing.assert_allclose(record.loss, np.mean(np.sum(model(data[0]) ** 2, -1)), rtol=1e-5)
