"""The product of a batch with a sparse kernel, forward and backward, in stock operations.

Nothing of the size batch x connections is ever held: loops over the connections gather rows of
transposed activations and add them up, and XLA compiles each loop into one pass. That works
inside a step that is compiled as a whole, and inside one that is not.
"""

import functools
from collections.abc import Callable, Mapping

import tensorflow as tf

from keras_grow.layers.sparse_layout import UNROLLED, RowPlan

LOOP = "over_connections"
"""What the loops are called in a graph: they hold no more of all their rounds than of one."""

# Connections whose gradients are computed together: what they gather stays in the cache.
_CHUNK = 2048
# Samples that are summed side by side in a vector unit; the sum over them comes last, because a
# plain sum of floats must keep its order and runs one by one.
_LANES = 16
# Powers of two of `_LANES` that are summed in one pass.
_LANE_GROUPS = (1, 2, 4, 8)


def sparse_matmul(
    inputs: tf.Tensor, values: tf.Tensor, layout: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """`inputs @ kernel` for a kernel given by its connections; differentiable once.

    Sums run in float32 for half-precision types.

    Args:
        inputs: floats of shape `(batch, num_inputs)`.
        values: floats of the same dtype, shape `(capacity,)`, the weight of each slot.
        layout: the arrays of a `Layout`, by name.

    Returns:
        Floats of shape `(batch, num_units)`.
    """
    capacity = values.shape[0]
    num_inputs, num_units = layout["input_places"].shape[1], layout["unit_places"].shape[1]
    forward = _compiled(_sum_over_rows, RowPlan.of(num_units, capacity))
    # Slots are sorted by input: the place of a connection is its slot.
    backward = _compiled(_sum_over_rows, RowPlan.of(num_inputs, capacity), None)
    correlate = _compiled(_correlate, (num_inputs, num_units), capacity)

    @tf.custom_gradient
    def product(inputs, values):
        # An eager tape would record the operations inside, and differentiate the loops too.
        inputs, values = tf.stop_gradient(inputs), tf.stop_gradient(values)
        # TensorFlow transposes block by block; XLA would read across the rows, far slower.
        inputs = tf.transpose(inputs)
        unit_rows, input_rows = (_rows_of(layout, side) for side in ("unit", "input"))
        outputs = forward(
            layout["by_unit_slots"], inputs, values, layout["by_unit_inputs"], *unit_rows
        )

        def gradient(output_gradients):
            output_gradients = tf.transpose(output_gradients)
            of_inputs = backward(output_gradients, values, layout["units"], *input_rows)
            of_values = correlate(inputs, output_gradients, layout["inputs"], layout["units"])
            return tf.transpose(of_inputs), of_values

        return tf.transpose(outputs), gradient

    return product(inputs, values)


def _rows_of(layout: Mapping[str, tf.Tensor], side: str) -> list[tf.Tensor]:
    return [layout[f"{side}_{name}"] for name in ("table", "pieces", "long_table", "places")]


@functools.cache
def _compiled(function: Callable, *arguments) -> Callable:
    # One compiled function per shape of a layer: a shared one would warn of being traced again.
    return tf.function(
        functools.partial(function, *arguments),
        jit_compile=True,
        autograph=False,
        reduce_retracing=True,
    )


def _sum_over_rows(plan, slots, source, values, neighbors, table, pieces, long_table, places):
    """For each key the sum over its connections of `source[neighbor] * value`.

    Args:
        plan: the shape of the rows.
        slots: says where the value of the connection at each place stands; `None` says there.
        source: activations, floats of shape `(num_neighbors, batch)`.
        values: floats of shape `(capacity,)`.
        neighbors: int64 of shape `(capacity,)`, sorted by key.
        table, pieces, long_table, places: the rows of the keys, see `sparse_layout.Rows`.

    Returns:
        Floats of shape `(num_keys, batch)`.
    """
    dtype = tf.float32 if source.dtype.size < 4 else source.dtype

    def weights(place):
        return tf.cast(
            tf.gather(values, place if slots is None else tf.gather(slots, place)), dtype
        )

    sums = _sum_in_groups(source, neighbors, weights, table, plan.group, dtype)
    # Keys with several rows are rows of rows.
    ones = functools.partial(tf.ones_like, dtype=dtype)
    long_sums = _sum_in_groups(sums, pieces, ones, long_table, plan.long_group, dtype)
    row, long_row = tf.unstack(places)
    sums = tf.gather(sums, row) + tf.gather(long_sums, long_row)  # One of them is empty.
    return tf.cast(sums, values.dtype)


def _sum_in_groups(source, neighbors, weights, table, group_size, dtype):
    """For each row of the table the sum of `source[neighbor] * weight`."""
    num_groups, batch = table.shape[1] // group_size, tf.shape(source)[1]
    starts, lengths = tf.unstack(table)
    steps = tf.range(UNROLLED, dtype=tf.int64)

    def add_group(group, sums):
        start = tf.slice(starts, [group * group_size], [group_size])[:, None]
        length = tf.slice(lengths, [group * group_size], [group_size])[:, None]

        def connections(step):
            is_in_row = step + steps < length
            # Beyond a row's end, its last connection with a weight of 0.
            place = tf.maximum(start + tf.minimum(step + steps, length - 1), 0)
            # Of an empty row, a free slot may be read, which names no neighbor.
            last = tf.shape(source, out_type=tf.int64)[0] - 1
            neighbor = tf.minimum(tf.gather(neighbors, place), last)
            return neighbor, tf.where(is_in_row, weights(place), 0)

        def add_connections(step, neighbor, weight, total):
            for i in range(UNROLLED):
                row = tf.cast(tf.gather(source, neighbor[:, i]), dtype)
                total += row * weight[:, i, None]
            # What the next step reads is handed on, not computed when it is read: XLA would
            # fuse it into the sum, and compute it again for every sample.
            return step + UNROLLED, *connections(step + UNROLLED), total

        first = tf.zeros((), tf.int64)
        *_, total = tf.while_loop(
            lambda step, *_: step < length[0, 0],  # The first row of a group is its longest.
            add_connections,
            [first, *connections(first), tf.zeros([group_size, batch], dtype)],
            name=LOOP,
        )
        return group + 1, sums.write(group, total)

    # Without a shape: LiteRT's converter takes a batch of unknown size for one of none, and would
    # write a file that reads beyond its memory; of an unknown shape it says that it can't.
    sums = tf.TensorArray(dtype, num_groups)
    _, sums = tf.while_loop(lambda group, _: group < num_groups, add_group, [0, sums], name=LOOP)
    return tf.reshape(sums.stack(), [num_groups * group_size, batch])


def _correlate(shape, count, inputs, output_gradients, rows, columns):
    """The sum over the batch of `inputs[row] * output_gradients[column]`, pair by pair.

    That is the gradient of the weights of these connections (Hebb's rule).

    Args:
        shape: `(num_inputs, num_units)`.
        count: how many pairs there are.
        inputs: floats of shape `(num_inputs, batch)`.
        output_gradients: floats of shape `(num_units, batch)`, dL/du.
        rows, columns: int64 of shape `(count,)`; `num_inputs` and `num_units` stand for nothing,
            and give 0.

    Returns:
        Floats of shape `(count,)`.
    """
    batch = tf.shape(inputs)[1]
    num_inputs, num_units = shape
    dtype = tf.float32 if inputs.dtype.size < 4 else inputs.dtype
    num_chunks = count // _CHUNK

    def with_lane_groups(num_lane_groups):
        width = num_lane_groups * _LANES

        def correlate():
            num_blocks = tf.cast(-(-batch // width), tf.int64)
            # Blocks of `width` samples of the same input or unit, one below the other.
            x, d = (
                tf.reshape(tf.pad(a, [[0, 0], [0, -batch % width]]), [-1, width])
                for a in (inputs, output_gradients)
            )

            def of_chunk(start, size):
                # A free slot names no input and no unit; what is read for it is not used.
                row = tf.minimum(tf.slice(rows, [start], [size]), num_inputs - 1)
                column = tf.minimum(tf.slice(columns, [start], [size]), num_units - 1)

                def add_block(block, total):
                    of_x, of_d = row * num_blocks + block, column * num_blocks + block
                    lanes = 0
                    for i in range(0, width, _LANES):
                        x_lanes = tf.gather(x[:, i : i + _LANES], of_x)
                        d_lanes = tf.gather(d[:, i : i + _LANES], of_d)
                        lanes += tf.cast(x_lanes, dtype) * tf.cast(d_lanes, dtype)
                    return block + 1, total + tf.reduce_sum(lanes, axis=1)

                _, total = tf.while_loop(
                    lambda block, _: block < num_blocks,
                    add_block,
                    [tf.zeros((), tf.int64), tf.zeros([size], dtype)],
                    name=LOOP,
                )
                return total

            parts = []
            if num_chunks:
                _, sums = tf.while_loop(
                    lambda chunk, _: chunk < num_chunks,
                    lambda chunk, sums: (
                        chunk + 1,
                        sums.write(chunk, of_chunk(chunk * _CHUNK, _CHUNK)),
                    ),
                    [0, tf.TensorArray(dtype, num_chunks, element_shape=[_CHUNK])],
                    name=LOOP,
                )
                parts.append(tf.reshape(sums.stack(), [num_chunks * _CHUNK]))
            if count % _CHUNK:
                parts.append(of_chunk(num_chunks * _CHUNK, count % _CHUNK))
            sums = tf.where(rows < num_inputs, tf.concat(parts, axis=0), 0)
            return tf.cast(sums, inputs.dtype)

        return correlate

    # XLA knows the batch size when it compiles, and keeps the one branch that fits.
    bounds = [tf.cast(batch > _LANES * n, tf.int32) for n in _LANE_GROUPS[:-1]]
    return tf.switch_case(tf.add_n(bounds), [with_lane_groups(n) for n in _LANE_GROUPS])
