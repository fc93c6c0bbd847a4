"""Which units are one and the same: held by nudging units, which knows no rule of any layer.

`keras_grow.structure.calls` relies on names that Keras does not make public. It was run on Keras
3.10.0, 3.13.0 and 3.15.1.
"""

import contextlib

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import GrowableConv2D, GrowableDense, SparseDense, groups, unit_rules
from keras_grow.measuring.interception import intercepted
from keras_grow.structure.graph import UnitsNotFollowed
from keras_grow.structure.kernels import axes_of, connections_of, counts_of
from keras_grow.structure.rules import keeps_units_apart
from keras_grow.structure.unit_graph import UnitGraph
from tests.random_models import random_model

_layers = keras.layers


class _Nudged:
    """A model each of whose layers with a kernel answers with random numbers, some of them nudged.

    What such a layer is given depends on those numbers only where no kernel lies in between: what
    moves with a unit, at the inputs of these layers and at the model's outputs, is read from it.
    """

    def __init__(self, model):
        self._model = model
        self._layers = {}
        for steps in UnitGraph(model).kernels.values():
            self._layers[steps[0].layer] = steps[0].path
        random = np.random.default_rng(1)
        self._inputs = [
            random.normal(size=(4, *tensor.shape[1:])).astype("float32") for tensor in model.inputs
        ]
        self._random = random
        self._answers = {layer: [] for layer in self._layers}
        self._read(None, None)

    def nodes(self):
        """Every unit that a kernel makes, and every entry of the inputs."""
        for layer, answers in self._answers.items():
            yield from (("made", layer, unit) for unit in range(answers[0].shape[-1]))
        for number, x in enumerate(self._inputs):
            yield from (("given", number, unit) for unit in range(x.shape[-1]))

    def moved_by(self, node):
        """What is read of a unit: inputs of layers with a kernel, and outputs of the model."""
        side, owner, unit = node
        still = self._read(None, None)
        found = set()
        for by in (9.0, -7.0):
            for place, values in self._read((side, owner), (unit, by)).items():
                change = np.abs(values - still[place]).reshape(-1, values.shape[-1]).max(axis=0)
                found |= {(*place, at) for at in np.flatnonzero(change > 1e-4).tolist()}
        return found

    def _read(self, owner, nudge):
        calls = dict.fromkeys(self._layers, 0)
        read = {}

        def nudged(key, values):
            if key == owner:
                values = values.copy()
                values[..., nudge[0]] += nudge[1]
            return values

        def around(layer):
            def of_method(method):
                def call(inputs, *args, **kwargs):
                    number = calls[layer]
                    calls[layer] += 1
                    known = read.setdefault(("read", layer), [])
                    known.append(np.asarray(inputs, "float64"))
                    if number == len(self._answers[layer]):
                        outputs = np.asarray(method(inputs, *args, **kwargs))
                        self._answers[layer].append(self._random.normal(size=outputs.shape))
                    return keras.ops.cast(
                        nudged(("made", layer), self._answers[layer][number]), layer.compute_dtype
                    )

                return call

            return of_method

        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(intercepted(layer, around(layer)))
            inputs = [nudged(("given", n), x) for n, x in enumerate(self._inputs)]
            is_many = len(inputs) > 1
            outputs = keras.tree.flatten(self._model(inputs if is_many else inputs[0]))
        for number, y in enumerate(outputs):
            read[("answered", number)] = [np.asarray(y, "float64")]
        return {
            place: np.concatenate([v.reshape(-1, v.shape[-1]) for v in values])
            for place, values in read.items()
        }


def _by_nudging(model):
    """Units and inputs that can only come and go together, where they can; and all that moves."""
    nudged = _Nudged(model)
    sets = []
    for node in nudged.nodes():
        joined = {node} | nudged.moved_by(node)
        apart = [other for other in sets if other.isdisjoint(joined)]
        for other in sets:
            if not other.isdisjoint(joined):
                joined |= other
        sets = [*apart, joined]
    free = []
    for joined in sets:
        makers = [owner for side, owner, _ in joined if side == "made"]
        is_held = any(side in ("given", "answered") for side, _, _ in joined)
        if makers and not is_held and len(makers) == len(set(makers)):
            free.append(frozenset(joined))
    return set(free), set().union(*sets)


def _by_rules(model):
    free = set()
    for group in groups(model):
        sides = (("made", group.made_by), ("read", group.read_by))
        for unit in range(group.count if group.why_fixed is None else 0):
            free.add(
                frozenset(
                    (side, end.layer, position)
                    for side, ends in sides
                    for end in ends
                    for position in end.indices[unit].tolist()
                )
            )
    return free


def _check_by_nudging(model):
    free, moving = _by_nudging(model)
    # The frame of zeros around a map goes with it, though it moves with nothing.
    assert {frozenset(joined & moving) for joined in _by_rules(model)} == free
    return free


def _plain_statistics(model):
    """The scale of no unit is 0, which would hide it."""
    for layer in keras_grow.layers.paths.nested_layers(model):
        if getattr(layer, "gamma", None) is not None:
            layer.gamma.assign(np.ones(layer.gamma.shape))
    return model


@pytest.mark.parametrize(
    "seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 100))]
)
def test_groups_are_those_that_nudging_finds_on_random_models(seed):
    model = _plain_statistics(random_model(seed))
    _check_by_nudging(model)


def _sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def _convolution(*between):
    return ((6, 6, 2), _layers.Conv2D(3, 3, activation="relu"), *between)


def _residual():
    x = keras.Input((4,))
    h = GrowableDense(5, "tanh", name="a")(x)
    h = _layers.Add()([h, GrowableDense(5, name="b")(_layers.ReLU()(h))])
    return keras.Model(x, _layers.Dense(2)(h))


def _concatenated_and_added():
    x = keras.Input((4,))
    parts = _layers.Concatenate()([GrowableDense(2, name="a")(x), GrowableDense(3, name="b")(x)])
    h = parts + GrowableDense(5, name="c")(x)
    return keras.Model(x, _layers.Dense(2)(h))


def _towers():
    shared = keras.Sequential([keras.Input((4,)), GrowableDense(5, "relu"), GrowableDense(3)])
    x, y = keras.Input((4,)), keras.Input((4,))
    h = _layers.Multiply()([shared(x), shared(y)])
    return keras.Model([x, y], _layers.Dense(1)(h))


def _two_readers_and_an_output():
    x = keras.Input((4,))
    h = GrowableDense(5, "relu")(x)
    normalized = GrowableDense(3)(_layers.BatchNormalization()(h))
    return keras.Model(x, [_layers.Dense(2)(h), normalized, GrowableDense(2)(normalized)])


def _squeeze_and_excite():
    x = keras.Input((6, 6, 2))
    h = GrowableConv2D(4, 3, padding="same", name="maps")(x)
    gate = _layers.Reshape((1, 1, 4))(_layers.GlobalAveragePooling2D()(h))
    gate = GrowableConv2D(4, 1, activation="sigmoid")(GrowableConv2D(3, 1)(gate))
    h = _layers.Multiply()([h, gate])
    return keras.Model(x, GrowableDense(2)(_layers.Flatten()(h)))


_CASES = {
    "dense to sparse": lambda: _sequential(
        (4,), GrowableDense(5), _layers.ReLU(), SparseDense(2, capacity=3)
    ),
    "dense in between": lambda: _sequential(
        (4,),
        _layers.Dense(5),
        _layers.BatchNormalization(),
        _layers.Activation("relu"),
        _layers.Dropout(0.5),
        _layers.Flatten(),
        GrowableDense(2),
    ),
    "over time": lambda: _sequential((3, 4), GrowableDense(5), _layers.Dense(2)),
    "over time, flattened": lambda: _sequential(
        (3, 4), GrowableDense(5), _layers.Flatten(), GrowableDense(2)
    ),
    "pooled, normalized, flattened maps": lambda: _sequential(
        *_convolution(
            _layers.MaxPooling2D(),
            _layers.SpatialDropout2D(0.1),
            _layers.BatchNormalization(axis=3),
            _layers.Flatten(),
            _layers.BatchNormalization(),
        ),
        GrowableDense(2),
    ),
    "averaged maps": lambda: _sequential(
        *_convolution(_layers.GlobalAveragePooling2D()), GrowableDense(2)
    ),
    "resized maps, flattened": lambda: _sequential(
        *_convolution(_layers.UpSampling2D(2), _layers.Cropping2D(1), _layers.Flatten()),
        GrowableDense(2),
    ),
    "repeated units": lambda: _sequential(
        (4,), GrowableDense(5), _layers.RepeatVector(3), _layers.Dense(2)
    ),
    "reshaped maps": lambda: _sequential(
        *_convolution(_layers.Permute((2, 1, 3)), _layers.Reshape((4, 12))), GrowableDense(2)
    ),
    "depthwise maps": lambda: _sequential(
        *_convolution(
            _layers.DepthwiseConv2D(3, depth_multiplier=2), _layers.PReLU(shared_axes=[1, 2])
        ),
        GrowableConv2D(2, 1),
    ),
    "residual": _residual,
    "concatenated and added": _concatenated_and_added,
    "towers": _towers,
    "two readers and an output": _two_readers_and_an_output,
    "squeeze and excite": _squeeze_and_excite,
}


@pytest.mark.parametrize("case", _CASES)
def test_groups_are_those_that_nudging_finds(case):
    assert _check_by_nudging(_CASES[case]())


def test_a_group_says_what_makes_reads_and_passes_it():
    group, *others = groups(_residual())
    assert str(group) == "5 units of 'a', 'b', read by 'b', 'dense'"
    assert [each.why_fixed for each in others] == [
        "units of an output layer are the model's answer"
    ]
    first, second, _ = groups(_concatenated_and_added())
    assert [end.path for end in first.made_by] == ["a", "c"]
    assert [end.path for end in second.made_by] == ["b", "c"]
    np.testing.assert_array_equal(second.made_by[1].indices, [[2], [3], [4]])
    flattened = groups(_CASES["pooled, normalized, flattened maps"]())[0]
    assert flattened.moves
    assert [end.indices.shape for end in flattened.passed] == [(3, 1), (3, 4)]
    np.testing.assert_array_equal(flattened.read_by[0].indices[1], [1, 4, 7, 10])
    assert not groups(_towers())[1].adds
    (dense, _) = groups(_CASES["dense in between"]())
    assert not dense.moves  # A Flatten of units alone changes nothing.


def test_a_model_built_layer_by_layer_and_used_in_another_is_followed_as_it_is_now():
    model = keras.Sequential()
    for layer in (keras.Input((4,)), _layers.Dense(3), _layers.Dense(2), GrowableDense(1)):
        model.add(layer)
    hidden, reader, _ = model.layers
    # Another model that reads the same layer is not this model's business.
    keras.Model(model.inputs, _layers.Dense(7)(hidden.output))
    assert [end.layer for end in groups(model)[0].read_by] == [reader]


_IN_THE_WAY = {
    "units of an output layer": lambda h, x: h,
    "units of an input": lambda h, x: _layers.Add(name="sum")([h, x]),
    "Reshape\\) in the way": lambda h, x: _layers.Reshape((2, 2))(h),
    "Lambda\\) in the way": lambda h, x: _layers.Lambda(lambda t: t)(h),
    "Softmax\\) in the way": lambda h, x: _layers.Softmax()(h),
    "LayerNormalization\\) in the way": lambda h, x: _layers.LayerNormalization()(h),
    "its activation mixes units": lambda h, x: _layers.Activation("softmax")(h),
    "Multiply\\) in the way": lambda h, x: h * 2.0,
    "not all tied alike": lambda h, x: _layers.Conv1D(4, 1, groups=2)(_layers.Reshape((1, 4))(h)),
}


@pytest.mark.parametrize("message", _IN_THE_WAY)
def test_what_is_in_the_way_is_named(message):
    x = keras.Input((4,), name="x")
    hidden = GrowableDense(4, "relu", name="hidden")
    tail = _IN_THE_WAY[message](hidden(x), x)
    outputs = tail if "output" in message else _layers.Dense(2)(tail)
    model = keras.Model(x, outputs)
    (group,) = [each for each in groups(model) if each.made_by[0].layer is hidden]
    with pytest.raises(UnitsNotFollowed, match=f"'hidden'.*{message}"):
        keras_grow.widen(model, hidden, 5)
    assert group.why_fixed or "tied alike" in message


def test_layers_that_have_no_units_of_their_own_are_refused():
    x = keras.Input((4,))
    wrapped = GrowableDense(2, name="wrapped")
    y = _layers.Flatten()(_layers.TimeDistributed(wrapped)(_layers.Reshape((2, 2))(x)))
    with pytest.raises(UnitsNotFollowed, match="'wrapped': it is no layer of the model itself"):
        keras_grow.widen(keras.Model(x, _layers.Dense(1)(y)), wrapped, 3)
    softmax = GrowableDense(4, "softmax", name="mixing")
    with pytest.raises(UnitsNotFollowed, match="the activation of 'mixing' mixes them"):
        keras_grow.widen(_sequential((4,), softmax, _layers.Dense(1)), softmax, 5)
    with pytest.raises(UnitsNotFollowed, match="subclassed or unbuilt model"):
        groups(keras.Sequential([softmax]))


@keras.saving.register_keras_serializable("tests")
class _Doubled(_layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_a_layer_of_your_own_is_followed_once_a_rule_says_how():
    model = _sequential((4,), GrowableDense(5, name="hidden"), _Doubled(), GrowableDense(2))
    assert "_Doubled) in the way" in groups(model)[0].why_fixed
    with pytest.raises(TypeError, match="Received: .*_Doubled.*'each to its own'"):
        unit_rules.register(_Doubled, "each to its own")
    unit_rules.register(_Doubled, unit_rules.UnitByUnit())
    try:
        assert groups(model)[0].why_fixed is None
        _check_by_nudging(model)
        wider = keras_grow.widen(model, "hidden", 9)
        assert wider.get_layer("hidden").units == 9
        keras_grow.prune(model, count=12)
        keras_grow.compact(model)
    finally:
        del unit_rules._RULES[_Doubled]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", True), ("gelu", True), ("linear", True), ("softmax", False), ("log_softmax", False)],
)
def test_activations_that_mix_units_are_told_by_what_they_do(activation, expected):
    assert keeps_units_apart(keras.activations.get(activation)) == expected


@pytest.mark.parametrize("seed", range(6))
def test_counts_of_connections_are_those_of_a_list_of_them(seed):
    model = random_model(seed)
    for steps in UnitGraph(model).kernels.values():
        layer = steps[0].layer
        connections, _ = connections_of(layer)
        by_input, by_unit = counts_of(layer)
        np.testing.assert_array_equal(by_input, axes_of(layer).count_by_input(connections))
        np.testing.assert_array_equal(by_unit, axes_of(layer).count_by_unit(connections))
