"""How the connections of a sparse layer are ordered, so that its products run over them fast.

A layer of `inputs` x `units` holds up to `capacity` connections in *slots*, sorted by
(input, unit); free slots stand behind them. Its products are sums over the connections of each
unit (forward) or of each input (backward). Both walk over *rows*: the connections of a unit or
input, in pieces of at most `width`. Rows of equal length stand together in groups, and a group
runs as many steps as its longest row needs. All shapes follow from the capacity alone, so that
connections come and go without a new trace, and any unit may take all of the capacity.
"""

import dataclasses

import numpy as np

# Rows that run together: their sums stay in the cache of a core, and fill vector units of a GPU.
_GROUP = 1024
# A row is longer than the mean by this factor at most; a unit with more connections has many.
_LONGEST = 4
# Connections of a row that are handled in one step of the loop.
UNROLLED = 8


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """The static shape of the rows of one side (units or inputs) of a layer.

    Attributes:
        num_keys: how many units, or inputs, there are.
        width: the largest number of connections in a row.
        group: how many rows run together.
        num_rows: how many rows there are, a multiple of `group`; the last is always empty.
    """

    num_keys: int
    width: int
    group: int
    num_rows: int

    @classmethod
    def of(cls, num_keys: int, capacity: int) -> "RowPlan":
        """The plan for `capacity` connections, however they are spread over `num_keys`."""
        width = UNROLLED * -(-_LONGEST * capacity // (num_keys * UNROLLED))
        # A key with f connections fills ceil(f / width) rows; one more stays empty.
        most = min(num_keys, capacity) + capacity // width + 1
        group = min(_GROUP, most)
        return cls(num_keys, width, group, group * -(-most // group))


def rows(counts: np.ndarray, plan: RowPlan) -> tuple[np.ndarray, np.ndarray]:
    """Cuts runs of connections that are sorted by key into rows.

    Args:
        counts: integers of shape `(num_keys,)`, the connections of each key.
        plan: the shape of the result.

    Returns:
        Two int64 arrays. The first, of shape `(3, num_rows)`, holds of each row the position of
        its first connection, its length, and the next row of the same key; rows stand by
        descending length. The second, of shape `(num_keys,)`, holds the first row of each key.
        Where there is no row, both name the last, empty one.
    """
    pieces = -(-counts // plan.width)
    num_pieces = int(pieces.sum())
    key = np.repeat(np.arange(plan.num_keys), pieces)
    first_piece = np.cumsum(pieces) - pieces
    offset = plan.width * (np.arange(num_pieces) - first_piece[key])
    start = (np.cumsum(counts) - counts)[key] + offset
    length = np.minimum(plan.width, counts[key] - offset)

    order = np.argsort(-length, kind="stable")
    place = np.empty(num_pieces, np.int64)
    place[order] = np.arange(num_pieces)
    empty = plan.num_rows - 1
    table = np.zeros((3, plan.num_rows), np.int64)
    table[0, :num_pieces] = start[order]
    table[1, :num_pieces] = length[order]
    table[2] = empty
    has_next = key[1:] == key[:-1]
    table[2, place[:-1][has_next]] = place[1:][has_next]
    first_row = np.full(plan.num_keys, empty, np.int64)
    first_row[pieces > 0] = place[first_piece[pieces > 0]]
    return table, first_row


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
    """The index arrays of a sparse layer, all int64.

    Attributes:
        inputs, units: of shape `(capacity,)`, where the connection of each slot comes from and
            leads to; `num_inputs` and `num_units` at free slots.
        by_unit_inputs, by_unit_slots: of shape `(capacity,)`, input and slot of the connections
            sorted by (unit, input).
        unit_rows, unit_first_row: the rows of the units over the order by unit, see `rows`.
        input_rows, input_first_row: the rows of the inputs over the slots.
    """

    inputs: np.ndarray
    units: np.ndarray
    by_unit_inputs: np.ndarray
    by_unit_slots: np.ndarray
    unit_rows: np.ndarray
    unit_first_row: np.ndarray
    input_rows: np.ndarray
    input_first_row: np.ndarray

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
            *rows(unit_counts, RowPlan.of(num_units, capacity)),
            *rows(input_counts, RowPlan.of(num_inputs, capacity)),
        )

    @classmethod
    def shapes(cls, shape: tuple[int, int], capacity: int) -> dict[str, tuple[int, ...]]:
        """The shape of each array of a layout."""
        num_inputs, num_units = shape
        per_slot = ("inputs", "units", "by_unit_inputs", "by_unit_slots")
        return {
            **dict.fromkeys(per_slot, (capacity,)),
            "unit_rows": (3, RowPlan.of(num_units, capacity).num_rows),
            "unit_first_row": (num_units,),
            "input_rows": (3, RowPlan.of(num_inputs, capacity).num_rows),
            "input_first_row": (num_inputs,),
        }
