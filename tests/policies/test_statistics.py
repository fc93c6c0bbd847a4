"""Statistics and scores of the user's own, in one file, against numbers computed by brute force."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GradientMeter,
    GrowableConv2D,
    GrowableDense,
    TiledSearch,
    grow,
    growable_layers,
    growth_gradients,
    make_sparse,
    prune,
    scores,
    start_values,
    statistics,
)

Gradient, InputRMS = statistics.Gradient, statistics.InputRMS


class MeanSquareGradient(statistics.ProductStatistic):
    """The mean of (dL/dw)^2 over samples."""

    def factors(self, inputs, output_gradients):
        return tf.square(inputs), tf.square(output_gradients)


class SignalToNoise(scores.Score):
    """|E g| / sqrt(Var g + offset) of the gradients g of single samples, plus |w|."""

    statistics = (Gradient(), MeanSquareGradient())

    def __init__(self, offset=1e-3):
        self.offset = offset

    def __call__(self, connections):
        gradient = connections[Gradient()]
        variance = connections[MeanSquareGradient()] - tf.square(gradient)
        return tf.abs(gradient) / tf.sqrt(variance + self.offset) + tf.abs(connections.weight)


class Halved(scores.Score):
    """Half of what another score gives: it hands on the other's statistics."""

    def __init__(self, score):
        self.score, self.statistics = score, score.statistics

    def __call__(self, connections):
        return self.score(connections) / 2


class TimesInput(scores.Score):
    """|dL/dw| times the input's root mean square."""

    statistics = (Gradient(), InputRMS())
    increases_with_gradient = True

    def __call__(self, connections):
        return tf.abs(connections[Gradient()]) * connections[InputRMS()]


@pytest.fixture
def model(float64):
    layers = [
        GrowableDense(9, "tanh", initial_density=0.4, seed=1),
        GrowableDense(4, initial_density=0.4, seed=2),
    ]
    model = keras.Sequential([keras.Input((7,)), *layers])
    model.compile("sgd", "mse")
    return model


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(23, 7)), random.normal(size=(23, 4))


def _gradients_by_sample(model, x, y):
    """dL/dW of each sample alone, of each layer, computed without the package."""
    first, second = (tf.constant(layer.effective_kernel()) for layer in growable_layers(model))
    found = []
    for sample, target in zip(x, y, strict=True):
        with tf.GradientTape() as tape:
            tape.watch([first, second])
            outputs = tf.tanh(sample[None] @ first) @ second
            loss = tf.reduce_mean(tf.square(outputs - target))
        found.append(tape.gradient(loss, [first, second]))
    return [np.array(of_layer) for of_layer in zip(*found, strict=True)]


def _scores_by_brute_force(model, x, y):
    kernels = [layer.effective_kernel().numpy() for layer in growable_layers(model)]
    return [
        np.abs(g.mean(0)) / np.sqrt(g.var(0) + 1e-3) + np.abs(w)
        for g, w in zip(_gradients_by_sample(model, x, y), kernels, strict=True)
    ]


def _best(all_scores, are_candidates, count):
    """Flat indices of the best candidates of each layer, ranked over layers."""
    flat = [np.where(c, s, -np.inf).ravel() for s, c in zip(all_scores, are_candidates)]
    chosen = np.argsort(-np.concatenate(flat), kind="stable")[:count]
    ends = np.cumsum([0, *map(len, flat)])
    return [np.sort(chosen[(chosen >= a) & (chosen < b)]) - a for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize("score", [SignalToNoise(), Halved(SignalToNoise())])
@pytest.mark.parametrize(
    "search", [None, TiledSearch(tile_shape=(3, 4)), TiledSearch(max_bytes=1, tile_shape=(3, 4))]
)
@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_statistic_of_the_users_own_decides_what_grows_and_is_pruned(
    model, data, is_sparse, search, score
):
    network = make_sparse(model, capacity=1.0) if is_sparse else model
    meter = GradientMeter("mse", batch_size=10)
    masks = [layer.kernel_mask.numpy() for layer in model.layers]
    expected = _best(_scores_by_brute_force(model, *data), [~mask for mask in masks], 12)
    record = grow(
        network,
        data,
        count=12,
        score=score,
        start_value=start_values.DescentStep(0.1),
        meter=meter,
        search=search,
    )
    for change, indices in zip(record.layers, expected, strict=True):
        np.testing.assert_array_equal(change.indices, indices)
    masks = [layer.effective_kernel().numpy() != 0 for layer in growable_layers(network)]
    negated = [-scores for scores in _scores_by_brute_force(network, *data)]
    expected = _best(negated, masks, 9)
    record = prune(network, count=9, score=score, data=data, meter=meter)
    for change, indices in zip(record.layers, expected, strict=True):
        np.testing.assert_array_equal(change.indices, indices)


def test_a_score_that_increases_with_the_gradient_may_see_something_else_too(model, data):
    x = data[0] * np.geomspace(100, 0.01, 7)
    sparse = make_sparse(model, capacity=1.0)
    search, meter = TiledSearch(tile_shape=(2, 2)), GradientMeter("mse")
    records = [
        grow(network, (x, data[1]), count=9, score=TimesInput(), search=search, meter=meter)
        for network in (model, sparse)
    ]
    for masked, of_sparse in zip(*(record.layers for record in records), strict=True):
        np.testing.assert_array_equal(masked.indices, of_sparse.indices)


def test_products_of_a_convolution_and_of_a_shared_layer_are_summed_over_all_they_see(float64):
    class Hebbian(statistics.ProductStatistic):
        def factors(self, inputs, output_gradients):
            return inputs, output_gradients

    images = keras.Input((6, 6, 2))
    shared = GrowableConv2D(2, 3, padding="same", initial_density=0.5, seed=1)
    outputs = keras.layers.Flatten()(shared(keras.ops.tanh(shared(images))))
    model = keras.Model(images, GrowableDense(3, initial_density=0.5, seed=2)(outputs))
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    data = random.normal(size=(11, 6, 6, 2)), random.normal(size=(11, 3))
    measured = GradientMeter(batch_size=4).measure(model, data, statistics=[Hebbian()])
    for layer, gradient in growth_gradients(model, data).items():
        np.testing.assert_allclose(measured.values[layer][Hebbian()], gradient, atol=1e-12)


class Clipped(statistics.InputStatistic):
    """The mean of min(|x|, most)."""

    def __init__(self, most):
        self.most = most

    def of_inputs(self, inputs):
        return tf.minimum(tf.abs(inputs), self.most)


class UnitNumber(statistics.ModelStatistic):
    def look_up(self, model, layers, graph_of):
        return {layer: tf.range(layer.kernel_shape[-1]) for layer in layers}


class OfAllKinds(scores.Score):
    statistics = (Gradient(), InputRMS(), Clipped(0.5), Clipped(2.0), UnitNumber())

    def __call__(self, connections):
        inputs = connections[InputRMS()] + 3 * connections[Clipped(0.5)] + connections[Clipped(2.0)]
        return tf.abs(connections[Gradient()]) * inputs + 0.01 * connections[UnitNumber()]


@pytest.mark.parametrize("is_sparse", [False, True])
def test_one_pass_over_the_data_measures_statistics_of_every_kind(model, data, is_sparse):
    x, y = data
    gradients = [g.mean(0) for g in _gradients_by_sample(model, x, y)]
    hidden = np.tanh(x @ model.layers[0].effective_kernel().numpy())
    expected = [
        np.abs(gradient)
        * sum(
            [
                np.sqrt(np.square(inputs).mean(0)),
                3 * np.minimum(np.abs(inputs), 0.5).mean(0),
                np.minimum(np.abs(inputs), 2).mean(0),
            ]
        )[:, None]
        + 0.01 * np.arange(gradient.shape[1])
        for gradient, inputs in zip(gradients, (x, hidden), strict=True)
    ]
    dormant = [~layer.kernel_mask.numpy() for layer in model.layers]
    network = make_sparse(model, capacity=1.0) if is_sparse else model
    # A generator gives its batches once.
    once = ((x[start : start + 8], y[start : start + 8]) for start in range(0, 23, 8))
    record = grow(network, once, count=10, score=OfAllKinds(), meter=GradientMeter("mse"))
    for change, indices in zip(record.layers, _best(expected, dormant, 10), strict=True):
        np.testing.assert_array_equal(change.indices, indices)


def test_input_statistics_alone_need_no_loss_and_no_labels(model, data):
    plain = keras.Sequential(model.layers)
    record = prune(plain, count=3, score=scores.ActivationMagnitude(), data=(data[0],))
    assert record.loss is None


def test_statistics_are_the_same_if_class_and_attributes_are():
    assert Clipped(0.5) == Clipped(0.5)
    assert len({Clipped(0.5), Clipped(0.5), Clipped(2.0), Gradient(), MeanSquareGradient()}) == 4
    assert repr(Clipped(0.5)) == "Clipped(most=0.5)"


def test_statistics_that_are_not_finite_are_refused_by_name(model, data):
    class Overflowing(MeanSquareGradient):
        def factors(self, inputs, output_gradients):
            return inputs / 0, output_gradients

    class Score(scores.Score):
        statistics = (Overflowing(),)

        def __call__(self, connections):
            return connections[Overflowing()]

    with pytest.raises(ValueError, match=r"Values of Overflowing\(\) must be finite"):
        prune(model, count=3, score=Score(), data=data)


def test_a_name_in_the_place_of_a_statistic_is_refused(model, data):
    class Score(scores.Magnitude):
        statistics = ("gradient",)

    with pytest.raises(TypeError, match="`statistics` must be an object of a subclass of"):
        prune(model, count=3, score=Score(), data=data)


def test_a_meter_traces_again_for_other_statistics_only(model, data):
    traces = []

    class Counted(MeanSquareGradient):
        def factors(self, inputs, output_gradients):
            traces.append(1)
            return inputs, output_gradients

    class Score(scores.Score):
        statistics = (Counted(),)

        def __call__(self, connections):
            return connections[Counted()]

    meter = GradientMeter(batch_size=10)
    for _ in range(3):
        prune(model, count=1, score=Score(), data=data, meter=meter)
    assert len(traces) == len(model.layers)
