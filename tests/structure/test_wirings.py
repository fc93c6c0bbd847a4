"""Units of layers with several kernels: which are one, and what is left without some of them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_grow
from keras_grow.layers.paths import nested_layers
from keras_grow.neurons.units import Units
from keras_grow.structure.graph import UnitsNotFollowed
from tests.structure.wired_models import MAKERS, inputs_of, layer_called, made, stirred

# What `groups` finds beside the answer: how many units of what, and whether they can change.
_EXPECTED = {
    "lstm": {"first": 7, "second": 5},
    "gru": {"dense": 9, "first": 7, "second": 5},
    "simple_rnn": {"dense": 9, "first": 7},
    "states": {"encoder": 7},
    "bidirectional": {"first/forward": 6, "second/forward": 5},
    "attention": {
        "before": 9,
        "attention/heads": 4,
        "attention/key_size": 3,
        "attention/value_size": 5,
        "attention": 7,
    },
    "gated_attention": {
        "attention/heads": 4,
        "attention/key_size": 3,
        "attention/value_size": 3,
        "attention": 8,
    },
    # Queries, values and output must be as wide as each other.
    "grouped_query_attention": {"before": 8, "attention/heads": 3, "attention/size": 4},
    "transformer": {
        "words": 8,
        "attention/heads": 2,
        "attention/key_size": 4,
        "attention/value_size": 4,
        "wide": 11,
    },
    "tied_embedding": {"words": 8},
    "untied_embedding": {"words": 8},
    "einsum": {"first": 9, "second": 5},
    # The first, second, third of both groups of 4 inputs; pairs of outputs of both groups of 6.
    "grouped": {"before": 4, "wide/output_of_group": 3},
    "separable": {"map4": 4, "map5": 5, "separable": 6},
    "transposed": {"first": 9, "second": 5},
    "volumes": {"first": 3, "second/output_of_group": 4},
    "scales": {"one": 7, "dense": 5},
}


def _free(model):
    return [group for group in keras_grow.groups(model) if group.why_fixed is None]


def _pruned(model, seed=0):
    """The model without a random third of the units of each group, and how many each has left."""
    random, left = np.random.default_rng(seed), {}
    for group in _free(model):
        units = Units(group)
        gone = random.permutation(group.count)[: group.count // 3]
        units.cut_incoming(gone, None)
        units.cut_outgoing(gone, None)
        left[units.path] = group.count - len(gone)
    return left


@pytest.mark.parametrize("growable", [False, True], ids=["plain", "growable"])
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_compact_computes_what_is_left(name, growable):
    model = made(name, growable)
    x = inputs_of(model)
    left = _pruned(model)
    expected = model(x).numpy()
    small = keras_grow.compact(model).model
    assert np.abs(small(x) - expected).max() <= 2e-6 * np.abs(expected).max()
    assert {Units(group).path: group.count for group in _free(small)} == left
    assert small.count_params() < model.count_params()
    # What was left out is nothing that the check would not see.
    for variable in small.trainable_variables:
        if "key/bias" in variable.path:
            continue  # It moves all scores of a query alike, to which a softmax is blind.
        before = variable.numpy()
        variable.assign(before + 0.1)
        assert np.abs(small(x) - expected).max() > 1e-4 * np.abs(expected).max()
        variable.assign(before)


@pytest.mark.parametrize("name", MAKERS)
def test_groups_are_those_that_the_layers_are_wired_to(name):
    found = {Units(group).path: group.count for group in _free(made(name))}
    assert found == _EXPECTED[name]


@pytest.mark.parametrize("name", MAKERS)
def test_a_wider_copy_computes_the_same_and_its_new_units_are_dormant(name):
    model = made(name, growable=True)
    model.compile(keras.optimizers.Adam(), "mse")
    x = inputs_of(model)
    expected = model(x).numpy()
    for group in _free(model):
        path = Units(group).path
        if name == "grouped" or (
            path == "first" and name == "volumes"
        ):  # Its maps are tied across the groups.
            with pytest.raises(UnitsNotFollowed, match="not all tied alike"):
                keras_grow.widen(model, path, group.count + 3)
            continue
        wider = keras_grow.widen(model, path, group.count + 3)
        assert np.abs(wider(x) - expected).max() <= 2e-6 * np.abs(expected).max()
        (now,) = [each for each in _free(wider) if Units(each).path == path]
        connected = Units(now).connected()
        assert (len(connected), connected.sum()) == (group.count + 3, group.count)
        keras_grow.convert_optimizer(model, wider)
        small = keras_grow.compact(wider).model
        assert small.count_params() == model.count_params()


def test_an_lstm_is_left_with_the_columns_of_its_gates():
    model = made("lstm")
    layer = layer_called(model, "first")
    kernel, recurrent, bias = (w.numpy() for w in layer.weights)
    (group, *_) = _free(model)
    units = Units(group)
    units.cut_incoming(np.array([2, 5]), None)
    units.cut_outgoing(np.array([2, 5]), None)
    small = layer_called(keras_grow.compact(model).model, "first")
    gone = [gate * 7 + unit for gate in range(4) for unit in (2, 5)]
    np.testing.assert_array_equal(small.cell.kernel, np.delete(kernel, gone, 1))
    expected = np.delete(np.delete(recurrent, gone, 1), [2, 5], 0)
    np.testing.assert_array_equal(small.cell.recurrent_kernel, expected)
    np.testing.assert_array_equal(small.cell.bias, np.delete(bias, gone))


def test_an_attention_keeps_its_scale_in_the_queries():
    model = made("attention")
    query = [w.numpy() for w in model.get_layer("attention").weights if "query" in w.path]
    (group,) = [g for g in _free(model) if Units(g).path == "attention/key_size"]
    Units(group).cut_incoming(np.array([1]), None)
    small = keras_grow.compact(model).model.get_layer("attention")
    assert (small.key_dim, small.value_dim, small.num_heads) == (2, 5, 4)
    ours = [w.numpy() for w in small.weights if "query" in w.path]
    for before, after in zip(query, ours, strict=True):
        np.testing.assert_allclose(after, np.delete(before, 1, -1) * np.sqrt(2 / 3), rtol=1e-6)


def test_a_dimension_of_keys_goes_where_queries_and_keys_never_meet():
    model = made("attention")
    x = inputs_of(model)
    kernels = {w.path.split("/")[-2]: w for w in model.get_layer("attention").weights[::2]}
    for name, heads in (("query", [0, 1]), ("key", [2, 3])):
        values = kernels[name].numpy()
        values[:, heads, 0] = 0
        kernels[name].assign(values)
    for weight in model.get_layer("attention").weights[1::2]:
        weight.assign(np.zeros(weight.shape))
    small = keras_grow.compact(model).model
    assert small.get_layer("attention").key_dim == 2
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_units_of_a_recurrent_layer_stay_whose_bias_moves_them():
    model = made("lstm")
    (group, *_) = _free(model)
    units = Units(group)
    units.cut_incoming(np.array([2]), None)  # Its biases are 0 now.
    bias = layer_called(model, "first").cell.bias
    values = bias.numpy()
    values[2 * 7 + 2] = 1.0  # That of the gate which becomes the output.
    bias.assign(values)
    small = keras_grow.compact(model).model
    assert small.get_layer("first").units == 7
    values[2 * 7 + 2] = 0.0
    bias.assign(values)
    assert keras_grow.compact(model).model.get_layer("first").units == 6


@pytest.mark.parametrize("kind", ["lstm", "attention"])
def test_normalized_kernels_keep_what_they_compute(kind):
    x = keras.Input((6, 8))
    if kind == "lstm":
        y = keras_grow.WeightNormKernels(layers.LSTM(7, return_sequences=True))(x)
    else:
        y = keras_grow.WeightNormKernels(layers.MultiHeadAttention(3, 4))(x, x)
    model = keras.Model(x, layers.Dense(3)(y))
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.4, variable.shape))
    left = _pruned(model)
    x = inputs_of(model)
    small = keras_grow.compact(model).model
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert {Units(group).path: group.count for group in _free(small)} == left


def test_what_is_in_the_way_of_layers_with_several_kernels_is_said():
    x = keras.Input((6, 8), batch_size=2)
    stateful = layers.LSTM(5, stateful=True, name="stateful")
    _, scores = layers.MultiHeadAttention(2, 3, name="scores")(x, x, return_attention_scores=True)
    cell = layers.RNN(layers.LSTMCell(4), name="cell")
    shaped = layers.MultiHeadAttention(2, 3, output_shape=(2, 4), name="shaped")
    model = keras.Model(x, [stateful(x), scores, cell(x), shaped(x, x)])
    why = {
        step.path: why
        for step, (why, _) in keras_grow.structure.unit_graph.UnitGraph(model).fixed.items()
    }
    assert why["stateful"] == "it keeps its state from batch to batch"
    assert why["scores"] == "it makes more than its output"
    assert why["cell"] == "it is not known to keep units apart"
    assert why["shaped"] == "its output has several axes of its own"


def test_kernels_that_are_adapted_or_quantized_are_not_followed():
    model = made("attention")
    assert {"attention/heads"} <= {Units(group).path for group in _free(model)}
    dense = [each for each in nested_layers(model) if each.name == "query"]
    dense[0].enable_lora(2)
    assert not [group for group in _free(model) if "attention" in Units(group).path]


def _stack(normalization):
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 5))
    y = layers.Dense(9, name="stream")(x)
    z = layers.Dense(7, "relu", name="hidden")(normalization()(y))
    y = y + layers.Dense(9, name="narrow")(z)
    return stirred(keras.Model(x, layers.Dense(3)(normalization()(y))))


def test_units_stay_behind_a_mean_unless_that_is_asked_for():
    model = keras_grow.make_growable(_stack(layers.LayerNormalization))
    x = inputs_of(model)
    (group,) = [g for g in keras_grow.groups(model) if g.made_by[0].units == "stream"]
    assert "its mean and variance run over them" in group.why_fixed
    data = {"score": keras_grow.neuron_scores.Contribution(), "data": (x,)}
    record = keras_grow.prune_neurons(model, count=3, **data)
    assert [change.name for change in record.layers] == ["hidden"]
    record = keras_grow.prune_neurons(model, count=4, through_normalization=True, **data)
    (gone,) = [change.count for change in record.layers if change.name == "stream"]
    assert gone > 0
    assert keras_grow.compact(model).model.get_layer("stream").units == 9
    with pytest.raises(ValueError, match="Pass `verify=x`"):
        keras_grow.compact(model, through_normalization=True)
    compaction = keras_grow.compact(model, through_normalization=True, verify=x)
    small = compaction.model
    assert small.get_layer("stream").units == 9 - gone
    expected, ours = model(x).numpy(), small(x).numpy()
    difference = np.abs(ours - expected).max() / np.abs(expected).max()
    assert compaction.difference == pytest.approx(difference, rel=1e-4)
    assert difference > 1e-3
    assert f"others: by {difference:.2g} of the largest" in str(compaction)


def test_a_root_mean_square_is_folded_into_its_scale():
    model = _stack(layers.RMSNormalization)
    x = inputs_of(model)
    _pruned(model)
    compaction = keras_grow.compact(model)
    small = compaction.model
    assert compaction.difference is None
    assert small.get_layer("stream").units == 6
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-6)
    (first, *_) = [each for each in nested_layers(small) if "normalization" in each.name]
    assert first.epsilon == pytest.approx(1e-6 * 9 / 6)


def test_a_unit_that_nothing_reads_stays_where_it_counts_in_a_mean():
    model = _stack(layers.RMSNormalization)
    (group,) = [g for g in _free(model) if g.made_by[0].units == "stream"]
    Units(group).cut_outgoing(np.array([0, 1]), None)  # They are made still.
    assert keras_grow.compact(model).model.get_layer("stream").units == 9


def test_averages_of_weights_are_scaled_with_them():
    model = made("attention")
    model.compile(keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.5), "mse")
    x = inputs_of(model)
    model.train_on_batch(x, np.zeros((5, 6, 3)))
    (group,) = [g for g in _free(model) if Units(g).path == "attention/key_size"]
    Units(group).cut_incoming(np.array([1]), None)
    compaction = keras_grow.compact(model)
    small = compaction.model
    optimizer = keras_grow.convert_optimizer(model, compaction)
    small.compile(optimizer, "mse")
    expected = small.get_layer("attention").get_weights()
    optimizer.finalize_variable_values(small.trainable_variables)
    kernel, bias = small.get_layer("attention").get_weights()[:2]
    np.testing.assert_allclose(kernel, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bias, expected[1], rtol=1e-5, atol=1e-6)
