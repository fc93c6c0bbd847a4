"""Which atoms go and come in a pattern, against plain Python."""

import itertools
import math

import numpy as np
import pytest

from keras_grow import patterns
from keras_grow.kernel_axes import KernelAxes
from keras_grow.search.in_pattern import InPattern

_AXES = {
    "dense": KernelAxes((10, 3)),
    "convolution": KernelAxes((2, 2, 7, 3)),
    "groups": KernelAxes((2, 2, 3, 4), num_groups=2),
    "output of an attention": KernelAxes((2, 5, 3), inputs=(0, 1), units=(2,)),
}


def _by_place(axes):
    """The connections of each position and unit, by input."""
    every = np.arange(axes.size)
    places = zip(axes.positions_of(every), axes.units_of(every), axes.inputs_of(every), every)
    found = {}
    within = axes.num_inputs // axes.num_groups
    for position, unit, number, connection in sorted(tuple(map(int, p)) for p in places):
        found.setdefault((position, unit), {})[number % within] = connection
    return found


@pytest.mark.parametrize("axes", _AXES.values(), ids=_AXES)
@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4)])
def test_the_best_n_of_every_m_inputs_of_a_unit_stay(axes, n, m):
    random = np.random.default_rng(0)
    indices = np.flatnonzero(random.random(axes.size) < 0.8)
    worth = dict(zip(indices, random.permutation(len(indices)), strict=True))
    in_pattern = InPattern(patterns.NM(n, m), axes)
    goes = in_pattern.surplus(indices, np.array(list(worth.values()), float))
    expected = set()
    for by_input in _by_place(axes).values():
        for start in range(0, axes.num_inputs, m):
            group = [by_input[i] for i in range(start, start + m) if i in by_input]
            active = sorted((c for c in group if c in worth), key=worth.get)
            expected |= set(active[: max(0, len(active) - n)])
    assert set(indices[goes]) == expected
    assert not in_pattern.has_room_for(indices)
    assert in_pattern.has_room_for(indices[~goes])


def test_of_equals_the_lower_index_goes():
    axes = KernelAxes((4, 2))
    goes = InPattern(patterns.NM(2, 4), axes).surplus(np.arange(8), np.ones(8))
    np.testing.assert_array_equal(np.flatnonzero(goes), [0, 1, 2, 3])


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_the_blocks_of_largest_norm_stay(density):
    axes, random = KernelAxes((10, 6)), np.random.default_rng(1)
    kernel = random.random((10, 6)) * (random.random((10, 6)) < 0.9)
    indices = np.flatnonzero(kernel)
    goes = InPattern(patterns.Blocks(4, 3, density), axes).surplus(indices, kernel.ravel()[indices])
    corners = list(itertools.product(range(0, 10, 4), range(0, 6, 3)))
    norms = {c: np.mean(kernel[c[0] : c[0] + 4, c[1] : c[1] + 3] ** 2) for c in corners}
    kept = sorted(norms, key=norms.get)[-round(density * len(corners)) :]
    expected = np.zeros((10, 6), bool)
    for down, across in kept:
        expected[down : down + 4, across : across + 3] = True
    np.testing.assert_array_equal(
        np.isin(np.arange(60), indices[~goes]), (expected & (kernel > 0)).ravel()
    )


def test_blocks_are_whole_where_all_of_them_is_active_or_none():
    blocks = InPattern(patterns.Blocks(2, 2, 0.5), KernelAxes((4, 4)))
    mask = np.kron([[1, 0], [0, 1]], np.ones((2, 2))).astype(bool)
    assert blocks.are_whole(np.flatnonzero(mask))
    assert blocks.has_room_for(np.flatnonzero(mask))
    mask[0, 0] = False
    assert not blocks.are_whole(np.flatnonzero(mask))
    mask[0, 2] = True
    assert not blocks.has_room_for(np.flatnonzero(mask))


class _PairsOfUnits(patterns.Pattern):
    """One's own: neighboring units read the same, and at each position three pairs are active."""

    def atoms(self, kernel, indices):
        pair = kernel.units_of(indices) // 2 * kernel.num_inputs + kernel.inputs_of(indices)
        return pair * kernel.num_positions + kernel.positions_of(indices)

    def groups(self, kernel, indices):
        return kernel.positions_of(indices)

    def most(self, kernel):
        return 3


_PATTERNS = [
    patterns.NM(2, 4),
    patterns.NM(1, 3),
    patterns.ConstantFanIn(3),
    patterns.Blocks(2, 2, 0.6),
    patterns.Blocks(3, 1, 0.9),
    _PairsOfUnits(),
]


def _atoms(pattern, axes):
    """The connections of each atom, and its group, in plain Python."""
    members, groups = {}, {}
    for connection in range(axes.size):
        one = np.array([connection])
        number = int(pattern.atoms(axes, one)[0])
        members.setdefault(number, []).append(connection)
        groups[number] = int(pattern.groups(axes, one)[0])
    return members, groups


def _score_of_atom(connections, scores):
    if len(connections) == 1:
        return scores[connections[0]]
    return math.sqrt(sum(float(scores[c]) ** 2 for c in connections) / len(connections))


@pytest.mark.parametrize("axes", _AXES.values(), ids=_AXES)
@pytest.mark.parametrize("pattern", _PATTERNS, ids=repr)
def test_atoms_come_best_first_while_their_group_has_room(axes, pattern):
    random = np.random.default_rng(0)
    members, groups = _atoms(pattern, axes)
    in_pattern = InPattern(pattern, axes)
    for number in range(12):
        scores = random.integers(0, 4, axes.size).astype("float32")  # With ties.
        every = np.flatnonzero(random.random(axes.size) < 0.5)
        active = every[~in_pattern.surplus(every, scores[every])]
        dormant = np.setdiff1d(np.arange(axes.size), active)
        if number % 2:  # A search that was cut short.
            dormant = random.permutation(dormant)[: len(dormant) // 2]
        count = int(random.integers(0, axes.size))
        found = in_pattern.best(active, dormant, scores[dormant], count).connections().numpy()

        occupied = {}
        for atom in {a for a, of_atom in members.items() if set(of_atom) & set(active)}:
            occupied[groups[atom]] = occupied.get(groups[atom], 0) + 1
        candidates = []
        for atom, of_atom in members.items():
            rest = [c for c in of_atom if c not in active]
            if rest and set(rest) <= set(dormant):
                candidates.append((-_score_of_atom(rest, scores), atom, rest))
        expected, left = [], count
        for _, atom, rest in sorted(candidates):
            is_begun = len(rest) < len(members[atom])
            has_room = is_begun or occupied.get(groups[atom], 0) < pattern.most(axes)
            if has_room and len(rest) <= left:
                occupied[groups[atom]] = occupied.get(groups[atom], 0) + (not is_begun)
                left -= len(rest)
                expected += rest
        assert found.tolist() == sorted(expected)
        assert in_pattern.has_room_for(np.union1d(active, found))


@pytest.mark.parametrize("axes", _AXES.values(), ids=_AXES)
def test_the_worst_blocks_go_first(axes):
    random = np.random.default_rng(1)
    pattern = patterns.Blocks(2, 2, 1.0)
    members, _ = _atoms(pattern, axes)
    for count in (0, 3, 8, axes.size // 2, axes.size):
        scores = random.integers(0, 4, axes.size).astype("float32")
        active = np.flatnonzero(random.random(axes.size) < 0.7)
        worth = {c: scores[c] if c in active else 0.0 for c in range(axes.size)}
        expected, left = [], count
        ranked = sorted((_score_of_atom(m, worth), atom) for atom, m in members.items())
        for _, atom in ranked:
            goes = [c for c in members[atom] if c in active]
            if len(goes) <= left:
                left -= len(goes)
                expected += goes
        found = InPattern(pattern, axes).worst(active, scores[active], count)
        assert found.connections().numpy().tolist() == sorted(expected)


def test_scores_of_atoms_that_square_beyond_their_type_still_rank():
    axes, pattern = KernelAxes((2, 4)), patterns.Blocks(2, 1, 0.5)
    in_pattern = InPattern(pattern, axes)
    for scale, dtype in ((1e30, "float32"), (1e-30, "float32"), (1e300, "float64")):
        scores = scale * np.array([1, 3, 2, 4, 1, 3, 2, 4], dtype)
        goes = in_pattern.surplus(np.arange(8), scores)
        np.testing.assert_array_equal(np.flatnonzero(~goes) % 4, [1, 3, 1, 3])


def test_an_atom_of_two_groups_is_refused():
    class Torn(_PairsOfUnits):
        def groups(self, kernel, indices):
            return kernel.units_of(indices)

    in_pattern = InPattern(Torn(), KernelAxes((3, 4)))
    with pytest.raises(ValueError, match="must be of one group"):
        in_pattern.surplus(np.arange(12), np.ones(12))


def test_in_a_block_scores_below_zero_count_against_the_others():
    in_pattern = InPattern(patterns.Blocks(2, 1, 0.5), KernelAxes((2, 4)))
    # Of the blocks, 0 is worth sqrt((9 - 4) / 2), 1 less, 2 and 3 are worth less than nothing.
    scores = np.array([3, 1, -1, -2, -2, 1, 0.5, -3])
    goes = in_pattern.surplus(np.arange(8), scores)
    assert np.flatnonzero(~goes).tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"most": lambda self, kernel: 0}, "most"),
        ({"groups": lambda self, kernel, indices: indices - 5}, "not negative"),
        ({"groups": lambda self, kernel, indices: indices / 2}, "must return integers"),
        ({"atoms": lambda self, kernel, indices: indices[:1]}, "one for each connection"),
    ],
)
def test_a_pattern_of_ones_own_that_is_none_is_refused(broken, message):
    pattern = type("Broken", (_PairsOfUnits,), broken)()
    with pytest.raises(ValueError, match=message):
        InPattern(pattern, KernelAxes((3, 4))).surplus(np.arange(12), np.ones(12))


def test_atoms_may_have_any_numbers():
    class Far(_PairsOfUnits):
        def atoms(self, kernel, indices):
            return super().atoms(kernel, indices) * 10**14

    scores = np.arange(12.0)
    one, other = (InPattern(p, KernelAxes((3, 4))) for p in (Far(), _PairsOfUnits()))
    goes = one.surplus(np.arange(12), scores)
    np.testing.assert_array_equal(goes, other.surplus(np.arange(12), scores))


def test_in_a_convolution_of_groups_neighbors_are_those_of_a_group():
    kernel, weights = KernelAxes((1, 6, 4), num_groups=2), np.arange(24.0)
    # Each unit reads six inputs, in windows of four and two, of either group.
    goes = InPattern(patterns.NM(1, 4), kernel).surplus(np.arange(24), weights)
    assert sorted(set(np.flatnonzero(~goes) // 4)) == [3, 5]
    for axes in (kernel, KernelAxes((3, 3, 8, 2), inputs=(-2,), units=(-2, -1))):
        blocks = InPattern(patterns.Blocks(3, 2, 0.25), axes)
        stays = ~blocks.surplus(np.arange(axes.size), np.arange(float(axes.size)))
        assert stays.mean() == pytest.approx(0.25, abs=0.03)


def test_a_block_that_is_too_large_leaves_its_room_to_a_smaller_one():
    blocks = InPattern(patterns.Blocks(4, 4, 0.5), KernelAxes((5, 4)))
    found = blocks.best(np.array([], np.int64), np.arange(20), np.arange(20.0)[::-1], 8)
    assert found.connections().numpy().tolist() == [16, 17, 18, 19]
