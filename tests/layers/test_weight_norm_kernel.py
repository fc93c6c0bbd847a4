"""A direction and a length through growth and pruning, unit by unit."""

import numpy as np
import pytest

from keras_grow import WeightNormDense

# Units: two that live, one without inputs, one whose length is 0.
_KERNEL = np.array(
    [[0.5, -1.0, 0.0, 2.0], [0.0, 2.0, 0.0, -0.5], [-1.5, 0.0, 0.0, 0.0], [0.0, -0.2, 0.0, 1.0]]
)
LIVES, UNTOUCHED, EMPTY, OF_NO_LENGTH = range(4)


def _layer(dtype="float32"):
    layer = WeightNormDense(4, dtype=dtype)
    layer.build((None, 4))
    layer.kernel_mask.assign(_KERNEL != 0)
    layer.v.assign(_KERNEL)
    layer.g.assign([3.0, 0.5, 0.0, 0.0])
    return layer


def _weights(layer):
    return np.asarray(layer.effective_kernel(), "float64")


def _at(rows, units):
    return np.array([row * 4 + unit for row, unit in zip(rows, units, strict=True)])


def test_weights_are_the_direction_times_the_length():
    lengths = np.linalg.norm(_KERNEL, axis=0)
    expected = _KERNEL * np.divide([3.0, 0.5, 0, 0], lengths, where=lengths > 0, out=np.zeros(4))
    np.testing.assert_allclose(_weights(_layer()), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e25])
def test_grown_weights_stand_beside_the_others_and_new_directions_start_afresh(size):
    layer = _layer()
    before = _weights(layer)
    indices = _at([1, 2, 3], [LIVES, EMPTY, LIVES])
    indices = np.sort(np.append(indices, _at([2], [OF_NO_LENGTH])))
    values = size * np.array([0.25, -0.75, 1.5, -2.0], "float32")
    changes = layer.grow_connections(indices, values)
    expected = before.copy()
    expected.flat[indices] = values
    found = _weights(layer)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * size)
    np.testing.assert_allclose(layer.g, np.linalg.norm(expected, axis=0), rtol=1e-4)
    np.testing.assert_array_equal(found[:, UNTOUCHED], before[:, UNTOUCHED])
    of_variable = {change.variable is layer.g: np.asarray(change.indices) for change in changes}
    assert of_variable[False].tolist() == indices.tolist()
    # The length of a unit that lived goes on with its moments.
    assert of_variable[True].tolist() == [EMPTY, OF_NO_LENGTH]


@pytest.mark.parametrize("gradient", [None, [1.0, -1.0, 2.0]])
def test_grown_at_zero_all_stays_and_an_empty_unit_gets_a_direction(gradient):
    layer = _layer()
    before = _weights(layer)
    indices = _at([0, 1, 2], [EMPTY, LIVES, EMPTY])
    gradient = None if gradient is None else np.array(gradient, "float32")
    changes = layer.grow_connections(indices, np.zeros(3, "float32"), gradient)
    np.testing.assert_allclose(_weights(layer), before, rtol=1e-6)
    (born,) = [change.indices for change in changes if change.variable is layer.g]
    assert np.asarray(born).tolist() == [EMPTY]
    direction = layer.v.numpy()[:, EMPTY]
    # As large as the others are in the mean.
    size = np.abs(_KERNEL[_KERNEL != 0]).mean()
    signs = [1, 1] if gradient is None else [-1, -1]
    np.testing.assert_allclose(direction, np.array([signs[0], 0, signs[1], 0]) * size, rtol=1e-6)
    assert layer.g.numpy()[EMPTY] == 0


def test_in_an_empty_layer_directions_are_as_small_as_the_papers():
    layer = WeightNormDense(2, initial_density=0.0)
    layer.build((None, 3))
    layer.grow_connections(np.array([1]), np.zeros(1, "float32"))
    assert layer.v.numpy().tolist() == [[0, np.float32(0.05)], [0, 0], [0, 0]]


def test_what_is_cut_goes_and_the_others_keep_their_weights():
    layer = _layer()
    before = _weights(layer)
    indices = _at([0, 0, 1, 3], [UNTOUCHED, LIVES, UNTOUCHED, UNTOUCHED])
    layer.prune_connections(np.sort(indices))
    expected = before.copy()
    expected.flat[indices] = 0
    np.testing.assert_allclose(_weights(layer), expected, rtol=1e-6)
    assert layer.g.numpy()[UNTOUCHED] == 0
    np.testing.assert_allclose(layer.g.numpy()[LIVES], np.abs(before[2, LIVES]), rtol=1e-6)


def test_a_unit_lives_by_any_weight_whatever_its_sign_and_size():
    for weight in (1.0, -1.0, -1e-20, 2.0):
        layer = WeightNormDense(1, initial_density=0.0)
        layer.build((None, 3))
        layer.grow_connections(np.array([1]), np.array([weight], "float32"))
        changes = layer.grow_connections(np.array([2]), np.array([0.0], "float32"))
        np.testing.assert_allclose(_weights(layer)[:, 0], [0, weight, 0], rtol=1e-6)
        (born,) = [change.indices for change in changes if change.variable is layer.g]
        assert len(born) == 0
