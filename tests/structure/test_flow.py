"""What of a model's units is needed, and what its calls make."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_grow.structure.flow import Flow
from keras_grow.structure.unit_graph import UnitGraph
from keras_grow.structure.wired_layers import wiring_for
from tests.structure.wired_models import tied_embedding


@pytest.mark.skipif(
    not hasattr(layers, "ReversibleEmbedding"), reason="this Keras has no tied embedding"
)
def test_a_call_of_a_tied_embedding_makes_words_and_no_other_call_makes_others():
    flow = Flow(UnitGraph(tied_embedding()))
    others = {step.path: [] for step in flow.graph.steps}
    for step in flow.graph.steps:
        others[step.path].append(flow.makes_others(step))
    assert others.pop("words") == [False, True]
    assert not any(map(any, others.values()))


def _reading_one():
    """Nothing reads the second input; the first unit of the hidden layer reads nothing."""
    x = keras.Input((3,))
    hidden, outputs = layers.Dense(2, name="hidden"), layers.Dense(2, name="outputs")
    model = keras.Model(x, outputs(hidden(x)))
    hidden.kernel.assign([[0, 2], [0, 0], [0, 1]])
    hidden.bias.assign([3, 0])
    return model


def test_an_input_stays_or_goes_as_it_is_said():
    for keeps_inputs, expected in ((True, [0, 1, 2]), (False, [0, 2])):
        flow = Flow(UnitGraph(_reading_one()), keeps_inputs=keeps_inputs)
        assert flow.kept(flow.graph.inputs[0]).tolist() == expected
        assert flow.used_inputs[0].tolist() == [0, 2]
        assert flow.kept(flow.graph.outputs[0]).tolist() == [0, 1]
    flow = Flow(UnitGraph(_reading_one()))
    assert flow.kept(flow.graph.inputs[0]).tolist() == [0, 1, 2]


def test_what_a_constant_unit_brings_is_absorbed():
    model = _reading_one()
    flow = Flow(UnitGraph(model))
    outputs = model.get_layer("outputs")
    inputs, added = flow.absorbed(outputs)
    assert inputs.tolist() == [0]
    np.testing.assert_allclose(added, 3 * outputs.kernel.numpy()[0], rtol=1e-6)


def test_where_nothing_is_needed_one_unit_stays_unless_none_need():
    model = _reading_one()
    model.get_layer("outputs").kernel.assign(np.zeros((2, 2)))
    (hidden,) = [s for s in UnitGraph(model).graph.steps if s.path == "hidden"]
    for keeps_one, left in ((True, 1), (False, 0)):
        flow = Flow(UnitGraph(model), keeps_one=keeps_one)
        (hidden,) = [step for step in flow.graph.steps if step.path == "hidden"]
        assert len(flow.kept(hidden.outputs[0])) == left
        assert len(flow.left_over(hidden.outputs[0])) == left


@pytest.mark.parametrize(
    ("equation", "shape", "output_shape", "is_followed"),
    [
        ("btd,df->btf", (6, 8), (None, 9), True),
        ("btd,dt->bt", (6, 8), (6,), False),  # A unit for each position.
        ("btd,d->bt", (6, 8), (6,), False),
        ("btd,tdf->bf", (6, 8), (9,), True),
        ("btd,td->btd", (6, 8), (6, 8), False),
    ],
)
def test_an_einsum_is_followed_from_its_last_axis_to_its_last(
    equation, shape, output_shape, is_followed
):
    layer = layers.EinsumDense(equation, output_shape)
    layer.build((None, *shape))
    why_not = wiring_for(layer).why_not(layer)
    assert (why_not is None) == is_followed
    assert is_followed or why_not == "its equation does not lead from the last axis to the last"


def test_a_constant_that_is_tied_to_what_is_needed_is_said_to_stay():
    x = keras.Input((3,))
    one, other = (layers.Dense(2, name=name) for name in ("one", "other"))
    ends = [one(x), other(x)]
    reader = layers.Dense(2, name="reader")(ends[0])
    model = keras.Model(x, [reader, layers.Dense(2, name="sum")(layers.Add()(ends))])
    one.kernel.assign(one.kernel * np.array([0, 1]))
    assert Flow(UnitGraph(model)).reasons == {
        "reader": "1 stay: units that are needed are tied to them"
    }
    one.bias.assign([0, 1])
    one.kernel.assign(np.zeros((3, 2)))
    reasons = Flow(UnitGraph(model)).reasons
    assert reasons["reader"] == "2 stay: units that are needed are tied to them"


@pytest.mark.parametrize("is_normalized", [False, True])
def test_what_counts_in_a_mean_stays_with_what_is_read(is_normalized):
    x = keras.Input((3,))
    hidden = layers.Dense(4, name="hidden")(x)
    passed = layers.RMSNormalization()(hidden) if is_normalized else layers.ReLU()(hidden)
    reader = layers.Dense(2, name="reader")
    model = keras.Model(x, reader(passed))
    reader.kernel.assign(reader.kernel * np.array([[1], [0], [0], [1]]))
    flow = Flow(UnitGraph(model))
    (step,) = [step for step in flow.graph.steps if step.path == "hidden"]
    expected = [0, 1, 2, 3] if is_normalized else [0, 3]
    assert flow.kept(step.outputs[0]).tolist() == expected
