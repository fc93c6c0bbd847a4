"""Connections that come and go take their weights and slots along, as in a dict of them."""

import keras
import numpy as np
import pytest

from keras_grow import ActiveFanIn, SparseDense

SHAPE = 6, 8


def _layer(group_size, **options):
    arguments = {"capacity": 24, "initial_density": 0.25, "seed": 0, **options}
    layer = SparseDense(SHAPE[1], group_size=group_size, **arguments)
    layer.build((None, SHAPE[0]))
    return layer


def _held(layer):
    connections, values = layer.active_connections()
    return dict(zip(connections.numpy().tolist(), values.numpy().tolist(), strict=True))


def _apply(slots, changes, layer):
    """What an optimizer's slots of the values are after the changes; fresh ones are -1."""
    for change in changes:
        assert change.variable is layer.values
        if change.moved_from is not None:
            slots = slots[change.moved_from.numpy()]
        slots[change.indices.numpy()] = -1
    return slots


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_what_stays_keeps_its_weight_and_its_slot_whatever_comes_and_goes(group_size):
    size = group_size
    random = np.random.default_rng(1)
    layer = _layer(group_size)
    num_atoms = SHAPE[0] * SHAPE[1] // size
    for _ in range(12):
        expected = _held(layer)
        # The slot of each connection remembers its weight, as far as this change goes.
        slots = layer.values.numpy().copy()
        atoms = np.unique(np.array(list(expected)) // size)
        dormant = np.setdiff1d(np.arange(num_atoms), atoms)
        if len(atoms) < 2 or (random.random() < 0.5 and layer.num_free >= size):
            most = min(len(dormant), layer.num_free // size, 4)
            new = random.choice(dormant, random.integers(1, most + 1), replace=False)
            indices = (new[:, None] * size + np.arange(size)).reshape(-1)
            random.shuffle(indices)
            values = random.normal(size=len(indices)).astype("float32")
            changes = layer.grow_connections(indices, values)
            expected |= dict(zip(indices.tolist(), values.tolist(), strict=True))
            fresh = set(indices.tolist())
        else:
            gone = random.choice(atoms, random.integers(1, len(atoms)), replace=False)
            indices = (gone[:, None] * size + np.arange(size)).reshape(-1)
            changes = layer.prune_connections(np.sort(indices))
            expected = {key: w for key, w in expected.items() if key // size not in gone}
            fresh = set()
        assert _held(layer) == expected
        kernel = np.zeros(SHAPE[0] * SHAPE[1], "float32")
        kernel[list(expected)] = list(expected.values())
        np.testing.assert_array_equal(layer.effective_kernel(), kernel.reshape(SHAPE))
        slots = _apply(slots, changes, layer)
        connections = np.array(sorted(expected))
        places = layer.slots_of(connections).numpy()
        remembered = dict(zip(connections.tolist(), slots[places].tolist(), strict=True))
        assert remembered == {c: -1 if c in fresh else w for c, w in expected.items()}
        is_used = layer.is_used().numpy()
        assert is_used.sum() == layer.num_active == len(expected)
        assert is_used[places].all()
        assert not layer.values.numpy()[~is_used].any()


@pytest.mark.parametrize("first", [0, 1])
def test_a_single_connection_is_a_connection(first):
    layer = _layer(1, initial_density=0.0)
    assert layer.num_active == 0
    layer.grow_connections(np.array([first]), np.array([2.5], "float32"))
    assert _held(layer) == {first: 2.5}
    with pytest.raises(ValueError, match="Only dormant connections can be grown"):
        layer.grow_connections(np.array([first]))
    with pytest.raises(ValueError, match="Only active connections can be pruned"):
        layer.prune_connections(np.array([1 - first]))
    layer.prune_connections(np.array([first]))
    assert _held(layer) == {}
    with pytest.raises(ValueError, match="Only active connections can be pruned"):
        layer.prune_connections(np.array([first]))


def test_a_layer_has_as_much_room_as_its_capacity():
    layer = _layer(1, capacity=14)
    assert (layer.num_active, layer.num_free) == (12, 2)
    dormant = np.setdiff1d(np.arange(48), list(_held(layer)))
    with pytest.raises(ValueError, match="can hold 14 connections, and 2 of its slots are free"):
        layer.grow_connections(dormant[:3])
    layer.grow_connections(dormant[:2])
    assert layer.num_free == 0


def test_before_it_is_built_it_has_no_connections():
    layer = SparseDense(3, capacity=4)
    for ask in (
        lambda: layer.kernel_shape,
        lambda: layer.kernel_variables,
        lambda: layer.num_active,
        layer.active_connections,
        layer.is_used,
    ):
        with pytest.raises(ValueError, match="no connections before it is built"):
            ask()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_counted(bad):
    layer = _layer(1)
    layer.check_finite()
    values = layer.values.numpy()
    values[[1, 3]] = bad
    layer.values.assign(values)
    with pytest.raises(ValueError, match="'somewhere' stores weights.*Received: 2 of its"):
        layer.check_finite("somewhere")


@pytest.mark.parametrize("group_size", [1, 4])
def test_weights_are_scaled_by_how_many_inputs_their_unit_has(group_size):
    ones = ActiveFanIn(keras.initializers.Ones())
    layer = _layer(group_size, kernel_initializer=ones)
    kernel = layer.effective_kernel().numpy()
    counts = np.count_nonzero(kernel, axis=0)
    assert len(set(counts)) > 1 or group_size > 1
    expected = (kernel != 0) * np.sqrt(SHAPE[0] / counts.clip(min=1))
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
