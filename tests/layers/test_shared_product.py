"""Products with a kernel whose units share their inputs in groups are the dense ones."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_grow.layers.shared_layout import SharedSlots

_TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}


def _random(random, num_inputs, num_groups, capacity):
    return random.choice(num_inputs * num_groups, capacity // 2, replace=False)


def _a_group_with_every_input(random, num_inputs, num_groups, capacity):
    hub = np.arange(num_inputs) * num_groups + num_groups // 2
    rest = _random(random, num_inputs, num_groups, capacity)
    return np.concatenate([hub, np.setdiff1d(rest, hub)])[:capacity]


def _one_input_of_every_group(random, num_inputs, num_groups, capacity):
    hub = num_inputs // 2 * num_groups + np.arange(num_groups)
    rest = _random(random, num_inputs, num_groups, capacity)
    return np.concatenate([hub, np.setdiff1d(rest, hub)])[:capacity]


def _empty(random, num_inputs, num_groups, capacity):
    return np.zeros(0, np.int64)


def _full(random, num_inputs, num_groups, capacity):
    return random.choice(num_inputs * num_groups, capacity, replace=False)


_PATTERNS = [_random, _a_group_with_every_input, _one_input_of_every_group, _empty, _full]


def _atoms(pattern, slots, random):
    return np.sort(pattern(random, slots.shape[0], slots.num_groups, slots.capacity))


def _constants(slots, atoms):
    return {name: tf.constant(array) for name, array in slots.arrays(atoms).items()}


def _deviation(actual, expected):
    """max|a - b| / max|b|"""
    actual = np.asarray(tf.cast(actual, tf.float64))
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)


@functools.cache
def _step(slots, jit_compile):
    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(x, values, arrays, d):
        with tf.GradientTape() as tape:
            tape.watch([x, values])
            y = slots.product(x, values, arrays)
        return y, *tape.gradient(y, [x, values], d)

    return step


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_outputs_and_both_gradients_are_those_of_the_dense_kernel(dtype, jit_compile):
    slots = SharedSlots((50, 12), 3, 70)
    for pattern in _PATTERNS:
        random = np.random.default_rng(0)
        atoms = _atoms(pattern, slots, random)
        arrays = _constants(slots, atoms)
        # Free slots store something, which must not be seen.
        values = tf.constant(random.normal(size=slots.num_slots), dtype)
        x, d = (tf.constant(random.normal(size=(7, size)), dtype) for size in slots.shape)

        y, dx, dvalues = _step(slots, jit_compile)(x, values, arrays, d)
        places = tf.reshape(slots.slots_of_atoms(arrays), [-1]).numpy()
        x, values, d = (np.asarray(tf.cast(a, tf.float64)) for a in (x, values, d))
        connections = (atoms[:, None] * 3 + np.arange(3)).reshape(-1)
        kernel = np.zeros(slots.shape)
        kernel.reshape(-1)[connections] = values[places]
        assert _deviation(y, x @ kernel) <= _TOLERANCES[dtype]
        assert _deviation(dx, d @ kernel.T) <= _TOLERANCES[dtype]
        of_free = np.delete(np.asarray(tf.cast(dvalues, tf.float64)), places)
        assert not of_free.any()
        if len(atoms):
            of_active = (x.T @ d).reshape(-1)[connections]
            assert _deviation(tf.gather(dvalues, places), of_active) <= _TOLERANCES[dtype]


def test_what_free_slots_store_reaches_nothing():
    slots = SharedSlots((20, 8), 4, 12)
    random = np.random.default_rng(0)
    arrays = _constants(slots, _atoms(_random, slots, random))
    values = random.normal(size=slots.num_slots)
    values[~slots.is_used(arrays).numpy()] = np.nan
    x, d = (tf.constant(random.normal(size=(3, size))) for size in slots.shape)
    for array in _step(slots, False)(x, tf.constant(values), arrays, d):
        assert np.isfinite(array).all()


@pytest.mark.parametrize("capacity", [1, 2, 40, 333, 600])
@pytest.mark.parametrize("shape", [(50, 12), (3, 600), (600, 3)])
def test_atoms_come_back_however_they_are_spread_and_rows_have_one_shape(shape, capacity):
    capacity = min(capacity, shape[0] * shape[1] // 3)
    slots = SharedSlots(shape, 3, capacity)
    shapes = {name: array.shape for name, array in slots.arrays(np.zeros(0, np.int64)).items()}
    for pattern in _PATTERNS:
        atoms = _atoms(pattern, slots, np.random.default_rng(0))
        arrays = slots.arrays(atoms)
        assert {name: array.shape for name, array in arrays.items()} == shapes
        np.testing.assert_array_equal(slots.atoms(arrays), atoms)
        assert int(slots.num_atoms(arrays)) == len(atoms)
        assert slots.why_not(arrays) is None
        places = slots.slots_of_atoms(arrays).numpy()
        used = np.zeros(slots.num_slots, bool)
        used[places] = True
        assert used.sum() == 3 * len(atoms)
        np.testing.assert_array_equal(slots.is_used(arrays), used)
        values = np.arange(slots.num_slots)
        np.testing.assert_array_equal(slots.weights(values, arrays), places.reshape(-1))


def test_few_places_stay_free_where_groups_have_many_inputs():
    slots = SharedSlots((4096, 4096), 64, 26_214)
    assert slots.num_places < 1.15 * slots.capacity


def test_every_form_comes_to_be_where_it_suits_the_atoms():
    slots = SharedSlots((400, 8), 2, 800)
    found = set()
    for largest in range(50, 401, 10):
        rest = [(760 - largest) // 3] * 3
        for counts in ([largest, *rest], [largest // 2] * 4, [largest, 100, 100, 100]):
            atoms = [np.arange(n) * 4 + group for group, n in enumerate(counts)]
            found.add(int(slots.arrays(np.sort(np.concatenate(atoms)))["form"]))
    assert found == set(range(len(slots.forms)))


def test_arrays_that_are_no_layout_say_why():
    slots = SharedSlots((50, 12), 3, 70)
    sound = slots.arrays(_atoms(_random, slots, np.random.default_rng(0)))
    for name, place, value, why in [
        ("place_inputs", 0, 51, "no connections of its kernel"),
        ("row_groups", 0, -1, "no connections of its kernel"),
        ("row_groups", -1, slots.num_groups, "no connections of its kernel"),
        ("form", (), len(slots.forms), "no connections of its kernel"),
        ("atom_places", 0, slots.num_places + 1, "no connections of its kernel"),
        ("atom_places", 1, sound["atom_places"][0], "out of order"),
        ("form", (), len(slots.forms) - 1, "tables that do not belong"),
    ]:
        arrays = {key: array.copy() for key, array in sound.items()}
        arrays[name][place] = value
        assert why in slots.why_not(arrays)
