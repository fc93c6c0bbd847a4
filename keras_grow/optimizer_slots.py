"""The optimizer's slots of changed connections: the only file that knows an optimizer's inside.

Keras has no public access to slots. This file relies on `_get_variable_index`, `_iterations`, on
`inner_optimizer` of a loss-scaling optimizer, on `optimizers` and `_optimizer_map` of a
`MultiOptimizer`, and on one convention: a slot is an entry of a list attribute that is as long as
the optimizer's list of variables. `tests/test_optimizer_slots.py` holds it to that for every
optimizer of Keras, and names the versions it was run on.
"""

from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf
from keras import ops

from keras_grow.layers.growable import StorageChange

# The slots that Adam and its relatives divide by: a running mean of the squared gradient.
_SECOND_MOMENTS = ("_velocities", "_velocity_hats", "adam_velocities", "_accumulators", "_u")


def reset_slots(
    optimizer: keras.Optimizer | None,
    changes: Iterable[StorageChange],
    second_moment_starts_at_mean: bool = False,
) -> None:
    """Gives the slots of changed entries the values that a new optimizer would give them.

    What a new optimizer would start with, the optimizer is asked itself: a fresh one of the same
    configuration is built on the changed weights alone. That is 0 for most slots, a constant for
    Adagrad and Ftrl, the weight itself for averages of weights. Slots that are not one number per
    weight (Adafactor's row and column sums) stay as they are.

    Args:
        optimizer: a Keras optimizer; nothing is done for `None` or one that was never applied.
        changes: what `grow_connections` and `prune_connections` returned.
        second_moment_starts_at_mean: gives second moments the mean of the variable's positive
            entries instead. A fresh Adam slot late in training makes a first step of about three
            times the learning rate; beside an ordinary second moment it is one of a tenth.
    """
    if optimizer is None:
        return
    for change in changes:
        if len(change.indices) == 0:
            continue
        owner = _optimizer_of(optimizer, change.variable)
        if owner is None:
            continue
        weights = tf.gather(tf.reshape(change.variable.value, [-1]), change.indices)
        fresh = keras.Variable(weights[:, None], name="changed_connections")
        newborn = type(owner).from_config(owner.get_config())
        newborn.build([fresh])
        newborn_slots = dict(_slots(newborn, fresh))
        for name, slot in _slots(owner, change.variable):
            start = newborn_slots.get(name)
            if slot.shape != change.variable.shape or start is None or start.shape != fresh.shape:
                continue
            values = start.value[:, 0]
            if second_moment_starts_at_mean and name in _SECOND_MOMENTS:
                positive = tf.cast(slot.value > 0, slot.value.dtype)
                mean = tf.math.divide_no_nan(
                    tf.reduce_sum(slot.value * positive), tf.reduce_sum(positive)
                )
                values = tf.fill(tf.shape(values), mean)
            flat = tf.reshape(slot.value, [-1])
            flat = tf.tensor_scatter_nd_update(flat, change.indices[:, None], values)
            slot.assign(ops.reshape(flat, slot.shape))


def step_counter(optimizer: keras.Optimizer) -> keras.Variable:
    """The variable that counts the steps the optimizer was asked to make.

    The public `iterations` is this one only without gradient accumulation; with it, a quotient.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def steps_made(optimizer: keras.Optimizer | None) -> int:
    """How many steps the optimizer was asked to make, 0 without one."""
    # `int()` fails for the mirrored variable of a distribution strategy.
    return 0 if optimizer is None else int(ops.convert_to_numpy(step_counter(optimizer)))


def check_resettable(optimizer: keras.Optimizer | None) -> None:
    """Raises `ValueError` if no fresh optimizer can be made after `optimizer`'s configuration.

    To be called before anything is changed, so that a change is all or nothing.
    """
    if optimizer is None:
        return
    inner = [*(getattr(optimizer, "optimizers", None) or ())]
    if hasattr(optimizer, "inner_optimizer"):
        inner.append(optimizer.inner_optimizer)
    if inner:
        for each in inner:
            check_resettable(each)
        return
    try:
        type(optimizer).from_config(optimizer.get_config())
    except Exception as error:
        raise ValueError(
            "The optimizer's slots can't start afresh: no optimizer could be made after its "
            f"configuration. Received: {type(optimizer).__name__}. Give it a `get_config` that "
            f"its `from_config` understands. {error}"
        ) from error


def slots(optimizer: keras.Optimizer, variable: keras.Variable) -> dict[str, keras.Variable]:
    """The slots that hold one number per entry of `variable`, by name; empty if there are none."""
    owner = _optimizer_of(optimizer, variable)
    if owner is None:
        return {}
    return {name: slot for name, slot in _slots(owner, variable) if slot.shape == variable.shape}


def _optimizer_of(optimizer: keras.Optimizer, variable: keras.Variable) -> keras.Optimizer | None:
    """The innermost optimizer that updates `variable`; `None` if none has slots for it."""
    if hasattr(optimizer, "inner_optimizer"):
        return _optimizer_of(optimizer.inner_optimizer, variable)
    for inner in getattr(optimizer, "optimizers", None) or ():
        owner = _optimizer_of(inner, variable)
        if owner is not None:
            return owner
    if getattr(optimizer, "optimizers", None) or not optimizer.built:
        return None
    try:
        optimizer._get_variable_index(variable)
    except KeyError:
        return None
    return optimizer


def _slots(
    optimizer: keras.Optimizer, variable: keras.Variable
) -> Iterator[tuple[str, keras.Variable]]:
    index = optimizer._get_variable_index(variable)
    num_variables = len(optimizer._trainable_variables)
    for name, slot_list in vars(optimizer).items():
        is_slot_list = isinstance(slot_list, (list, tuple)) and len(slot_list) == num_variables
        if not is_slot_list or name in ("_trainable_variables", "_variables"):
            continue
        slot = slot_list[index]
        if isinstance(slot, keras.Variable) and slot is not variable:
            yield name, slot
