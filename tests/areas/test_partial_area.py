import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableConv2D,
    GrowableDense,
    convert_optimizer,
    export_saved_model,
    make_plain,
    report,
)
from keras_grow.areas import PartialAreaConv2D, make_partial_area, prune_areas
from keras_grow.errors import NothingToChange


@pytest.fixture
def x():
    """32 images of two maps."""
    return np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")


@pytest.fixture
def model(x):
    """A partial-area convolution of 4 x 4 positions, with a pair without connections, and more."""
    convolution = PartialAreaConv2D(3, 3, activation="relu", name="convolution")
    network = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            convolution,
            keras.layers.Flatten(),
            GrowableDense(2, name="outputs"),
        ]
    )
    mask = np.ones(convolution.kernel.shape, bool)
    mask[:, :, 1, 2] = False
    convolution.kernel_mask.assign(mask)
    network.compile("adam", "mse")
    return network


def _contributions(layer, x):
    """Mean magnitude of what each pair of maps contributes, by NumPy."""
    kernel = layer.effective_kernel().numpy()
    found = np.zeros(layer.area_mask.shape)
    for p, q, c, o in np.ndindex(found.shape):
        patch = x[:, p : p + 3, q : q + 3, c]
        found[p, q, c, o] = np.abs(np.sum(patch * kernel[:, :, c, o], axis=(1, 2))).mean()
    return found


def test_each_pair_loses_the_positions_where_it_contributes_least(model, x):
    layer = model.get_layer("convolution")
    contributions = _contributions(layer, x)
    record = prune_areas(model, (x,), share=0.25, batch_size=10)
    area = layer.area_mask.numpy()
    for c, o in np.ndindex(2, 3):
        if (c, o) == (1, 2):
            assert area[:, :, c, o].all()
            continue
        of_pair = contributions[:, :, c, o]
        np.testing.assert_array_equal(area[:, :, c, o], of_pair > np.sort(of_pair.ravel())[3])
    assert record.layers[0].num_pruned == 5 * 4
    assert record.layers[0].area == 0.75
    # 45 weights of the convolution at 16 positions, 96 of the outputs.
    assert record.flops_before == 2 * (45 * 16 + 96)
    assert record.flops == report(model).flops == 2 * (45 * 12 + 96)
    assert str(record) == "area computed: convolution 75.0%; 1,632 FLOPs before, 1,272 now"


def test_over_a_whole_layer_the_smallest_contributions_go(model, x):
    layer = model.get_layer("convolution")
    contributions = _contributions(layer, x)
    contributions[:, :, 1, 2] = np.inf
    prune_areas(model, (x,), share=0.25, per_pair=False)
    limit = np.sort(contributions.ravel())[19]
    np.testing.assert_array_equal(layer.area_mask.numpy(), contributions > limit)


def test_rounds_add_up_until_nothing_is_left(model, x):
    for left in (0.5, 0.0):
        record = prune_areas(model, (x,), share=0.5)
        assert record.layers[0].area == left
    with pytest.raises(NothingToChange, match="no area to prune"):
        prune_areas(model, (x,), share=0.5)


def test_what_is_left_out_does_little_and_training_makes_up_for_it(model, x):
    # Bright in the middle, as images of digits are.
    bump = np.exp(-0.5 * (np.arange(6) - 2.5) ** 2)
    x = x * bump[:, None, None] * bump[:, None]
    y = np.stack([x[:, :3].mean((1, 2, 3)), x[:, 3:].mean((1, 2, 3))], axis=1)
    model.fit(x, y, epochs=30, verbose=0)
    outputs, weights = model(x).numpy(), model.get_weights()
    layer = model.get_layer("convolution")

    def change(area):
        model.set_weights(weights)
        layer.area_mask.assign(area)
        return np.abs(model(x) - outputs).mean()

    prune_areas(model, (x,), share=0.3)
    least = layer.area_mask.numpy()
    # The control: as many positions of each pair, at random.
    random = np.random.default_rng(0)
    at_random = [
        change(random.permuted(least.reshape(16, -1), axis=0).reshape(least.shape))
        for _ in range(5)
    ]
    assert 0 < change(least) < min(at_random)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=30, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before
    np.testing.assert_array_equal(layer.area_mask, least)


def test_the_exported_model_computes_the_same(model, x, tmp_path):
    prune_areas(model, (x,), share=0.4)
    export_saved_model(model, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x)["outputs"], model(x), rtol=0, atol=1e-6)


def test_convolutions_are_converted_with_weights_function_and_slots(x):
    network = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            GrowableConv2D(3, 3, initial_density=0.4, name="convolution"),
            keras.layers.Flatten(),
            GrowableDense(2, name="outputs"),
        ]
    )
    network.compile("adam", "mse")
    y = np.zeros((32, 2))
    network.fit(x, y, verbose=0)
    partial = make_partial_area(network)
    assert type(partial.get_layer("convolution")) is PartialAreaConv2D
    np.testing.assert_allclose(partial(x), network(x), rtol=0, atol=1e-5)
    assert partial.get_layer("convolution").num_active == 22
    partial.compile(convert_optimizer(network, partial), "mse")
    for each in (network, partial):
        each.fit(x, y, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(partial(x), network(x), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"layers=\['outputs'\]"):
        make_partial_area(network, ["outputs"])


def test_no_plain_layer_computes_the_same(model):
    with pytest.raises(
        ValueError, match="no layer that computes the same. Received: layer '.*conv"
    ):
        make_plain(model)


def test_bad_arguments_are_refused_and_the_model_stays(model, x):
    area = model.get_layer("convolution").area_mask.numpy()
    with pytest.raises(ValueError, match="`share` must lie between 0 and 1. Received: share=1"):
        prune_areas(model, (x,), share=1)
    with pytest.raises(ValueError, match=r"layers=\['outputs'\]"):
        prune_areas(model, (x,), layers=["outputs"])
    with pytest.raises(ValueError, match="must be finite"):
        prune_areas(model, (np.full_like(x, np.nan),))
    np.testing.assert_array_equal(model.get_layer("convolution").area_mask, area)
