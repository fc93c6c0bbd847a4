"""The optimizer's slots of changed connections.

Keras has no public access to slots; `keras_private.py` has it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import keras
import tensorflow as tf
from keras import ops

from keras_grow.keras_private import (
    AVERAGE,
    MOMENTS,
    SECOND_MOMENTS,
    has_slots_for,
    slots_of,
    step_counter,
)
from keras_grow.layers.growable import StorageChange
from keras_grow.search.flat_arrays import replaced, taken
from keras_grow.structure.copying import made_anew


def reset_slots(
    optimizer: keras.Optimizer | None,
    changes: Iterable[StorageChange],
    second_moment_starts_at_mean: bool = False,
) -> None:
    """Moves slots with their weights, and gives those of changed entries a new optimizer's values.

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
        if len(change.indices) == 0 and change.moved_from is None:
            continue
        owner = _optimizer_of(optimizer, change.variable)
        if owner is None:
            continue
        if change.moved_from is not None:
            for slot in slots(owner, change.variable).values():
                moved = tf.gather(tf.reshape(slot.value, [-1]), change.moved_from)
                slot.assign(ops.reshape(moved, slot.shape))
        if len(change.indices) == 0:
            continue
        weights = taken(tf.convert_to_tensor(change.variable.value), change.indices)
        fresh = keras.Variable(weights[:, None], name="changed_connections")
        newborn = made_anew(owner)
        newborn.build([fresh])
        newborn_slots = dict(slots_of(newborn, fresh))
        for name, slot in slots_of(owner, change.variable):
            start = newborn_slots.get(name)
            if slot.shape != change.variable.shape or start is None or start.shape != fresh.shape:
                continue
            # Keras makes this one of zeros and fills it in the first step, which a late one is not.
            values = weights if name == AVERAGE else start.value[:, 0]
            if second_moment_starts_at_mean and name in SECOND_MOMENTS:
                positive = tf.cast(slot.value > 0, slot.value.dtype)
                mean = tf.math.divide_no_nan(
                    tf.reduce_sum(slot.value * positive), tf.reduce_sum(positive)
                )
                values = tf.fill(tf.shape(values), mean)
            slot.assign(replaced(tf.convert_to_tensor(slot.value), change.indices, values))


def shift_averages(
    optimizer: keras.Optimizer | None,
    variable: keras.Variable,
    shift: tf.Tensor | float = 0.0,
    scale: float = 1.0,
) -> None:
    """Multiplies slots that hold averages of a variable's past values, and adds to them.

    Where all that a weight was is to be moved together with it, and the rest of its past is kept.

    Args:
        optimizer: the optimizer, or `None`.
        variable: a variable that it trains.
        shift: what is added, of the variable's shape.
        scale: by what they are multiplied before.
    """
    owner = None if optimizer is None else _optimizer_of(optimizer, variable)
    if owner is None:
        return
    names = {AVERAGE}
    if isinstance(owner, getattr(keras.optimizers, "ScheduleFreeAdamW", ())):
        names.add(MOMENTS)  # A weight beside the weight, not a mean of gradients.
    for name, slot in slots_of(owner, variable):
        if name in names:
            slot.assign(slot.value * scale + tf.cast(shift, slot.dtype))


def steps_made(optimizer: keras.Optimizer | None) -> int:
    """How many steps the optimizer was asked to make, 0 without one."""
    # `int()` fails for the mirrored variable of a distribution strategy.
    return 0 if optimizer is None else int(ops.convert_to_numpy(step_counter(optimizer)))


@dataclasses.dataclass(frozen=True)
class Move:
    """How a trainable variable of one model became one of another.

    Attributes:
        old, new: the variables.
        places: two int64 tensors of shape `(count,)`, the flat indices in both of entries that
            stand for the same weight; `None` where the whole variable is the same.
    """

    old: keras.Variable
    new: keras.Variable
    places: tuple[tf.Tensor, tf.Tensor] | None = None


def carry_over(
    optimizer: keras.Optimizer,
    moves: Sequence[Move],
    variables: Sequence[keras.Variable] | None = None,
) -> keras.Optimizer:
    """A new optimizer for the new variables, which goes on where `optimizer` stands.

    Its step, learning rate and loss scale are the old one's, and so are the slots of weights that
    were carried over. Those of all other weights start afresh. Slots that are not one number per
    weight go over where the whole variable does.

    Args:
        optimizer: the optimizer of the old variables.
        moves: one for each of them, in the order in which the optimizer holds them.
        variables: those of the new optimizer, in its order, where there are more of them.
    """
    check_resettable(optimizer)
    converted = made_anew(optimizer)
    if not optimizer.built:
        return converted
    converted.build([move.new for move in moves] if variables is None else list(variables))
    moved_slots: dict[int, Move] = {}
    for move in moves:
        owner = _optimizer_of(optimizer, move.old)
        if owner is not None and move.places is not None:
            moved_slots |= {id(slot): move for _, slot in slots_of(owner, move.old)}
    pairs: Iterable[tuple[keras.Variable, keras.Variable]]
    if variables is None:
        pairs = zip(optimizer.variables, converted.variables, strict=True)
    else:
        pairs = _paired_by_weight(optimizer, converted, moves, variables)
    for old, new in pairs:
        moved = moved_slots.get(id(old))
        if moved is None or moved.places is None:
            new.assign(old)
        elif old.shape == moved.old.shape and new.shape == moved.new.shape:
            old_places, new_places = moved.places
            values = tf.gather(tf.reshape(old.value, [-1]), old_places)
            flat = tf.reshape(new.value, [-1])
            flat = tf.tensor_scatter_nd_update(flat, new_places[:, None], values)
            new.assign(ops.reshape(flat, new.shape))
    return converted


def _paired_by_weight(
    optimizer: keras.Optimizer,
    converted: keras.Optimizer,
    moves: Sequence[Move],
    variables: Sequence[keras.Variable],
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """The variables of an optimizer, and those of one that holds more weights, for the same."""
    sides = (optimizer, [move.old for move in moves]), (converted, variables)
    of_weights: list[set[int]] = []
    for each, weights in sides:
        owners = [(weight, _optimizer_of(each, weight)) for weight in weights]
        slots_there = [slot for w, owner in owners if owner for _, slot in slots_of(owner, w)]
        of_weights.append({id(slot) for slot in slots_there})
    for move in moves:
        before, after = _optimizer_of(optimizer, move.old), _optimizer_of(converted, move.new)
        if before is not None and after is not None:
            there = dict(slots_of(after, move.new))
            yield from ((slot, there[name]) for name, slot in slots_of(before, move.old))
    rest = [
        [variable for variable in each.variables if id(variable) not in those]
        for (each, _), those in zip(sides, of_weights, strict=True)
    ]
    yield from zip(*rest, strict=True)


# Their steps depend on all weights of a variable together, and so on what else it holds.
_LAYER_WISE = (keras.optimizers.Lamb, keras.optimizers.Adafactor)


def check_is_elementwise(
    optimizer: keras.Optimizer | None, layer_name: str, variable: keras.Variable
) -> None:
    """Raises `ValueError` if `optimizer` does not update `variable` weight by weight."""
    owner = None if optimizer is None else _optimizer_of(optimizer, variable) or optimizer
    if isinstance(getattr(owner, "inner_optimizer", owner), _LAYER_WISE):
        raise ValueError(
            f"{type(owner).__name__} can't train a sparse layer: its step depends on the shape and "
            f"size of the whole kernel. Received: layer {layer_name!r}. Use an optimizer that "
            "updates weight by weight, such as Adam, AdamW, SGD, RMSprop or Lion, or convert the "
            "layer with `keras_grow.make_growable`."
        )


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
        made_anew(optimizer)
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
    return {name: slot for name, slot in slots_of(owner, variable) if slot.shape == variable.shape}


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
    return optimizer if has_slots_for(optimizer, variable) else None
