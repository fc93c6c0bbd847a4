"""How the connections of a sparse layer are ordered, so that its products run over them fast.

A layer of `inputs` x `units` holds up to `capacity` connections in *slots*, sorted by
(input, unit); free slots stand behind. Its products are sums over the connections of each unit
(forward) or of each input (backward), its *keys*. Both walk over *rows*: the connections of a
key, in pieces of at most `width`. Rows of about equal length stand together in groups, and a
group runs as many steps as its longest row needs. The few keys with several rows sum these in the
same way. All shapes follow from the capacity alone, so that connections come and go without a new
trace, and any unit may take all of the capacity.

A kernel of 3 inputs x 2 units with room for 4 connections, of which it has 0 -> 0, 1 -> 1, 2 -> 0:

    slot              0       1       2       3 (free)
    values            w00     w11     w20     0
    inputs, units     0 -> 0  1 -> 1  2 -> 0  3 -> 2     (none: one beyond the last)

    by unit           0 <- 0  0 <- 2  1 <- 1  free
    by_unit_slots     0       2       1       3
    rows of units     starts 0, 2 and lengths 2, 1       unit 0 sums slots 0 and 2, unit 1 slot 1
    rows of inputs    starts 0, 1, 2 and lengths 1, 1, 1 each input has one slot
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

# Rows that run together: their sums stay in the cache of a core, and fill vector units of a GPU.
_GROUP = 1024
# A row is longer than the mean by this factor at most; a key with more connections has several.
_LONGEST = 4
# Connections of a row that are handled in one step of the loop.
UNROLLED = 8


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """The static shape of the rows of one side (units or inputs) of a layer.

    Attributes:
        num_keys: how many units, or inputs, there are.
        width: the largest number of connections in a row.
        num_rows, group: how many rows there are, and how many run together; the last row is
            always empty.
        num_pieces: how many rows the keys with several rows can have in all.
        num_long, long_group: the same for these keys, each of which is a row of rows.
    """

    num_keys: int
    width: int
    num_rows: int
    group: int
    num_pieces: int
    num_long: int
    long_group: int

    @classmethod
    def of(cls, num_keys: int, capacity: int) -> "RowPlan":
        """The plan for `capacity` connections, however they are spread over `num_keys`."""
        width = UNROLLED * -(-_LONGEST * capacity // (num_keys * UNROLLED))
        # A key with f connections fills ceil(f / width) rows, all but the last to the end.
        full = capacity // width
        num_rows, group = _in_groups(min(num_keys, capacity) + full + 1)
        num_long, long_group = _in_groups(min(num_keys, full) + 1)
        return cls(num_keys, width, num_rows, group, 2 * full + 1, num_long, long_group)


def _in_groups(count: int) -> tuple[int, int]:
    """A multiple of the size of a group that holds `count`, and that size."""
    group = min(_GROUP, count)
    return group * -(-count // group), group


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one side of a layer, int64.

    Attributes:
        table: of shape `(2, num_rows)`, the position of each row's first connection and its
            length, by descending length.
        pieces: of shape `(num_pieces,)`, the rows of the keys with several, key by key.
        long_table: of shape `(2, num_long)`, as `table`, of these keys over `pieces`.
        places: of shape `(2, num_keys)`, the row of each key, and the place in `long_table` of a
            key with several. Where there is none, the last, empty one.
    """

    table: np.ndarray
    pieces: np.ndarray
    long_table: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, plan: RowPlan) -> "Rows":
        """The rows of runs of `counts` connections, integers of shape `(num_keys,)`."""
        pieces_of = -(-counts // plan.width)
        key = np.repeat(np.arange(plan.num_keys), pieces_of)
        first_piece = np.cumsum(pieces_of) - pieces_of
        offset = plan.width * (np.arange(len(key)) - first_piece[key])
        start = (np.cumsum(counts) - counts)[key] + offset
        table, place = _table(start, np.minimum(plan.width, counts[key] - offset), plan.num_rows)

        is_long = pieces_of > 1
        pieces = np.zeros(plan.num_pieces, np.int64)
        of_long = place[is_long[key]]
        pieces[: len(of_long)] = of_long
        lengths = pieces_of[is_long]
        long_table, long_place = _table(np.cumsum(lengths) - lengths, lengths, plan.num_long)
        places = np.empty((2, plan.num_keys), np.int64)
        places[0], places[1] = plan.num_rows - 1, plan.num_long - 1
        has_one = pieces_of == 1
        places[0, has_one] = place[first_piece[has_one]]
        places[1, is_long] = long_place
        return cls(table, pieces, long_table, places)


def _table(start: np.ndarray, length: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths by descending length, filled up with empty rows; and where each went."""
    order = np.argsort(-length, kind="stable")
    place = np.empty(len(start), np.int64)
    place[order] = np.arange(len(start))
    table = np.zeros((2, size), np.int64)
    table[0, : len(start)], table[1, : len(start)] = start[order], length[order]
    return table, place


def stable_order(keys: np.ndarray) -> np.ndarray:
    """`np.argsort(keys, kind="stable")` of non-negative integers, by radix and so in linear time.

    NumPy sorts 16-bit integers by radix, and wider ones by comparisons, ten times slower here.
    """
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    shift, largest = 16, int(keys.max(initial=0))
    while largest >> shift:
        digit = ((keys >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
        shift += 16
    return order


@dataclasses.dataclass(frozen=True)
class Layout:
    """The index arrays of a sparse layer, int64.

    Attributes:
        inputs, units: of shape `(capacity,)`, where the connection of each slot comes from and
            leads to; `num_inputs` and `num_units` at free slots.
        by_unit_inputs, by_unit_slots: of shape `(capacity,)`, input and slot of the connections
            sorted by (unit, input).
        unit_rows: the rows of the units over the order by unit.
        input_rows: the rows of the inputs over the slots.
    """

    inputs: np.ndarray
    units: np.ndarray
    by_unit_inputs: np.ndarray
    by_unit_slots: np.ndarray
    unit_rows: Rows
    input_rows: Rows

    @classmethod
    def of(cls, connections: np.ndarray, shape: tuple[int, int], capacity: int) -> "Layout":
        """The layout of the connections at ascending flat indices, at most `capacity` of them."""
        num_inputs, num_units = shape
        count = len(connections)
        inputs = np.full(capacity, num_inputs, np.int64)
        units = np.full(capacity, num_units, np.int64)
        np.floor_divide(connections, num_units, out=inputs[:count])
        np.remainder(connections, num_units, out=units[:count])
        by_unit_slots = np.arange(capacity, dtype=np.int64)
        by_unit_slots[:count] = stable_order(units[:count])
        unit_counts = np.bincount(units[:count], minlength=num_units)
        input_counts = np.bincount(inputs[:count], minlength=num_inputs)
        return cls(
            inputs,
            units,
            inputs[by_unit_slots],
            by_unit_slots,
            Rows.of(unit_counts, RowPlan.of(num_units, capacity)),
            Rows.of(input_counts, RowPlan.of(num_inputs, capacity)),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name; those of the rows as `unit_table`, `input_table` and so on."""
        slots = {name: array for name, array in vars(self).items() if "_rows" not in name}
        return {
            **slots,
            **{f"unit_{name}": array for name, array in vars(self.unit_rows).items()},
            **{f"input_{name}": array for name, array in vars(self.input_rows).items()},
        }


def why_no_layout(
    arrays: Mapping[str, np.ndarray], shape: tuple[int, int], capacity: int
) -> str | None:
    """Why arrays are not the layout of connections of a kernel, `None` if they are."""
    num_inputs, num_units = shape
    inputs, units = arrays["inputs"], arrays["units"]
    count = int(np.sum(inputs < num_inputs))
    connections = (inputs * num_units + units)[:count]
    inside = np.all((inputs[:count] >= 0) & (units[:count] >= 0) & (units[:count] < num_units))
    if not inside or np.any(inputs[count:] != num_inputs):
        return "indices that are no connections of its kernel"
    if np.any(np.diff(connections) <= 0):
        return "connections out of order, or there twice"
    expected = Layout.of(connections, shape, capacity).arrays()
    if any(not np.array_equal(arrays[name], expected[name]) for name in expected):
        return "tables that do not belong to its connections"
    return None
