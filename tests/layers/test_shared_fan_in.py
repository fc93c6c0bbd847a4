"""A SparseDense whose units share their inputs in groups does what a masked layer does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import GrowableDense, SparseDense
from keras_grow.policies.densities import FanIn
from keras_grow.structure.cloning import set_connections

_SIZE = 4


@pytest.fixture
def twins():
    """Function of an optimizer and a policy: a masked and a sparse model with the same weights."""

    def make(optimizer="sgd", policy="float64", jit_compile=False, **arguments):
        models = []
        for layer_class in (GrowableDense, SparseDense):
            is_sparse = layer_class is SparseDense
            extra = {"capacity": 0.7, "group_size": _SIZE} if is_sparse else {}
            layers = [
                layer_class(
                    units,
                    "tanh",
                    initial_density=0.3,
                    seed=units,
                    name=f"of_{units}",
                    dtype=policy,
                    **extra,
                    **arguments,
                )
                for units in (12, 8)
            ]
            models.append(keras.Sequential([keras.Input((20,)), *layers]))
        masked, sparse = models
        for layer, twin in zip(masked.layers, sparse.layers):
            set_connections(layer, *twin.active_connections())
            layer.bias.assign(twin.bias)
        for model in models:
            method = keras.optimizers.get({"class_name": optimizer, "config": {}})
            model.compile(method, "mse", run_eagerly=not jit_compile, jit_compile=jit_compile)
        return masked, sparse

    return make


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return tuple(random.normal(size=(64, n)) for n in (20, 8))


def _assert_same_network(masked, sparse, tolerance=1e-9):
    for layer, twin in zip(masked.layers, sparse.layers):
        for mine, theirs in zip(layer.active_connections(), twin.active_connections()):
            np.testing.assert_allclose(theirs, mine, atol=tolerance)
        np.testing.assert_allclose(twin.bias, layer.bias, atol=tolerance)


def _atoms(indices):
    """The numbers of the atoms of connections, which must be whole."""
    by_atom = np.sort(indices).reshape(-1, _SIZE)
    np.testing.assert_array_equal(by_atom, by_atom[:, :1] // _SIZE * _SIZE + np.arange(_SIZE))
    return by_atom[:, 0] // _SIZE


def _dormant_atoms(layer, count):
    active = _atoms(layer.active_connections()[0])
    return np.setdiff1d(np.arange(layer.num_connections // _SIZE), active)[:count]


def _connections(atoms):
    return (np.asarray(atoms)[:, None] * _SIZE + np.arange(_SIZE)).reshape(-1)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_runs_as_under_a_mask_and_so_after_changes(twins, data, optimizer, jit_compile):
    masked, sparse = twins(optimizer, jit_compile=jit_compile)
    dormant = _dormant_atoms(sparse.layers[0], 9)
    active = _atoms(sparse.layers[0].active_connections()[0])
    changes = [("grow_connections", dormant), ("prune_connections", active[::3])]
    for verb, atoms in [(None, None), *changes]:
        for model in (masked, sparse):
            if verb is not None:
                made = getattr(model.layers[0], verb)(tf.constant(_connections(atoms)))
                keras_grow.optimizer_slots.reset_slots(model.optimizer, made)
            model.fit(*data, batch_size=16, epochs=3, shuffle=False, verbose=0)
        _assert_same_network(masked, sparse)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_every_precision_computes_what_the_masked_layer_does(twins, data, policy):
    masked, sparse = twins(policy=policy)
    tolerance = {"float32": 1e-6, "mixed_float16": 4e-3, "mixed_bfloat16": 0.03}[policy]
    outputs = [tf.cast(model(data[0]), tf.float64) for model in (masked, sparse)]
    np.testing.assert_allclose(*outputs, atol=tolerance)
    sparse.fit(*data, batch_size=64, verbose=0)
    assert np.isfinite(sparse.layers[0].values.numpy()).all()


def test_units_of_a_group_read_the_same_inputs_and_counts_are_whole_groups():
    layer = SparseDense(96, initial_density=0.1, capacity=1000, group_size=32, seed=0)
    layer.build((None, 70))
    # 672 connections at a density of 0.1, and 1,000: 21 and 31 groups of 32.
    assert (layer.num_active, layer.capacity, layer.num_free) == (672, 992, 320)
    kernel = layer.effective_kernel().numpy().reshape(70, 3, 32)
    is_there = (kernel != 0).any(axis=-1)
    assert is_there.sum() == 21
    assert (kernel != 0)[is_there].all()
    again = SparseDense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ({"capacity": 5}, (8, 8)),  # One group at least.
        ({"capacity": 31}, (24, 24)),
        ({"capacity": FanIn(3)}, (48, 48)),
        ({"capacity": 1.0, "initial_density": 0.0}, (0, 160)),
        ({"capacity": 1.0, "initial_density": 0.001}, (8, 160)),
        ({"initial_density": 1.0}, (160, 160)),
    ],
)
def test_initial_counts_round_down_to_whole_groups_but_not_to_none(arguments, counts):
    layer = SparseDense(16, group_size=8, seed=0, **arguments)
    layer.build((None, 10))
    assert (layer.num_active, layer.capacity) == counts
    assert layer(np.ones((2, 10), "float32")).shape == (2, 16)


@pytest.mark.parametrize("size", [0, -2, 1.5, True, 5])
def test_sizes_that_do_not_divide_the_units_are_refused(size):
    with pytest.raises(ValueError, match="group_size"):
        SparseDense(12, capacity=0.5, group_size=size)


def test_a_part_of_a_group_is_refused_and_nothing_changes(twins):
    layer = twins()[1].layers[0]
    before = [array.numpy() for array in layer.active_connections()]
    dormant, active = _connections(_dormant_atoms(layer, 2)), before[0][:8]
    for verb, indices in [("grow", dormant), ("prune", active)]:
        change = getattr(layer, f"{verb}_connections")
        for part in (indices[:-1], indices[1:], indices[[0, 1, 2, 4]], indices[2:6]):
            with pytest.raises(ValueError, match="come and go 4 at a time"):
                change(part)
    for array, expected in zip(layer.active_connections(), before):
        np.testing.assert_array_equal(array, expected)
    order = np.random.default_rng(0).permutation(8)
    layer.prune_connections(active[order])
    layer.grow_connections(active[order], before[1][:8][order])
    for array, expected in zip(layer.active_connections(), before):
        np.testing.assert_array_equal(array, expected)


def _root_mean_square(kernel):
    shape = (kernel.shape[0], -1, _SIZE)
    return np.sqrt(np.mean(np.square(np.asarray(kernel).reshape(shape)), axis=-1)).reshape(-1)


def test_growth_takes_the_groups_whose_gradient_has_the_largest_norm(twins, data):
    masked, sparse = twins()
    gradients = keras_grow.growth_gradients(masked, data)
    record = keras_grow.grow(sparse, data, count=42)
    assert (record.count, record.num_rounded) == (40, 2)
    assert "40 connections changed (2 fewer than asked)" in str(record)
    norms = [_root_mean_square(gradients[layer]) for layer in masked.layers]
    for layer, of_layer in zip(masked.layers, norms):
        of_layer[_atoms(layer.active_connections()[0])] = -1
    best = np.argsort(-np.concatenate(norms), kind="stable")[:10]
    chosen = [_atoms(change.indices) for change in record.layers]
    chosen[1] = chosen[1] + len(norms[0])
    np.testing.assert_array_equal(np.concatenate(chosen), np.sort(best))


@pytest.mark.parametrize("score", ["weight", "gradient", "input_rms"])
def test_pruning_takes_the_groups_of_smallest_norm(twins, data, score):
    # Keras adds penalties to losses in float32 only.
    is_penalized = score == "gradient"
    penalty = {"kernel_regularizer": keras.regularizers.L2(0.05)} if is_penalized else {}
    masked, sparse = twins(policy="float32" if is_penalized else "float64", **penalty)
    scores = {
        "weight": keras_grow.scores.Magnitude(),
        "gradient": keras_grow.scores.GradientMagnitude(),
        "input_rms": keras_grow.scores.ActivationMagnitude(),
    }
    layer, twin = masked.layers[0], sparse.layers[0]
    kernel = layer.effective_kernel().numpy()
    expected = {
        "weight": kernel,
        "gradient": keras_grow.growth_gradients(masked, data)[layer],
        "input_rms": kernel * np.sqrt(np.mean(np.square(data[0]), axis=0))[:, None],
    }[score]
    active = _atoms(layer.active_connections()[0])
    least = active[np.argsort(_root_mean_square(expected)[active], kind="stable")[:5]]
    record = keras_grow.prune(sparse, count=23, layers=[twin], score=scores[score], data=data)
    assert record.num_rounded == 3
    np.testing.assert_array_equal(_atoms(record.layers[0].indices), np.sort(least))


def test_random_scores_draw_one_number_for_each_group_and_repeat_it(twins, data):
    records = [
        keras_grow.grow(twins()[1], count=24, score=keras_grow.scores.Random(seed))
        for seed in (3, 3, 4)
    ]
    chosen = [np.concatenate([change.indices for change in record.layers]) for record in records]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])
    assert all(record.count == 24 for record in records)


def test_start_values_see_single_connections(twins, data):
    masked, sparse = twins()
    start = keras_grow.start_values.DescentStep(0.5)
    gradients = keras_grow.growth_gradients(masked, data)
    record = keras_grow.grow(sparse, data, count=16, start_value=start)
    for layer, twin, change in zip(masked.layers, sparse.layers, record.layers):
        grown = tf.gather(tf.reshape(twin.effective_kernel(), [-1]), change.indices)
        expected = -0.5 * tf.gather(tf.reshape(gradients[layer], [-1]), change.indices)
        np.testing.assert_allclose(grown, expected, atol=1e-12)


def test_pruning_leaves_each_layer_a_group_and_growth_stops_at_the_capacity(twins, data):
    sparse = twins()[1]
    with pytest.warns(UserWarning, match="left with one connection or none"):
        keras_grow.prune(sparse, density=0.001)
    assert [layer.num_active for layer in sparse.layers] == [_SIZE, _SIZE]
    with pytest.raises(ValueError, match="at least one in each layer, or a group of 4"):
        keras_grow.prune(sparse, count=1)
    with pytest.warns(UserWarning, match="used up their capacity"):
        record = keras_grow.grow(sparse, data, count=10_000)
    assert record.num_rounded == 0
    assert all(layer.num_free == 0 for layer in sparse.layers)
    with pytest.raises(keras_grow.errors.CapacityUsedUp):
        keras_grow.grow(sparse, data, count=4)


def test_fewer_connections_than_a_group_has_are_refused_in_words(twins, data):
    sparse = twins()[1]
    for change in (
        lambda: keras_grow.grow(sparse, data, count=3),
        lambda: keras_grow.prune(sparse, count=3),
        lambda: keras_grow.prune(sparse, count=3, per_layer=True),
    ):
        with pytest.raises(keras_grow.errors.NothingToChange, match="3 connections to .* least 4"):
            change()


def test_a_threshold_is_one_of_groups(twins):
    sparse = twins()[1]
    norms = [
        _root_mean_square(layer.effective_kernel())[_atoms(layer.active_connections()[0])]
        for layer in sparse.layers
    ]
    threshold = float(np.median(norms[0]))
    record = keras_grow.prune(sparse, threshold=threshold)
    assert [change.count for change in record.layers] == [
        _SIZE * int((of_layer < threshold).sum()) for of_layer in norms
    ]


def test_layers_with_and_without_groups_compete_and_fill_the_count(data):
    layers = [SparseDense(12, capacity=1.0, initial_density=0.2, group_size=12, seed=1)]
    layers += [GrowableDense(8, initial_density=0.2, seed=2)]
    model = keras.Sequential([keras.Input((20,)), *layers])
    model.compile("sgd", "mse", run_eagerly=True)
    record = keras_grow.grow(model, data, count=29)
    assert record.count == 29
    assert record.num_rounded == 0
    assert record.layers[0].count % 12 == 0


def test_a_change_of_connections_traces_nothing(twins, data):
    sparse = twins()[1]
    traces = []
    sparse.add(keras.layers.Lambda(lambda x: traces.append(len(traces)) or x))
    sparse.compile("adam", "mse")
    sparse.fit(*data, verbose=0)
    for _ in range(2):
        keras_grow.grow(sparse, data, count=8)
        keras_grow.prune(sparse, count=4)
        measured = len(traces)  # A new meter traces its own step.
        sparse.fit(*data, verbose=0)
        assert len(traces) == measured


def test_no_array_of_the_size_of_the_kernel_is_made_in_a_step():
    layer = SparseDense(512, capacity=0.01, group_size=32, seed=0)
    layer.build((None, 512))
    x = tf.ones((4, 512))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(y, [x, layer.values.value])

    graph = step.get_concrete_function().graph
    sizes = [
        tensor.shape.num_elements() or 0
        for operation in graph.get_operations()
        for tensor in operation.outputs
        if tensor.shape.rank is not None
    ]
    assert max(sizes) < 512 * 512 / 8


def test_inputs_of_higher_rank_regularizers_and_constraints(data):
    layer = SparseDense(
        8,
        capacity=0.5,
        group_size=4,
        seed=1,
        kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2),
        kernel_constraint=keras.constraints.NonNeg(),
    )
    x = np.random.default_rng(0).normal(size=(6, 3, 20)).astype("float32")
    kernel = layer(x[:, 0]) is not None and layer.effective_kernel().numpy()
    np.testing.assert_allclose(layer(x), x @ kernel, atol=1e-5)
    layer.values.assign(tf.where(layer.is_used(), layer.values, np.nan))
    penalty = 0.1 * np.abs(kernel).sum() + 0.2 * np.square(kernel).sum()
    np.testing.assert_allclose(layer.losses, [penalty], rtol=1e-5)
    values = layer.values.constraint(layer.values.value).numpy()
    np.testing.assert_array_equal(values, np.where(layer.is_used(), layer.values, 0).clip(0))


def test_files_hold_connections_for_any_group_size_that_can_hold_them(twins, tmp_path, data):
    sparse = twins()[1]
    path = tmp_path / "weights.weights.h5"
    keras_grow.grow(sparse, data, count=12)
    sparse.save_weights(path)

    def load(*group_sizes):
        layers = [
            SparseDense(units, "tanh", capacity=0.7, group_size=size, dtype="float64")
            for units, size in zip((12, 8), group_sizes)
        ]
        model = keras.Sequential([keras.Input((20,)), *layers])
        model.load_weights(path)
        return model

    for size in (1, 2, 4):
        _assert_same_network(sparse, load(size, size), tolerance=0)
    with pytest.raises(ValueError, match="connections into a part of a group"):
        load(12, 8)  # Which the groups of 4 of neither layer fill.


def test_conversions_keep_connections_weights_and_slots(twins, data):
    _, sparse = twins("adam")
    sparse.fit(*data, verbose=0)
    masked = keras_grow.make_growable(sparse)
    back = keras_grow.make_sparse(masked, group_size=_SIZE, capacity=0.8)
    wider = keras_grow.make_sparse(sparse, capacity=0.9)
    apart = keras_grow.make_sparse(sparse, group_size=1)
    assert [layer.group_size for layer in (*back.layers, *wider.layers)] == [_SIZE] * 4
    assert [layer.group_size for layer in apart.layers] == [1, 1]
    before = [sparse]
    for model in (masked, back, wider, apart):
        source = masked if model is back else sparse
        _assert_same_network(sparse, model, tolerance=0)
        model.compile(
            keras_grow.convert_optimizer(source, model, source.optimizer), "mse", run_eagerly=True
        )
        before.append(model)
    for model in before:
        model.fit(*data, verbose=0)
    for model in before[1:]:
        _assert_same_network(sparse, model)
    plain = keras_grow.make_plain(sparse)
    np.testing.assert_allclose(plain(data[0]), sparse(data[0]), atol=1e-9)


def test_masks_that_split_groups_are_refused(data):
    model = keras.Sequential([keras.Input((20,)), GrowableDense(8, initial_density=0.5, seed=0)])
    with pytest.raises(ValueError, match="from an input into a part of a group only"):
        keras_grow.make_sparse(model, group_size=4)
    with pytest.raises(ValueError, match="with 8 units"):
        keras_grow.make_sparse(model, group_size=3)


def test_compaction_keeps_groups_whole_and_takes_their_inputs(data):
    layers = [GrowableDense(12, "relu", initial_density=0.5, seed=1)]
    layers += [SparseDense(8, "relu", capacity=1.0, group_size=4, seed=2, name="shared")]
    layers += [GrowableDense(5, initial_density=0.5, seed=3)]
    model = keras.Sequential([keras.Input((20,)), *layers])
    # Nothing reads one unit of a group, or one that feeds it.
    for layer, unit in ((model.layers[2], 5), (model.layers[1], 3)):
        active, _ = layer.active_connections()
        layer.prune_connections(active[active // layer.units == unit])
    compaction = keras_grow.compact(model)
    assert [len(layer.units) for layer in compaction.layers] == [11, 8, 5]
    assert "share their inputs in groups of 4" in str(keras_grow.groups(model)[1])
    np.testing.assert_allclose(compaction.model(data[0]), model(data[0]), atol=1e-5)
    with pytest.raises(ValueError, match="share their inputs in groups of 4"):
        keras_grow.widen(model, "shared", 12)


@pytest.fixture
def chain():
    """A model whose second layer has units in groups, a compiled chain of four layers."""
    layers = [GrowableDense(12, "relu", initial_density=0.6, seed=1, name="first")]
    layers += [SparseDense(8, "relu", capacity=1.0, initial_density=0.5, group_size=4, seed=2)]
    layers += [GrowableDense(6, "relu", initial_density=0.6, seed=3, name="third")]
    layers += [GrowableDense(5, initial_density=0.6, seed=4)]
    model = keras.Sequential([keras.Input((20,)), *layers])
    model.compile("sgd", "mse")
    return model


def test_an_export_answers_as_the_model_does(chain, data, tmp_path):
    x = data[0].astype("float32")
    keras_grow.export_saved_model(chain, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    (outputs,) = served(tf.constant(x)).values()
    np.testing.assert_allclose(outputs, chain(x), atol=1e-5)


def test_neurons_that_a_group_reads_go_and_its_own_stay(chain, data):
    record = keras_grow.prune_neurons(chain, count=4, data=(data[0],))
    assert "share their inputs in groups of 4" in str(record.not_followed)
    assert [change.name for change in record.layers] == ["first", "third"]
    before = chain(data[0]).numpy()
    keras_grow.remove_dead_neurons(chain)
    np.testing.assert_allclose(chain(data[0]), before, atol=1e-5)
    shared = chain.layers[1]
    _atoms(shared.active_connections()[0])


def test_births_that_would_bring_a_part_of_a_group_are_refused_and_change_nothing(chain, data):
    y = np.zeros((64, 5), "float32")
    first = chain.layers[0]
    active, _ = first.active_connections()
    first.prune_connections(active[active % 12 == 3])
    shared = chain.layers[1]
    active, _ = shared.active_connections()
    shared.prune_connections(active[active // 8 == 3])
    before = [variable.numpy() for variable in chain.variables]
    # One unit of each group is reached only.
    initializer = keras_grow.neuron_initializers.BridgingGradient(growth_ratio=0.02)
    with pytest.raises(ValueError, match="come and go 4 at a time"):
        keras_grow.grow_neurons(chain, (data[0], y), "first", count=1, initializer=initializer)
    for variable, expected in zip(chain.variables, before, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_a_layer_born_behind_it_has_units_with_inputs_of_their_own(chain, data):
    deeper = keras_grow.grow_depth(chain, after=chain.layers[1].name)
    assert len(deeper.layers) == len(chain.layers) + 1
    np.testing.assert_allclose(deeper(data[0]), chain(data[0]), atol=1e-5)


def test_growth_in_passes_over_the_data_finds_the_same(twins, data):
    kept, passed = (twins()[1] for _ in range(2))
    passed.set_weights(kept.get_weights())
    search = keras_grow.TiledSearch(max_bytes=1, tile_shape=(3, 8))
    mine = keras_grow.grow(kept, data, count=20)
    theirs = keras_grow.grow(passed, data, count=20, search=search)
    for layer, twin in zip(mine.layers, theirs.layers):
        np.testing.assert_array_equal(layer.indices, twin.indices)


class Unbuilt(keras.Model):
    def __init__(self):
        super().__init__()
        self.shared = SparseDense(8, capacity=0.5, group_size=4, seed=0)

    def call(self, inputs):
        return self.shared(inputs)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_model_that_is_built_in_its_first_step_trains(data, jit_compile):
    model = Unbuilt()
    model.compile("adam", "mse", jit_compile=jit_compile)
    losses = model.fit(*data, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_no_samples_have_no_outputs():
    layer = SparseDense(8, capacity=0.5, group_size=4, seed=0)
    x = tf.zeros((0, 20))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    of_inputs, of_values = tape.gradient(y, [x, layer.values.value])
    assert (y.shape, of_inputs.shape) == ((0, 8), (0, 20))
    assert not of_values.numpy().any()


def test_the_mean_of_weights_is_taken_where_connections_are_the_same_and_else_refused(twins, data):
    one, other, apart = (twins()[1] for _ in range(3))
    other.set_weights(one.get_weights())
    other.fit(*data, verbose=0)
    keras_grow.prune(apart, count=8)
    kernels = [model.layers[0].effective_kernel().numpy() for model in (one, other)]
    before = apart.layers[0].active_connections()[0].numpy()
    with pytest.raises(ValueError, match="for layer 'of_12'"):
        apart.set_weights([(a + b) / 2 for a, b in zip(one.get_weights(), apart.get_weights())])
    np.testing.assert_array_equal(apart.layers[0].active_connections()[0], before)
    one.set_weights([(a + b) / 2 for a, b in zip(one.get_weights(), other.get_weights())])
    np.testing.assert_allclose(one.layers[0].effective_kernel(), np.mean(kernels, axis=0))
