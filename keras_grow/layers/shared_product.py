"""The product of a batch with a kernel whose units share their inputs in groups.

The inputs of all places are gathered, and rows of places are multiplied as a batch of small dense
matrices. Nothing in it is compiled, and nothing needs to be.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_grow.layers.masked import keep_active


class Form(NamedTuple):
    """How the places of a layer are split into rows.

    Attributes:
        width: places in a row.
        num_rows: how many rows there are.
        has_one_each: whether each group has one row, in the order of the groups.
    """

    width: int
    num_rows: int
    has_one_each: bool = False

    def holds(self, counts: np.ndarray) -> bool:
        """Whether groups with these numbers of atoms fit."""
        if self.has_one_each:
            return int(counts.max(initial=0)) <= self.width
        return int(np.sum(-(-counts // self.width))) <= self.num_rows

    def in_rows(self, places: tf.Tensor) -> tf.Tensor:
        """Numbers of all places, shape `(places, size)`, as those of `(rows, width, size)`."""
        used = places[: self.num_rows * self.width]
        return tf.reshape(used, [self.num_rows, self.width, -1])


def shared_matmul(
    inputs: tf.Tensor,
    values: tf.Tensor,
    arrays: Mapping[str, tf.Tensor],
    forms: Sequence[Form],
    num_groups: int,
) -> tf.Tensor:
    """`inputs @ kernel` for a kernel given by the rows of its groups; differentiable once.

    It holds the gathered inputs, one number for each place and sample: as many as there are
    connections and samples, by the number of units in a group. Sums over rows run in float32 for
    half-precision types.

    Args:
        inputs: floats of shape `(batch, num_inputs)`.
        values: floats of the same dtype, shape `(places * group_size,)`, the weights; what free
            places store is not used, and their gradients are 0.
        arrays: the index arrays, see `shared_layout`.
        forms: in what rows places may be.
        num_groups: how many groups of units there are.

    Returns:
        Floats of shape `(batch, units)`.
    """
    place_inputs, row_groups = arrays["place_inputs"], arrays["row_groups"]
    num_places, num_inputs = place_inputs.shape[0], inputs.shape[1]
    group_size = values.shape[0] // num_places

    def of_form(compute: Callable) -> tuple[tf.Tensor, ...]:
        branches = [lambda form=form: compute(form) for form in forms]
        return tf.switch_case(tf.cast(arrays["form"], tf.int32), branches)

    @tf.custom_gradient
    def product(inputs, values):
        # Free places read zeros; their weights are zeros too, for 0 * NaN is NaN.
        stored = tf.reshape(values, [num_places, group_size])
        weights = keep_active(stored, place_inputs < num_inputs)
        gathered = tf.gather(tf.transpose(tf.pad(inputs, [[0, 0], [0, 1]])), place_inputs)

        def outputs_of(form):
            of_rows = tf.matmul(form.in_rows(weights), form.in_rows(gathered), transpose_a=True)
            if form.has_one_each:
                return of_rows
            return _sum(of_rows, row_groups[: form.num_rows], num_groups)

        def gradient(upstream):
            # So that both products take them as they lie.
            by_group = tf.reshape(upstream, [-1, num_groups, group_size])
            by_group = tf.transpose(by_group, [1, 0, 2])

            def gradients_of(form):
                of_rows = by_group
                if not form.has_one_each:
                    of_rows = tf.gather(by_group, row_groups[: form.num_rows])
                of_gathered = tf.matmul(form.in_rows(weights), of_rows, transpose_b=True)
                num_used = form.num_rows * form.width
                # The sums of one run on a single core, while the other's product is computed.
                with tf.control_dependencies([of_gathered]):
                    of_values = tf.matmul(form.in_rows(gathered), of_rows)
                of_values = tf.reshape(of_values, [num_used, group_size])
                if num_used < num_places:
                    of_values = tf.pad(of_values, [[0, num_places - num_used], [0, 0]])
                of_gathered = tf.reshape(of_gathered, [num_used, -1])
                return _sum(of_gathered, place_inputs[:num_used], num_inputs + 1), of_values

            of_inputs, of_values = of_form(gradients_of)
            return tf.transpose(of_inputs[:num_inputs]), tf.reshape(of_values, [-1])

        outputs = tf.reshape(of_form(outputs_of), [num_groups * group_size, -1])
        return tf.transpose(outputs), gradient

    return product(inputs, values)


def _sum(parts: tf.Tensor, keys: tf.Tensor, num_keys: int) -> tf.Tensor:
    """The sums of the parts of each key, along the first axis.

    On a CPU `scatter_nd` takes half the time of `unsorted_segment_sum`, and XLA knows it.
    """
    wide = tf.cast(parts, tf.float32) if parts.dtype.size < 4 else parts
    shape = tf.concat([[num_keys], tf.shape(parts, tf.int64)[1:]], axis=0)
    sums = tf.cond(
        tf.size(wide) > 0,  # Which `scatter_nd` refuses to do without.
        lambda: tf.scatter_nd(keys[:, None], wide, shape),
        lambda: tf.zeros(shape, wide.dtype),
    )
    return tf.cast(sums, parts.dtype)
