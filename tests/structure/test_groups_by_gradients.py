"""Which weights come and go together: held by what they do to gradients, which knows no rule.

A unit whose makers are 0 gives its readers nothing, so that their gradients are 0; one whose
readers are 0 gets none. This holds inside recurrent layers and attention too, where nothing can be
nudged in between.
"""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse.csgraph import connected_components

import keras_grow
from keras_grow.areas import PartialAreaConv2D
from keras_grow.layers.paths import nested_layers
from keras_grow.structure.kernels import axes_of
from keras_grow.structure.rules import computing
from tests.quick import among
from tests.random_models import inputs_of, random_wired_model


def _plain(seed):
    """A stock network of random wiring, in which only what has no source is 0."""
    model = random_wired_model(seed)
    if any(isinstance(layer, PartialAreaConv2D) for layer in nested_layers(model)):
        return _plain(seed + 1000)  # Keras has no such layer.
    model = keras_grow.make_plain(model, verify=False)
    random = np.random.default_rng(seed)
    for layer in nested_layers(model):
        if getattr(layer, "activation", None) not in (None, keras.activations.linear):
            layer.activation = keras.activations.tanh  # Its 0 is 0, and no other number's.
    for variable in model.variables:
        if "int" in variable.dtype:
            continue  # The state of a Dropout's seed.
        values = {"gamma": 1.0, "scale": 1.0, "moving_variance": 1.0}.get(variable.name)
        if variable.name in ("beta", "moving_mean"):
            values = 0.0
        if values is None:
            values = random.normal(size=variable.shape, scale=0.3)
        variable.assign(np.broadcast_to(values, variable.shape))
    return model


class _Gradients:
    """The gradients of a model's variables, where some of their entries are 0."""

    def __init__(self, model):
        self._variables = model.trainable_variables
        self._values = [variable.numpy() for variable in self._variables]
        x = tf.convert_to_tensor(inputs_of(model, 8))
        random = tf.random.stateless_normal(model(x).shape, [1, 2])

        @tf.function
        def gradients():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(random * model(x))
            variables = [variable.value for variable in self._variables]
            return tape.gradient(loss, variables, unconnected_gradients="zero")

        self._gradients = gradients

    def without(self, entries):
        """By variable's `id`, which entries have a gradient if some, by pairs, are 0."""
        values = {
            id(v): value.copy() for v, value in zip(self._variables, self._values, strict=True)
        }
        for variable, flat in entries:
            values[id(variable)].reshape(-1)[flat] = 0
        for variable in self._variables:
            variable.assign(values[id(variable)])
        found = [tf.convert_to_tensor(gradient).numpy() for gradient in self._gradients()]
        return {
            id(v): each.reshape(-1) != 0 for v, each in zip(self._variables, found, strict=True)
        }


def _entries(ends, unit, is_made):
    """A unit's entries of kernels, copy by copy: the variable and their flat indices."""
    for end in ends:
        axes = axes_of(end.layer)
        flat = np.arange(np.prod(axes.shape))
        side = np.asarray((axes.units_of if is_made else axes.inputs_of)(tf.constant(flat)))
        for copy in end.indices[unit]:
            yield end.layer.kernel, flat[side == copy]


def _parts(group):
    """Its makers and readers, in parts that are computed apart and tied by a number of Keras's."""
    if not any(end.units.endswith("/size") for end in group.made_by):
        return [(group.made_by, group.read_by)]
    # A GroupQueryAttention has one `head_dim` for its scores and for its values.
    values = [end for end in group.made_by if "value" in end.path]
    return [([e for e in group.made_by if e not in values], ()), (values, group.read_by)]


def _num_apart(model, made_by):
    """In how many pieces a unit is computed that Keras makes alike; `None` if that depends."""
    for layer in model.layers:  # One behind the other, as many channels as the other.
        if isinstance(layer, keras.layers.Concatenate) and layer.axis not in (
            -1,
            len(layer.output.shape) - 1,
        ):
            return None
    for end in made_by:
        layer = computing(end.owner)
        if end.units.endswith("size"):  # The dimensions of all heads.
            return getattr(layer, "num_key_value_heads", getattr(layer, "num_heads", None))
        if isinstance(layer, keras.layers.Bidirectional) and layer.merge_mode == "concat":
            return 2
    return 1


def _check(model, groups=None):
    """Compares the groups of a model with what its gradients say; how many units it looked at."""
    gradients, count = _Gradients(model), 0
    for group in keras_grow.groups(model) if groups is None else groups:
        if group.why_fixed is not None:
            continue
        for unit, (made_by, read_by) in itertools.product(range(group.count), _parts(group)):
            makers = [*_entries(made_by, unit, True)]
            readers = [*_entries(read_by, unit, False)]
            biases = [(entry.variable, entry.indices[unit]) for entry in group.biases]
            for end in group.passed:  # A filter's bias comes behind it.
                if getattr(end.layer, "bias", None) is not None:
                    biases.append((end.layer.bias, end.indices[unit]))
            # Others ask for the unit too, where all count in a mean.
            counts = any(isinstance(e.layer, keras.layers.RMSNormalization) for e in group.passed)
            message, apart = f"unit {unit} of {group}", _num_apart(model, made_by)
            _check_unit(gradients, makers, readers, biases, counts, apart, message)
            count += 1
    return count


def _check_unit(gradients, makers, readers, biases, counts, num_apart, message):
    def alive(zeroed):
        found = gradients.without([*zeroed, *biases])
        return [bool(found[id(variable)][flat].any()) for variable, flat in parts]

    parts = [*makers, *readers]
    is_maker = [True] * len(makers) + [False] * len(readers)
    # Nothing is missing: without makers nothing is read, without readers nothing is asked for.
    if readers:
        without_makers, without_readers = alive(makers), alive(readers)
        assert not any(itertools.compress(without_makers, np.logical_not(is_maker))), message
        assert counts or not any(itertools.compress(without_readers, is_maker)), message
    # Nothing is too much: each part is tied to another by being what that one lives by, alone or
    # where the other parts of its side are 0, and all of them hang together.
    whole = alive([])
    assert all(whole), message
    tied = np.eye(len(parts), dtype=bool)
    for number, part in enumerate(parts):
        side = [p for p, is_its in zip(parts, is_maker, strict=True) if is_its == is_maker[number]]
        for others in ([], [p for p in side if p is not part]):
            before, after = alive(others), alive([*others, part])
            tied[number] |= np.array(before) & ~np.array(after)
    tied |= tied.T
    assert num_apart in (None, connected_components(tied)[0]), message


@pytest.mark.parametrize(
    "seed", among({str(n): n for n in range(60)}, quick=[str(n) for n in range(3)])
)
def test_groups_are_those_that_gradients_find_on_random_models(seed):
    assert _check(_plain(seed)) > 0


def _rolled(end):
    return dataclasses.replace(end, indices=np.roll(end.indices, 1, axis=0))


_WRONG = {
    "a maker is missing": lambda group: {"made_by": group.made_by[1:]},
    "a reader is missing": lambda group: {"read_by": group.read_by[1:]},
    "biases are missing": lambda group: {"biases": ()},
    "a reader is out of order": lambda group: {
        "read_by": (_rolled(group.read_by[0]), *group.read_by[1:])
    },
    "a maker is out of order": lambda group: {
        "made_by": (_rolled(group.made_by[0]), *group.made_by[1:])
    },
    "two units are taken for one": lambda group: {
        "count": group.count // 2,
        "biases": tuple(_joined(entries) for entries in group.biases),
        "made_by": tuple(_joined(end) for end in group.made_by),
        "read_by": tuple(_joined(end) for end in group.read_by),
    },
}


def _joined(end):
    return dataclasses.replace(end, indices=end.indices.reshape(-1, 2 * end.indices.shape[1]))


@pytest.mark.parametrize("wrong", _WRONG)
def test_a_wrong_group_is_found(wrong):
    layers = keras.layers
    x = keras.Input((3, 2))
    h = layers.LSTM(4, return_sequences=True)(x)
    h = layers.Add()([h, layers.MultiHeadAttention(2, 3)(h, h)])
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(h)))
    group = keras_grow.groups(model)[0]
    assert _check(model, [group]) == 4
    changes = _WRONG[wrong](group)
    with pytest.raises(AssertionError, match="unit"):
        _check(model, [dataclasses.replace(group, **changes)])
