"""A model's calls: what each is given, under which names, and with which arguments."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_grow
from keras_grow.structure.grown_axes import grown_axes
from keras_grow.structure.rules import rule_for
from keras_grow.structure.unit_graph import UnitGraph


def _calls(model):
    return [(step.path, step.names, step.options) for step in UnitGraph(model).graph.steps]


def test_tensors_have_the_names_of_their_arguments_and_the_rest_are_options():
    x, y = keras.Input((6, 8)), keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    outputs = attention(x, key=y, value=y, use_causal_mask=True)
    (call,) = [c for c in _calls(keras.Model([x, y], outputs)) if c[0] == "attention"]
    _, names, options = call
    assert names == ("query", "key", "value")
    assert options["use_causal_mask"] is True
    assert not {"query", "key", "value"} & set(options)


@pytest.mark.skipif(
    not hasattr(layers, "ReversibleEmbedding"), reason="this Keras has no tied embedding"
)
def test_each_call_of_a_layer_has_its_own_options():
    tokens = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(20, 8, name="words")
    calls = _calls(keras.Model(tokens, table(table(tokens), reverse=True)))
    assert [(names, options.get("reverse")) for _, names, options in calls if "words" in _] == [
        (("inputs",), None),
        (("inputs",), True),
    ]


def test_a_list_of_tensors_is_one_argument_and_states_are_another():
    x = keras.Input((6, 3))
    added = layers.Add(name="add")([x, x])
    states = [layers.Dense(4)(x[:, 0]) for _ in range(2)]
    outputs = layers.LSTM(4, name="lstm")(added, initial_state=states)
    calls = {path: names for path, names, _ in _calls(keras.Model(x, outputs))}
    assert calls["add"] == ("inputs", "inputs")
    assert calls["lstm"] == ("sequences", "initial_state", "initial_state")


def test_axes_are_those_of_layers_whose_weights_have_grown():
    layers_ = [layers.Dense(5, name="one"), layers.ReLU(), layers.BatchNormalization(name="bn")]
    layers_ += [layers.Dense(4, name="two"), layers.Dense(2, name="three")]
    model = keras_grow.make_growable(keras.Sequential([keras.Input((3,)), *layers_]))
    wider = keras_grow.widen(model, "one", 8)
    found = grown_axes(UnitGraph(model), UnitGraph(wider))
    paths = {id(layer): layer.name for layer in model.layers}
    axes = {paths[key]: sides for key, sides in found.items()}
    assert axes.keys() == {"one", "bn", "two"}
    for name, side in (("one", "output"), ("bn", "input"), ("two", "input")):
        places = axes[name][side]
        assert places.before.tolist() == places.after.tolist() == [0, 1, 2, 3, 4]
        assert (places.num_before, places.num_after) == (5, 8)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_depthwise_convolution_makes_of_constants_what_it_computes(activation, padding):
    layer = layers.DepthwiseConv1D(
        3, padding=padding, depth_multiplier=2, activation=activation, bias_initializer="normal"
    )
    constants = np.array([0.0, 1.5, np.nan])
    varying = np.random.default_rng(0).normal(size=(4, 7, 3)).astype("float32")
    x = np.where(np.isfinite(constants), constants, varying)
    outputs = np.asarray(layer(x))
    layer.bias.assign(layer.bias - 0.5)
    outputs = np.asarray(layer(x))
    made = rule_for(layer).constants(layer, [constants], [(7, 3)])
    is_known = [True, True, padding == "valid", padding == "valid", False, False]
    assert np.isfinite(made).tolist() == is_known
    expected = np.broadcast_to(made[is_known], outputs[..., is_known].shape)
    np.testing.assert_allclose(outputs[..., is_known], expected, rtol=1e-5, atol=1e-6)
