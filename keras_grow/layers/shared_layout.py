"""How connections lie in a sparse layer whose units share their inputs in groups.

Units in groups of `atom_size` neighbors read the same inputs, so that what can come or go is an
atom: the connections from one input into all units of a group. Because units are the last axis of a
kernel, an atom is a run of flat indices, and the atoms are the connections of a kernel of
`inputs` x `groups`.

An atom stands in a *place*, with `atom_size` weights. Those of a group stand in *rows* of places,
by ascending input, and all rows are multiplied at a time, as a batch of small dense matrices. How
long rows are is the *form* of the layout. The fewer the faster: one row a group, as long as no
group has more atoms than that; else shorter ones, of which a group has as many as it needs. The
forms follow from the capacity alone, and the step has them all, so that connections come and go
without a new trace, and any group may take all of the capacity.

A kernel of 9 inputs x 4 units in groups of 2, which has connections from inputs 0, 1 and 8 into
group 0, and from input 0 into group 1, in rows of 8 places:

    place_inputs   0 1 8 9 9 9 9 9   0 9 9 9 9 9 9 9    (9: a free place, one beyond the inputs)
    row_groups     0                 1
    atom_places    0 8 1 2              the atoms 0 and 1 of input 0, 2 of input 1, 16 of input 8
    values         place by place, the weights into the two units of the group
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_grow.layers.shared_product import Form, shared_matmul
from keras_grow.layers.slots import Arrays, Slots
from keras_grow.layers.sparse_layout import stable_order

# A row's places are a multiple of this, for which products of matrices are made.
_STEP = 8
# Beside those for the capacity, each group gets as many places as this share of its mean, so that
# groups with other numbers of atoms fit into rows that are not too short; at least so many.
_SLACK, _LEAST_SLACK = 1 / 8, 15


# How many times shorter than one for each group rows are, where numbers of atoms differ more.
_SHORTER = (2, 4)


class SharedSlots(Slots):
    """Slots of units that share their inputs in groups.

    Args:
        shape: of the kernel.
        atom_size: how many units are in a group.
        capacity: how many atoms there may be, however they are spread over the groups.

    Attributes:
        num_groups: how many groups of units there are.
        num_places: how many places for atoms; some stay free.
        forms: in what rows these may be, the fastest first; the last suits any atoms.
    """

    def __init__(self, shape: tuple[int, int], atom_size: int, capacity: int):
        self.shape, self.atom_size, self.capacity = shape, atom_size, capacity
        num_inputs, self.num_groups = shape[0], shape[1] // atom_size
        mean = capacity / self.num_groups
        whole = _in_steps(num_inputs)
        widest = min(_in_steps(mean + max(_LEAST_SLACK, _SLACK * mean)), whole)
        self.num_places = self.num_groups * widest
        self.num_slots = self.num_places * atom_size
        # Of the last of its rows, a group may leave all but one place free.
        shortest = widest if widest == whole else int(widest - mean + 1) // _STEP * _STEP
        alike = {_in_steps(mean / 2), min(_in_steps(mean), widest), widest}
        widths = {_STEP * max(1, widest // (times * _STEP)) for times in _SHORTER}
        widths = {width for width in widths if width > shortest} | {shortest}
        self.forms = (
            *(Form(width, self.num_groups, has_one_each=True) for width in sorted(alike)),
            *(Form(width, self.num_places // width) for width in sorted(widths, reverse=True)),
        )

    def arrays(self, atoms: np.ndarray) -> dict[str, np.ndarray]:
        """The index arrays of some atoms, int64.

        Returns:
            `form` of shape `()`, the number of the form; `place_inputs` of shape `(num_places,)`,
            the inputs of the places, `inputs` at free ones; `row_groups`, long enough for rows of
            any form, the groups of the rows, the last one of free rows; `atom_places` of shape
            `(capacity,)`, the place of each atom, `num_places` behind the last atom.
        """
        inputs, groups = np.divmod(atoms, self.num_groups)
        counts = np.bincount(groups, minlength=self.num_groups)
        number, (width, *_) = next(
            (number, form) for number, form in enumerate(self.forms) if form.holds(counts)
        )
        rows_of = -(-counts // width)
        if self.forms[number].has_one_each:
            rows_of = np.ones(self.num_groups, np.int64)
        first_row = np.cumsum(rows_of) - rows_of
        rank = np.empty(len(atoms), np.int64)  # Of each atom among those of its group.
        first = np.repeat(np.cumsum(counts) - counts, counts)
        rank[stable_order(groups)] = np.arange(len(atoms)) - first
        places = first_row[groups] * width + rank
        place_inputs = np.full(self.num_places, self.shape[0], np.int64)
        place_inputs[places] = inputs
        row_groups = np.full(self.num_places // _STEP, self.num_groups - 1, np.int64)
        row_groups[: rows_of.sum()] = np.repeat(np.arange(self.num_groups), rows_of)
        atom_places = np.full(self.capacity, self.num_places, np.int64)
        atom_places[: len(atoms)] = places
        return {
            "form": np.array(number),
            "place_inputs": place_inputs,
            "row_groups": row_groups,
            "atom_places": atom_places,
        }

    def num_atoms(self, arrays: Arrays) -> tf.Tensor:
        return tf.math.count_nonzero(arrays["atom_places"] < self.num_places)

    def atoms(self, arrays: Arrays) -> tf.Tensor:
        places = self._places(arrays)
        inputs = tf.gather(arrays["place_inputs"], places)
        widths = tf.constant([form.width for form in self.forms], tf.int64)
        rows = places // tf.gather(widths, arrays["form"])
        return inputs * self.num_groups + tf.gather(arrays["row_groups"], rows)

    def slots_of_atoms(self, arrays: Arrays) -> tf.Tensor:
        units = tf.range(self.atom_size, dtype=tf.int64)
        return self._places(arrays)[:, None] * self.atom_size + units

    def weights(self, values: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        of_places = tf.reshape(values, [self.num_places, self.atom_size])
        return tf.reshape(tf.gather(of_places, self._places(arrays)), [-1])

    def is_used(self, arrays: Arrays) -> tf.Tensor:
        is_used = arrays["place_inputs"] < self.shape[0]
        return tf.reshape(tf.tile(is_used[:, None], [1, self.atom_size]), [-1])

    def why_not(self, arrays: Mapping[str, np.ndarray]) -> str | None:
        limits = {
            "form": len(self.forms) - 1,
            "place_inputs": self.shape[0],
            "row_groups": self.num_groups - 1,
            "atom_places": self.num_places,
        }
        if any(np.any((arrays[name] < 0) | (arrays[name] > most)) for name, most in limits.items()):
            return "indices that are no connections of its kernel"
        atoms = self.atoms(arrays).numpy()
        if np.any(atoms >= self.shape[0] * self.num_groups):
            return "indices that are no connections of its kernel"
        if np.any(np.diff(atoms) <= 0):
            return "connections out of order, or there twice"
        expected = self.arrays(atoms)
        if any(not np.array_equal(arrays[name], expected[name]) for name in expected):
            return "tables that do not belong to its connections"
        return None

    def product(self, inputs: tf.Tensor, values: tf.Tensor, arrays: Arrays) -> tf.Tensor:
        return shared_matmul(inputs, values, arrays, self.forms, self.num_groups)

    def _places(self, arrays: Arrays) -> tf.Tensor:
        places = arrays["atom_places"]
        return tf.boolean_mask(places, places < self.num_places)


def _in_steps(number: float) -> int:
    """A positive multiple of the step that is not less."""
    return _STEP * max(1, math.ceil(number / _STEP))
