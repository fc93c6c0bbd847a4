"""What rules say of layers without kernels, against what the layers compute."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_grow.structure.rules import UnitsMixed, keeps_units_apart, places_behind, rule_for

UNITS = 4
POSITIONS = {
    "relu": (layers.ReLU(), (None, 3, UNITS)),
    "activation": (layers.Activation("tanh"), (None, 3, UNITS)),
    "batch normalization": (layers.BatchNormalization(), (None, 3, UNITS)),
    "of the last axis by its number": (layers.BatchNormalization(axis=2), (None, 3, UNITS)),
    "pooling": (layers.MaxPooling1D(2), (None, 6, UNITS)),
    "global pooling": (layers.GlobalMaxPooling2D(), (None, 3, 2, UNITS)),
    "upsampling": (layers.UpSampling1D(2), (None, 3, UNITS)),
    "permuted": (layers.Permute((2, 1, 3)), (None, 3, 2, UNITS)),
    "flatten": (layers.Flatten(), (None, 3, 2, UNITS)),
    "flattened in part": (layers.Reshape((3, 2 * UNITS)), (None, 3, 2, UNITS)),
    "other positions": (layers.Reshape((2, 3, UNITS)), (None, 3, 2, UNITS)),
    "other positions, counted": (layers.Reshape((6, -1)), (None, 3, 2, UNITS)),
    "padding": (layers.ZeroPadding1D(1), (None, 3, UNITS)),
    "depthwise": (layers.DepthwiseConv1D(2, depth_multiplier=3), (None, 4, UNITS)),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_places_are_those_that_hang_on_a_unit_and_on_no_other(name):
    layer, shape = POSITIONS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *shape[1:])).astype("float32")
    before = np.asarray(layer(x))
    (places,) = places_behind(layer, [shape])
    assert places.shape[0] == UNITS
    # Together they are all of the last axis of the output, each once.
    assert sorted(places.reshape(-1).tolist()) == list(range(before.shape[-1]))
    for unit, at in enumerate(places):
        changed = x.copy()
        changed[..., unit] += random.normal(size=changed.shape[:-1]) + 3
        moved = np.abs(np.asarray(layer(changed)) - before).reshape(-1, before.shape[-1]).max(0)
        assert np.flatnonzero(moved).tolist() == sorted(at)


@pytest.mark.parametrize(
    ("layer", "shape", "why"),
    [
        (layers.BatchNormalization(axis=1), (None, 3, UNITS), "it normalizes axis 1, not the last"),
        (layers.Permute((3, 1, 2)), (None, 3, 2, UNITS), "to another axis than the last"),
        (layers.Activation("softmax"), (None, UNITS), "its activation mixes units"),
        (layers.LayerNormalization(), (None, 3, UNITS), "mean and variance run over them"),
        (layers.Reshape((3, 2)), (None, 6), "are cut up"),
        (layers.Reshape((2, 6)), (None, 3, UNITS), "are cut up"),
        (layers.DepthwiseConv1D(2, activation="softmax"), (None, 4, UNITS), "mixes units"),
        (layers.Lambda(lambda x: x), (None, UNITS), "not known to keep units apart"),
    ],
)
def test_what_mixes_units_is_said(layer, shape, why):
    with pytest.raises(UnitsMixed, match=why):
        places_behind(layer, [shape])


@pytest.mark.parametrize("axis", [1, [1, 2], -2])
@pytest.mark.parametrize("kind", [layers.LayerNormalization, layers.RMSNormalization])
def test_a_normalization_of_other_axes_is_not_followed_even_if_asked(kind, axis):
    with pytest.raises(UnitsMixed, match="not the last alone"):
        places_behind(kind(axis=axis), [(None, 3, UNITS)], over_units=True)
    for last in (-1, 2):
        (places,) = places_behind(kind(axis=last), [(None, 3, UNITS)], over_units=True)
        assert places.tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize("center", [True, False])
def test_a_normalization_without_scale_is_its_offset(center):
    layer = layers.LayerNormalization(center=center)
    layer.build((None, 3))
    layer.gamma.assign([1, 0, 0])
    if center:
        layer.beta.assign([1, 2, 0])
    found = rule_for(layer).constants(layer, [np.full(3, np.nan)], [(None, 3)])
    np.testing.assert_array_equal(found, [np.nan, 2 if center else 0, 0])
    layer = layers.LayerNormalization(scale=False)
    layer.build((None, 3))
    found = rule_for(layer).constants(layer, [np.zeros(3)], [(None, 3)])
    assert np.isnan(found).all()


def test_a_root_mean_square_of_fewer_units_is_the_same():
    """Of 8 units 3 are 0 for ever, and leave the mean."""
    layer = layers.RMSNormalization(epsilon=0.3)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    x[:, 5:] = 0
    expected = np.asarray(layer(x))[:, :5]
    rule = rule_for(layer)
    copy = layers.RMSNormalization(**rule.changes(layer, 5))
    copy.build((None, 5))
    ((attribute, scale),) = rule.scales(layer, copy).items()
    variable = getattr(copy, attribute)
    variable.assign(variable * scale)
    np.testing.assert_allclose(copy(x[:, :5]), expected, rtol=1e-5)


def test_a_reshape_to_its_units_has_as_many_in_the_copy():
    for target, changes in (
        ((3, -1), {}),
        ((3, UNITS), {"target_shape": (3, 2)}),
        ((-1, UNITS), {"target_shape": (-1, 2)}),
    ):
        layer = layers.Reshape(target)
        assert rule_for(layer).changes(layer, 2) == changes
    assert rule_for(layers.Flatten()).changes(layers.Flatten(), 2) == {}


def test_merged_units_are_those_of_the_same_number():
    shapes = [(None, UNITS)] * 3
    assert all(p.tolist() == [[0], [1], [2], [3]] for p in places_behind(layers.Add(), shapes))
    assert len(places_behind(layers.Add(), shapes[:2])) == 2
    with pytest.raises(UnitsMixed, match="not known"):
        places_behind(layers.Add(), shapes[:1])
    with pytest.raises(UnitsMixed, match="different numbers of units"):
        places_behind(layers.Add(), [(None, 4), (None, 1)])


@pytest.mark.parametrize("axis", [-1, 2])
def test_concatenated_units_lie_side_by_side_and_along_another_axis_together(axis):
    shapes = [(None, 5, 2), (None, 5, 3)]
    one, other = places_behind(layers.Concatenate(axis=axis), shapes)
    assert (one.tolist(), other.tolist()) == ([[0], [1]], [[2], [3], [4]])
    along = layers.Concatenate(axis=1)
    one, other = places_behind(along, [(None, 5, 2), (None, 6, 2)])
    assert one.tolist() == other.tolist() == [[0], [1]]
    constants = [np.array([1.0, 2.0]), np.array([1.0, 3.0])]
    shapes = [(None, 5, 2), (None, 6, 2)]
    found = rule_for(along).constants(along, constants, shapes)
    np.testing.assert_array_equal(found, [1, np.nan])


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Add(), [0, 3, np.nan]),
        (layers.Multiply(), [0, 2, 0]),
        (layers.Maximum(), [0, 2, np.nan]),
        (layers.Average(), [0, 1.5, np.nan]),
    ],
)
def test_constants_of_merged_units(layer, expected):
    constants = [np.array([0.0, 1, 0]), np.array([0.0, 2, np.nan])]
    found = rule_for(layer).constants(layer, constants, [(None, 3)] * 2)
    np.testing.assert_array_equal(found, expected)


def test_rules_say_whether_values_move():
    moving = {layers.MaxPooling1D(2), layers.Permute((1, 2)), layers.ZeroPadding1D(1)}
    moving.add(layers.DepthwiseConv1D(2))
    assert all(rule_for(layer).moves for layer in moving)
    still = (layers.ReLU(), layers.Add(), layers.BatchNormalization(), layers.Concatenate())
    assert not any(rule_for(layer).moves for layer in still)
    assert [rule_for(x).adds for x in (layers.Add(), layers.Multiply())] == [True, False]


@pytest.mark.parametrize(
    ("activation", "is_apart"),
    [
        (None, True),
        ("relu", True),
        ("softmax", False),
        (lambda x: x[:, ::-1], False),
        (lambda x: x[:, :2], False),
        (lambda x: x + keras.ops.mean(x, axis=-1, keepdims=True), False),
        (lambda x: x - 1, True),
    ],
)
def test_activations_are_tried(activation, is_apart):
    assert keeps_units_apart(keras.activations.get(activation)) == is_apart
