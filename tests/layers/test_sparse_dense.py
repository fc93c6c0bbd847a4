"""SparseDense computes, trains, grows and is pruned as GrowableDense does, in a list of slots."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableDense, SparseDense
from keras_grow.policies.densities import FanIn
from keras_grow.policies.statistics import Gradient, InputRMS
from tests.quick import among


@pytest.fixture
def twins():
    """Function of an optimizer and a policy: a masked and a sparse model with the same weights."""

    def make(optimizer="adam", policy="float32", seeds=(1, 2), **arguments):
        models = []
        for layer_class in (GrowableDense, SparseDense):
            extra = {"capacity": 0.9} if layer_class is SparseDense else {}
            layers = [
                layer_class(
                    units,
                    "tanh",
                    initial_density=0.3,
                    seed=seed,
                    name=f"layer_{seed}",
                    dtype=policy,
                    **extra,
                    **arguments,
                )
                for units, seed in zip((12, 5), seeds)
            ]
            models.append(keras.Sequential([keras.Input((20,)), *layers]))
        masked, sparse = models
        for layer, twin in zip(masked.layers, sparse.layers):
            keras_grow.structure.cloning.set_connections(twin, *layer.active_connections())
            twin.bias.assign(layer.bias)
        for model in models:
            # Eagerly, here and below: a step is faster so than a trace.
            method = keras.optimizers.get({"class_name": optimizer, "config": {}})
            model.compile(method, "mse", run_eagerly=True)
        return masked, sparse

    return make


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return tuple(random.normal(size=(64, n)).astype("float32") for n in (20, 5))


def _assert_same_network(masked, sparse, tolerance):
    for layer, twin in zip(masked.layers, sparse.layers):
        for mine, theirs in zip(layer.active_connections(), twin.active_connections()):
            np.testing.assert_allclose(theirs, mine, atol=tolerance)
        np.testing.assert_allclose(twin.bias, layer.bias, atol=tolerance)


def _slots_of_connections(model):
    """Each layer's slots, by name, at its active connections."""
    for layer in model.layers:
        active, _ = layer.active_connections()
        variable = layer.values if layer.is_sparse else layer.kernel
        places = np.arange(len(active)) if layer.is_sparse else active
        for name, slot in keras_grow.optimizer_slots.slots(model.optimizer, variable).items():
            yield name, slot.numpy().reshape(-1)[places]


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_training_with_growth_and_pruning_runs_as_under_a_mask(twins, data, optimizer, jit_compile):
    masked, sparse = twins(optimizer)
    for model in (masked, sparse):
        model.compile(model.optimizer, "mse", jit_compile=jit_compile)
    for change in range(5):
        for model in (masked, sparse):
            model.fit(*data, batch_size=32, epochs=10, shuffle=False, verbose=0)
        _assert_same_network(masked, sparse, 2e-5)
        for (name, slot), (twin_name, twin) in zip(
            _slots_of_connections(masked), _slots_of_connections(sparse), strict=True
        ):
            assert name == twin_name
            np.testing.assert_allclose(twin, slot, atol=2e-5)
        records = [
            keras_grow.grow(model, data, count=20)
            if change % 2 == 0
            else keras_grow.prune(model, count=15)
            for model in (masked, sparse)
        ]
        for layer, twin in zip(records[0].layers, records[1].layers):
            np.testing.assert_array_equal(np.sort(layer.indices), np.sort(twin.indices))
    assert sparse.optimizer.iterations == 100


# The one with casts; float32 and float64 are those of the tests below.
@pytest.mark.parametrize(
    "policy",
    among(["float32", "float64", "mixed_float16", "mixed_bfloat16"], quick=("mixed_float16",)),
)
def test_every_precision_computes_what_the_masked_layer_does(twins, data, policy):
    masked, sparse = twins(policy=policy)
    tolerance = {"float32": 1e-6, "float64": 1e-12, "mixed_float16": 4e-3, "mixed_bfloat16": 0.03}
    for model in (masked, sparse):
        assert model(data[0]).dtype == policy.removeprefix("mixed_")
    outputs = [tf.cast(model(data[0]), tf.float64) for model in (masked, sparse)]
    np.testing.assert_allclose(*outputs, atol=tolerance[policy])
    sparse.fit(*data, batch_size=64, verbose=0)
    assert np.isfinite(sparse.layers[0].values.numpy()).all()


def test_regularizers_see_the_connections(twins, data):
    arguments = {"kernel_regularizer": keras.regularizers.L1L2(0.1, 0.2)}
    masked, sparse = twins(**arguments)
    sparse.layers[0].values.assign(
        np.where(np.arange(sparse.layers[0].capacity) < 72, sparse.layers[0].values, 5.0)
    )
    for mine, theirs in zip(masked.losses, sparse.losses, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-6)
    keras_grow.prune(masked, count=9, score=Saliency(), data=data)
    keras_grow.prune(sparse, count=9, score=Saliency(), data=data)
    _assert_same_network(masked, sparse, 1e-6)


class Saliency(keras_grow.scores.Score):
    statistics = (Gradient(), InputRMS())

    def __call__(self, connections):
        return tf.abs(connections.weight * connections[Gradient()]) + 0 * connections[InputRMS()]


@pytest.mark.parametrize("needs", ["gradient", "input_rms"])
def test_every_score_prunes_and_grows_as_under_a_mask(twins, data, needs):
    masked, sparse = twins()
    score = {
        "gradient": keras_grow.scores.GradientMagnitude(),
        "input_rms": keras_grow.scores.ActivationMagnitude(),
    }[needs]
    for model in (masked, sparse):
        keras_grow.grow(model, data, count=11)
        keras_grow.prune(model, count=9, score=score, data=data)
        keras_grow.grow(model, data, count=7, start_value=keras_grow.start_values.DescentStep(0.1))
    _assert_same_network(masked, sparse, 1e-6)


def test_inputs_of_higher_rank_and_shared_use(data):
    layer = SparseDense(4, "relu", capacity=0.5, seed=1)
    inputs = keras.Input((3, 20))
    model = keras.Model(inputs, layer(inputs) + keras.layers.TimeDistributed(layer)(inputs))
    x = np.random.default_rng(0).normal(size=(6, 3, 20)).astype("float32")
    y = np.maximum(x @ layer.effective_kernel().numpy(), 0)
    np.testing.assert_allclose(model(x), 2 * y, atol=1e-5)
    assert model.output_shape == (None, 3, 4)
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(x, y, verbose=0)
    keras_grow.prune(model, count=10)
    keras_grow.grow(model, (x, y), count=3)
    assert layer.num_active == 33


def test_a_mixed_model_ranks_all_layers_together(data):
    def model_of(*classes):
        layers = [
            layer_class(
                units,
                "tanh",
                initial_density=0.3,
                seed=units,
                name=f"of_{units}",
                **({"capacity": 1.0} if layer_class is SparseDense else {}),
            )
            for layer_class, units in zip(classes, (12, 7, 5))
        ]
        model = keras.Sequential([keras.Input((20,)), *layers])
        model.compile("adam", "mse")
        return model

    masked = model_of(GrowableDense, GrowableDense, GrowableDense)
    mixed = model_of(GrowableDense, SparseDense, GrowableDense)
    for layer, twin in zip(masked.layers, mixed.layers):
        keras_grow.structure.cloning.set_connections(twin, *layer.active_connections())
    records = [keras_grow.grow(model, data, count=40) for model in (masked, mixed)]
    for mine, theirs in zip(records[0].layers, records[1].layers):
        assert mine.count > 0
        np.testing.assert_array_equal(np.sort(mine.indices), np.sort(theirs.indices))
    assert records[1].loss == pytest.approx(records[0].loss)
    prunings = [keras_grow.prune(model, count=30) for model in (masked, mixed)]
    for mine, theirs in zip(prunings[0].layers, prunings[1].layers):
        np.testing.assert_array_equal(np.sort(mine.indices), np.sort(theirs.indices))
    assert str(keras_grow.report(mixed)) == str(keras_grow.report(masked))


def test_growth_in_passes_over_the_data_finds_the_same(twins, data):
    kept, passed = (twins()[1] for _ in range(2))
    passed.set_weights(kept.get_weights())
    search = keras_grow.TiledSearch(max_bytes=1, tile_shape=(3, 4))
    mine = keras_grow.grow(kept, data, count=20)
    theirs = keras_grow.grow(passed, data, count=20, search=search)
    for layer, twin in zip(mine.layers, theirs.layers):
        np.testing.assert_array_equal(layer.indices, twin.indices)


def test_passes_over_the_data_draw_the_same_dropout(data):
    layer = SparseDense(5, capacity=0.5, seed=0)
    layers = [keras.Input((20,)), keras.layers.Dropout(0.5, seed=1), layer]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    meter = keras_grow.GradientMeter(batch_size=24)
    everywhere = tf.range(100, dtype=tf.int64)
    kept, passed = (
        meter.measure(model, data, search=keras_grow.TiledSearch(max_bytes=most)).gradients[layer]
        for most in (2**30, 1)
    )
    assert type(kept) is not type(passed)
    for _ in range(2):
        np.testing.assert_allclose(passed.at(everywhere), kept.at(everywhere), atol=1e-6)


def test_hebbian_gradients_of_sparse_layers_are_the_masked_ones(twins, data):
    masked, sparse = twins(policy="float64")
    expected = keras_grow.growth_gradients(masked, data)
    for measure in (keras_grow.growth_gradients, keras_grow.hebbian_gradients):
        for layer, gradient in measure(sparse, data).items():
            assert isinstance(gradient, keras_grow.records.TiledArray)
            everywhere = gradient.at(tf.range(layer.num_connections, dtype=tf.int64))
            twin = masked.get_layer(layer.name)
            np.testing.assert_allclose(
                tf.reshape(everywhere, layer.kernel_shape), expected[twin], atol=1e-13
            )


def test_a_search_out_of_time_says_so(twins, data):
    _, sparse = twins()
    search = keras_grow.TiledSearch(max_seconds=1e-9, tile_shape=(4, 4))
    record = keras_grow.grow(sparse, data, count=20, search=search)
    assert not record.is_complete
    assert "search incomplete" in str(record)
    assert 0 < record.count <= 20
    assert keras_grow.grow(sparse, data, count=5).is_complete


def test_a_full_layer_says_so(data):
    layer = SparseDense(5, initial_density=0.2, capacity=30, seed=0, name="small")
    model = keras.Sequential([keras.Input((20,)), layer])
    model.compile("adam", "mse", run_eagerly=True)
    assert (layer.num_active, layer.num_free) == (20, 10)
    with pytest.warns(UserWarning, match=r"\['small'\] have used up their capacity"):
        assert keras_grow.grow(model, data, count=50).count == 10
    assert layer.num_free == 0
    with pytest.raises(keras_grow.errors.CapacityUsedUp, match="No slot is free"):
        keras_grow.grow(model, data, count=1)
    with pytest.raises(ValueError, match="can hold 30 connections, and 0 of its slots are free"):
        layer.grow_connections(np.setdiff1d(np.arange(100), layer.active_connections()[0])[:1])
    with pytest.warns(UserWarning, match="No slot is free"):
        model.fit(*data, epochs=2, verbose=0, callbacks=[keras_grow.GrowthCallback(data, count=1)])
    # In a model with room elsewhere, growth goes there.
    roomy = GrowableDense(4, initial_density=0.5)
    mixed = keras.Sequential([keras.Input((20,)), layer, roomy])
    mixed.compile("adam", "mse")
    y = np.zeros((64, 4), "float32")
    assert keras_grow.grow(mixed, (data[0], y), count=5).layers[1].count == 5


def test_a_change_of_connections_traces_nothing(twins, data):
    _, sparse = twins()
    traces = []
    sparse.add(keras.layers.Lambda(lambda x: traces.append(len(traces)) or x))
    sparse.compile("adam", "mse")
    sparse.fit(*data, verbose=0)
    before = len(traces)
    for _ in range(2):
        keras_grow.grow(sparse, data, count=5)
        keras_grow.prune(sparse, count=3)
        measured = len(traces)  # A new meter traces its own step.
        sparse.fit(*data, verbose=0)
        assert len(traces) == measured
    assert before > 0


@pytest.mark.parametrize("optimizer", ["Lamb", "Adafactor"])
def test_optimizers_that_look_at_a_whole_layer_are_refused_by_name(twins, data, optimizer):
    _, sparse = twins()
    sparse.compile(getattr(keras.optimizers, optimizer)(), "mse")
    for change in (
        lambda: keras_grow.grow(sparse, data, count=1),
        lambda: keras_grow.prune(sparse, count=1),
        lambda: sparse.fit(*data, callbacks=[keras_grow.PruningCallback(count=1)], verbose=0),
    ):
        with pytest.raises(ValueError, match=f"{optimizer} can't train a sparse layer"):
            change()


@pytest.mark.parametrize(
    "initializer",
    ["he_normal", "glorot_uniform", keras.initializers.LecunNormal(3), "random_normal", "ones"],
)
def test_initializers_draw_from_the_distribution_of_a_dense_kernel(initializer):
    shape = (200, 300)
    layer = SparseDense(300, kernel_initializer=initializer, capacity=0.9, seed=0)
    layer.build((None, 200))
    kernel = keras.initializers.get(initializer)(shape).numpy()
    values = layer.values.numpy()
    assert values.std() == pytest.approx(kernel.std(), rel=0.02)
    assert np.abs(values).max() == pytest.approx(np.abs(kernel).max(), rel=0.25)


def test_by_default_weights_are_scaled_to_the_inputs_a_unit_has():
    layer = SparseDense(3000, capacity=FanIn(4), seed=0)
    layer.build((None, 3000))
    counts = np.bincount(layer.active_connections()[0] % 3000, minlength=3000)
    variance = np.square(layer.effective_kernel().numpy()).sum(axis=0).mean()
    assert variance == pytest.approx(1.0, rel=0.05)
    assert counts.min() >= 1


def test_the_capacity_counts_connections_a_density_or_a_fan_in():
    for capacity, expected in [(30, 30), (0.5, 50), (FanIn(3), 60), (1000, 100), (np.int64(7), 7)]:
        layer = SparseDense(20, capacity=capacity)
        layer.build((None, 5))
        assert layer.capacity == layer.num_active == expected
        assert layer.get_config()["capacity"] == expected
    layer = SparseDense(20, capacity=FanIn(3), initial_density=FanIn(1.5))
    again = SparseDense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again.build((None, 5))
    assert (again.num_active, again.capacity) == (30, 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs to know how many connections to hold"),
        ({"capacity": 0}, "`capacity` must be a positive integer"),
        ({"capacity": -3}, "`capacity` must be a positive integer"),
        ({"capacity": 1.5}, "`capacity` must be"),
        ({"capacity": True}, "`capacity` must be"),
        ({"capacity": "many"}, "`capacity` must be"),
        ({"capacity": 5, "initial_density": 2.0}, "`initial_density` must be a number"),
        ({"capacity": 5, "kernel_constraint": "max_norm"}, "must work weight by weight"),
        ({"capacity": 5, "kernel_regularizer": "orthogonal_regularizer"}, "weight by weight"),
        ({"capacity": 5, "units": 0}, "positive integer"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseDense(**{"units": 4, **arguments})


def test_what_does_not_fit_is_refused_when_built():
    with pytest.raises(ValueError, match="more than the capacity holds"):
        SparseDense(4, capacity=5, initial_density=0.5).build((None, 10))
    with pytest.raises(ValueError, match="draws weights one by one"):
        SparseDense(4, capacity=5, kernel_initializer="orthogonal").build((None, 10))
    with pytest.raises(ValueError, match="no connections before it is built"):
        SparseDense(4, capacity=5).active_connections()
    with pytest.raises(ValueError, match="positive number of connections per unit"):
        FanIn(0)


def test_a_saved_layer_of_another_capacity_loads_if_it_fits(tmp_path):
    def model(capacity):
        layer = SparseDense(6, initial_density=0.3, capacity=capacity, seed=capacity)
        return keras.Sequential([keras.Input((10,)), layer])

    saved, larger = model(20), model(40)
    saved.save_weights(tmp_path / "saved.weights.h5")
    larger.load_weights(tmp_path / "saved.weights.h5")
    x = np.random.default_rng(0).normal(size=(3, 10))
    for mine, theirs in zip(
        saved.layers[0].active_connections(), larger.layers[0].active_connections()
    ):
        np.testing.assert_array_equal(theirs, mine)
    # Another capacity is another program, and may add up in another order.
    np.testing.assert_allclose(larger(x), saved(x), rtol=0, atol=1e-6)
    larger.layers[0].grow_connections(
        np.delete(np.arange(60), saved.layers[0].active_connections()[0])[:10]
    )
    larger.save_weights(tmp_path / "larger.weights.h5")
    before = saved.get_weights()
    with pytest.raises(ValueError, match="can't hold what was saved"):
        saved.load_weights(tmp_path / "larger.weights.h5")
    for mine, theirs in zip(before, saved.get_weights()):
        np.testing.assert_array_equal(mine, theirs)


def test_an_empty_layer_outputs_its_bias_and_grows(data):
    layer = SparseDense(5, initial_density=0.0, capacity=20, bias_initializer="ones")
    model = keras.Sequential([keras.Input((20,)), layer])
    model.compile("adam", "mse")
    np.testing.assert_array_equal(model(data[0]), np.ones((64, 5)))
    assert keras_grow.report(model).num_parameters == 0
    keras_grow.grow(model, data, count=4)
    model.fit(*data, verbose=0)
    assert np.all(layer.active_connections()[1] != 0)
    keras_grow.prune(model, count=3)
    assert layer.num_active == 1
