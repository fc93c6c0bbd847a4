"""The product of one row with a sparse kernel, as a few wide sums that XLA compiles.

The connections of a unit are cut into pieces of equal length, the last one padded. Pieces stand
side by side in a table, one to a column, so that a line of the table adds one connection to every
piece at once: a loop without branches, in which a processor's vector units gather inputs, multiply
and add. What the pieces of a unit sum up to is added by a second, small table.
"""

import dataclasses

import numpy as np
import tensorflow as tf

# Lines that are added in one pass of the loop.
_UNROLLED = 4
# Wide rows stay aligned. Measured: XLA takes three times as long where the width is odd.
_ALIGNMENT = 64
# The most pieces of a unit that are added without a loop.
_MAX_PIECES = 8
_LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
# What a pass of the loop costs besides its sums, in sums.
_PASS = 1000


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """The static shape of the tables of a kernel.

    Attributes:
        num_units: of the kernel.
        levels: length and number (padded) of the pieces: of the connections, then, where units
            have very many pieces, of their pieces, and so on.
        max_pieces: the most pieces that are left of a unit in the end.
    """

    num_units: int
    levels: tuple[tuple[int, int], ...]
    max_pieces: int

    @classmethod
    def of(cls, fan_in: np.ndarray) -> "TablePlan":
        """The plan of least work for units with so many active inputs, integers `(units,)`."""
        counts = np.asarray(fan_in, np.int64)
        levels: list[tuple[int, int]] = []
        while not levels or counts.max(initial=0) > _MAX_PIECES:
            length = min(_LENGTHS, key=lambda length: cls._work(counts, length))
            counts = -(-counts // length)
            width = -(-int(counts.sum()) // _ALIGNMENT) * _ALIGNMENT
            levels.append((length, width))
        return cls(len(counts), tuple(levels), int(counts.max(initial=0)))

    @staticmethod
    def _work(counts: np.ndarray, length: int) -> int:
        pieces = -(-counts // length)
        num_pieces, most = int(pieces.sum()), int(pieces.max(initial=0))
        # Beyond the most pieces, another level.
        ends = min(most, _MAX_PIECES) * len(counts) + (2 * num_pieces if most > _MAX_PIECES else 0)
        return length * num_pieces + ends + length // _UNROLLED * _PASS


def tables(
    plan: TablePlan, inputs: tf.Tensor, units: tf.Tensor, values: tf.Tensor, num_inputs: int
) -> list[tf.Tensor]:
    """The tables of `row_product`, made by TensorFlow, so that a SavedModel can make them.

    Args:
        plan: of these connections.
        inputs, units: int64 of shape `(count,)`, what each connection joins, sorted by unit.
        values: floats of shape `(count,)`, their weights.
        num_inputs: of the kernel.

    Returns:
        The weights in the shape of the first table; then, as int32, for each level a table of
        positions in what it sums; and at last the flat positions of each unit's pieces, followed
        by the lengths of the levels.
    """
    sources, num_sources, made = inputs, num_inputs, []
    for level, (length, width) in enumerate(plan.levels):
        places, counts = _places(units, length, plan.num_units)
        if level == 0:
            table_of_values = tf.scatter_nd(places, values, tf.constant([length, width], tf.int64))
        # What no connection fills reads the zero behind the sources.
        table = tf.fill([length, width], tf.constant(num_sources, tf.int32))
        made.append(tf.tensor_scatter_nd_update(table, places, tf.cast(sources, tf.int32)))
        units = tf.repeat(tf.range(plan.num_units, dtype=tf.int64), counts)
        sources, num_sources = tf.range(tf.size(units, out_type=tf.int64)), width
    places, _ = _places(units, max(1, plan.max_pieces), plan.num_units, by_unit=True)
    table = tf.fill([plan.max_pieces, plan.num_units], tf.constant(num_sources, tf.int32))
    table = tf.tensor_scatter_nd_update(table, places, tf.cast(sources, tf.int32))
    lengths = tf.constant([length for length, _ in plan.levels], tf.int32)
    return [table_of_values, *made, tf.concat([tf.reshape(table, [-1]), lengths], axis=0)]


def table_shapes(plan: TablePlan) -> list[tuple[int, ...]]:
    """The shapes of `tables`."""
    num_ends = plan.max_pieces * plan.num_units + len(plan.levels)
    return [plan.levels[0], *plan.levels, (num_ends,)]


def row_product(
    plan: TablePlan, row: tf.Tensor, values: tf.Tensor, *tables: tf.Tensor
) -> tf.Tensor:
    """`row @ kernel`, for XLA to compile.

    Args:
        plan: the shape of the tables.
        row: floats of shape `(inputs,)`.
        values, *tables: of `tables`, the values in the dtype of `row`.

    Returns:
        Floats of shape `(units,)`.
    """
    *level_tables, ends = tables
    num_places = plan.max_pieces * plan.num_units
    sums = row
    for level, table in enumerate(level_tables):
        weights = values if level == 0 else None
        # A bound that XLA can't know: it would unroll short loops, and then compute the sums
        # of pieces again wherever they are read.
        sums = _sum_of_lines(_with_zero(sums), table, weights, ends[num_places + level])
    places = tf.reshape(ends[:num_places], [plan.max_pieces, plan.num_units])
    return tf.reduce_sum(tf.gather(_with_zero(sums), places), axis=0)


def _places(
    units: tf.Tensor, length: int, num_units: int, by_unit: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Line and column in the table of each entry sorted by unit; and the pieces of each unit."""
    counts = tf.math.bincount(
        tf.cast(units, tf.int32), minlength=num_units, maxlength=num_units, dtype=tf.int64
    )
    first = tf.gather(tf.cumsum(counts, exclusive=True), units)
    position = tf.range(tf.size(units, out_type=tf.int64)) - first
    num_pieces = -(-counts // length)
    column = units
    if not by_unit:
        column = tf.gather(tf.cumsum(num_pieces, exclusive=True), units) + position // length
    return tf.stack([position % length, column], axis=1), num_pieces


def _sum_of_lines(source, table, weights, length):
    def add_lines(line, total):
        for i in range(_UNROLLED):
            terms = tf.gather(source, table[line + i])
            total += terms if weights is None else terms * weights[line + i]
        return line + _UNROLLED, total

    start = [0, tf.zeros([table.shape[1]], source.dtype)]
    return tf.while_loop(lambda line, _: line < length, add_lines, start)[1]


def _with_zero(vector):
    return tf.concat([vector, tf.zeros([1], vector.dtype)], axis=0)
