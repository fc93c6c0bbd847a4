"""Units are pruned until the compact network is within a budget, through any wiring."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_grow
from keras_grow import budgets, compact, make_growable, neuron_scores, prune_neurons
from keras_grow.errors import CopyDiffers, NothingToChange
from keras_grow.neurons.budgets import Sizes
from keras_grow.structure.unit_graph import UnitGraph
from tests.quick import among
from tests.structure.wired_models import MAKERS, inputs_of, made


def _flops(model):
    """2 x products of every convolution and Dense of a plain or growable functional model."""
    total = 0
    for layer in model.layers:
        layer = getattr(layer, "layer", layer)
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            positions = np.prod(layer.output.shape[1:-1]) if len(kernel.shape) > 2 else 1
            total += 2 * int(np.prod(kernel.shape)) * int(positions)
    return total


def _residual():
    """A residual net with a depthwise block, of plain layers whose numbers nothing starts with."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(24, 3, padding="same", name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for name in ("one", "two"):
        y = layers.Conv2D(40, 1, name=f"{name}_wide")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(y)
        y = layers.Conv2D(24, 1, name=f"{name}_narrow")(layers.BatchNormalization()(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return _stirred(keras.Model(inputs, layers.Dense(5, name="logits")(x)))


def _stirred(model):
    random = np.random.default_rng(1)
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(random.normal(0, 0.3, variable.shape))
    return model


X = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype("float32")


@pytest.mark.parametrize("multiple_of", [1, 8])
def test_the_compact_network_is_within_the_flops_and_computes_the_same(multiple_of):
    model = make_growable(_residual())
    record = prune_neurons(
        model,
        budget=budgets.FLOPs(0.5),
        multiple_of=multiple_of,
        score=neuron_scores.Relative(),
        data=(X,),
    )
    small = compact(model).model
    assert 0.3 < _flops(small) / _flops(model) <= 0.5
    np.testing.assert_allclose(small(X), model(X), rtol=1e-4, atol=1e-4)
    # All ends of the additions have gone together, and the depthwise convolution with its input.
    widths = {layer.name: layer.output.shape[-1] for layer in small.layers}
    assert widths["stem"] == widths["one_narrow"] == widths["two_narrow"] < 24
    assert widths["one_depthwise"] == widths["one_wide"] < 40
    assert all(widths[name] % multiple_of == 0 for name in ("stem", "one_wide", "two_wide"))
    assert record.count == sum(layer.count for layer in record.layers)
    assert set(record.not_followed) == {"logits"}


def test_as_few_units_go_as_will_do():
    model = make_growable(_residual())
    weights = model.get_weights()
    record = prune_neurons(model, budget=budgets.FLOPs(0.7), data=(X,))
    assert _flops(compact(model).model) / _flops(model) <= 0.7
    model.set_weights(weights)
    prune_neurons(model, count=record.count - 1, data=(X,))
    assert _flops(compact(model).model) / _flops(model) > 0.7


@pytest.mark.parametrize("multiple_of", [1, 4])
def test_a_budget_is_a_share_of_the_whole_network_whatever_is_gone_already(multiple_of):
    arguments = {"multiple_of": multiple_of, "data": (X,)}
    at_once, in_steps = make_growable(_residual()), make_growable(_residual())
    prune_neurons(at_once, budget=budgets.FLOPs(0.5), **arguments)
    for share in (0.8, 0.65, 0.5):
        prune_neurons(in_steps, budget=budgets.FLOPs(share), **arguments)
        with pytest.raises(NothingToChange, match="within the budget. Received: a share of"):
            prune_neurons(in_steps, budget=budgets.FLOPs(share), **arguments)
    shares = [_flops(compact(m).model) / _flops(m) for m in (at_once, in_steps)]
    # What is measured between may differ; how much is left does not.
    assert 0.4 < min(shares) <= max(shares) <= 0.5


def test_with_a_budget_per_group_each_group_loses_the_same_share():
    model = make_growable(_residual())
    record = prune_neurons(model, budget=budgets.FLOPs(0.5), per_group=True, data=(X,))
    assert _flops(compact(model).model) / _flops(model) <= 0.5
    lost = [change.count / (change.count + change.num_connected) for change in record.layers]
    assert len(lost) == 3
    assert max(lost) - min(lost) < 0.06


def test_a_schedule_of_shares_is_for_a_callback():
    with pytest.raises(ValueError, match="budget of one share"):
        prune_neurons(make_growable(_residual()), budget=budgets.FLOPs(lambda e: 0.5), data=(X,))
    budget = budgets.FLOPs(lambda epoch: 1.2 - epoch / 10)
    assert [budget.at(epoch).share for epoch in (0, 5)] == [1.0, 0.7]
    assert budgets.FLOPs(0.5).at(3).share == 0.5
    with pytest.raises(ValueError, match="must stay above 0"):
        budget.at(12)


def test_parameters_are_counted_as_keras_counts_them():
    inputs = keras.Input((20,))
    hidden = layers.Dense(30, "relu")(inputs)
    hidden = layers.Dense(30, "relu", use_bias=False)(hidden)
    model = make_growable(keras.Model(inputs, layers.Dense(4)(hidden)))
    x = np.random.default_rng(0).normal(size=(8, 20))
    prune_neurons(model, budget=budgets.Parameters(0.4), data=(x,))
    plain = keras_grow.make_plain(compact(model).model)
    whole = keras_grow.make_plain(model).count_params()
    assert 0.36 < plain.count_params() / whole <= 0.4


def test_milliseconds_go_by_a_table_and_not_by_the_clock():
    model = make_growable(_residual())
    # A layer that is not in the table takes no time.
    table = {"one_wide": {(24, 40): 4.0, (24, 20): 2.0, (12, 10): 0.5}}
    record = prune_neurons(
        model, budget=budgets.Milliseconds(0.5, table), layers=["one_wide"], data=(X,)
    )
    assert [(change.name, change.count) for change in record.layers] == [("one_wide", 20)]
    slow = budgets.Milliseconds(0.5, table)
    between = budgets.LayerSize("one_wide", 1, 1, 24, 30)
    assert slow.cost(between) == pytest.approx(3.0)
    assert slow.cost(budgets.LayerSize("another", 1, 1, 24, 30)) == 0


def test_a_relative_score_does_not_empty_the_layers_of_small_outputs():
    inputs = keras.Input((6,))
    large = layers.Dense(10, "relu", name="large")(inputs)
    small = layers.Dense(10, "relu", name="small")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([large, small])))
    model.get_layer("small").kernel.assign(0.01 * model.get_layer("small").kernel)
    growable, x = make_growable(model), np.random.default_rng(0).normal(size=(32, 6))
    weights, counts = growable.get_weights(), []
    for score in (neuron_scores.Contribution(), neuron_scores.Relative()):
        growable.set_weights(weights)
        record = prune_neurons(growable, count=8, score=score, data=(x,))
        counts.append({change.name: change.count for change in record.layers})
    assert counts[0] == {"large": 0, "small": 8}
    assert min(counts[1].values()) >= 2


def test_budgets_that_can_not_be_are_refused_and_change_nothing(snapshot_of):
    model = make_growable(_residual())
    before = snapshot_of(model)
    with pytest.raises(ValueError, match="share of 0.001, expected at least"):
        prune_neurons(model, budget=budgets.FLOPs(0.001), data=(X,))
    with pytest.raises(TypeError, match="`budget` must be an object of a subclass"):
        prune_neurons(model, budget=0.5, data=(X,))
    with pytest.raises(ValueError, match="exactly one of `count`.*count=3"):
        prune_neurons(model, count=3, budget=budgets.FLOPs(0.5), data=(X,))
    with pytest.raises(ValueError, match="`multiple_of`"):
        prune_neurons(model, budget=budgets.FLOPs(0.5), multiple_of=0, data=(X,))
    with pytest.raises(ValueError, match="multiple_of=8, budget=None"):
        prune_neurons(model, density=0.5, multiple_of=8, data=(X,))
    assert snapshot_of(model) == before
    for share in (0, 1, True, "half"):
        with pytest.raises(ValueError, match="between 0 and 1. Received"):
            budgets.Parameters(share)


@pytest.fixture
def snapshot_of():
    """Function of a model: the bytes of all its variables."""
    return lambda model: [variable.numpy().tobytes() for variable in model.variables]


_FAMILIES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 75,
}


@pytest.mark.parametrize("name", among(_FAMILIES.keys(), quick=("MobileNetV2",)))
def test_published_networks_lose_half_of_their_flops_and_compute_the_same(name):
    keras.utils.set_random_seed(0)
    size = _FAMILIES[name]
    model = getattr(keras.applications, name)(
        weights=None, classes=10, classifier_activation=None, input_shape=(size, size, 3)
    )
    _stirred(model)
    x = np.random.default_rng(2).normal(size=(4, size, size, 3)).astype("float32")
    growable = make_growable(model, verify=x)
    prune_neurons(
        growable,
        budget=budgets.FLOPs(0.5),
        multiple_of=8,
        score=neuron_scores.Relative(),
        data=(x,),
    )
    expected = growable(x).numpy()
    small = compact(growable, verify=x).model
    assert np.abs(small(x) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert small.count_params() < 0.75 * growable.count_params()
    for layer in small.layers[::-1]:  # An error in one bias is found by the same check.
        bias = getattr(layer, "bias", None)
        if bias is not None:
            bias.assign_add(np.eye(1, bias.shape[0])[0])
            break
    assert np.abs(small(x) - expected).max() > 1e-4 * np.abs(expected).max()


def test_a_gate_of_channels_goes_with_them_through_a_reshape():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="wide")(inputs)
    gate = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(4, 1, activation="relu", name="squeeze")(gate)
    gate = layers.Conv2D(16, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Flatten()(layers.Conv2D(4, 1, name="narrow")(x))
    model = make_growable(_stirred(keras.Model(inputs, layers.Dense(2)(x))))
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32")
    wider = keras_grow.widen(model, "wide", 24)
    np.testing.assert_allclose(wider(x), model(x), rtol=1e-5, atol=1e-6)
    prune_neurons(model, budget=budgets.FLOPs(0.5), data=(x,))
    small = compact(model).model
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert small.get_layer("wide").filters == small.get_layer("excite").filters < 16


def test_a_copy_with_an_error_in_one_bias_is_not_returned(monkeypatch):
    model = make_growable(_residual())
    prune_neurons(model, budget=budgets.FLOPs(0.5), data=(X,))
    from keras_grow.conversion import compaction

    carry = compaction.carry

    def wrong(old, new, axes):
        carry(old, new, axes)
        if new.name == "two_narrow":
            new.bias.assign_add(np.full(new.bias.shape, 0.01))

    monkeypatch.setattr(compaction, "carry", wrong)
    with pytest.raises(CopyDiffers, match="'two_narrow'"):
        compact(model)


def _cost(model, budget):
    graph = UnitGraph(model)
    return Sizes(graph).cost(np.ones(graph.num_units, bool), budget)


@pytest.mark.parametrize("name", MAKERS)
def test_parameters_of_layers_with_several_kernels_are_those_that_keras_counts(name):
    model = made(name)
    others = [v for v in model.weights if v.name in ("scale", "seed_generator_state")]
    expected = model.count_params() - sum(int(np.prod(v.shape)) for v in others)
    assert _cost(model, budgets.Parameters(0.5)) == expected
    assert _cost(make_growable(model), budgets.Parameters(0.5)) == expected


# 2 for each weight at each position; T is 6 steps, of 8 numbers.
_FLOPS = {
    "lstm": 2 * 6 * (8 * 28 + 7 * 28 + 7 * 20 + 5 * 20) + 2 * 5 * 3,
    # Dense; query, key, value and output; scores and their use; Dense.
    "attention": 2 * 6 * (8 * 9 + 9 * 12 + 9 * 12 + 8 * 20 + 20 * 7 + 7 * 3)
    + 2 * 6 * 6 * 4 * (3 + 5),
    # Words are looked up.
    "tied_embedding": 2 * 6 * (8 * 8 + 8 * 20),
    # Filters at 5 x 5 places of 4 and 5 maps, then 3 x 3 of 9 maps to 18, and those to 6.
    "separable": 2 * 25 * 9 * 6 * 9 + 2 * 9 * (9 * 18 + 18 * 6) + 2 * 6 * 3,
    # 15 x 15 places from 7 x 7, and as many again.
    "transposed": 2 * 49 * 9 * 6 * 9 + 2 * 225 * 4 * 9 * 5 + 2 * 5 * 3,
    "grouped": 2 * 25 * (9 * 6 * 8 + 9 * 4 * 12 + 2 * 12) + 2 * 12 * 3,
}


@pytest.mark.parametrize("name", [name for name in _FLOPS if name in MAKERS])
def test_flops_of_layers_with_several_kernels_are_counted(name):
    assert _cost(made(name), budgets.FLOPs(0.5)) == _FLOPS[name]


@pytest.mark.parametrize("name", ["lstm", "attention", "grouped", "separable", "transposed"])
def test_what_is_left_of_layers_with_several_kernels_is_within_the_budget(name):
    model = made(name, growable=True)
    x = inputs_of(model)
    whole = _cost(model, budgets.FLOPs(0.5))
    prune_neurons(model, budget=budgets.FLOPs(0.5), score=neuron_scores.Relative(), data=(x,))
    small = compact(model).model
    assert 0.2 < _cost(small, budgets.FLOPs(0.5)) / whole <= 0.5
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-4)
