"""Drop-and-grow: one step of each method against NumPy, connection by connection."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import drop_and_grow, scores, sparse_training, start_values, statistics
from keras_grow.connections.shares import in_proportion
from keras_grow.errors import NothingToChange
from keras_grow.optimizer_slots import slots

_WIDTHS = 12, 17, 3
_KINDS = {
    "masked": lambda units, **other: keras_grow.GrowableDense(units, initial_density=0.3, **other),
    "weight-normalized": lambda units, **other: keras_grow.WeightNormDense(
        units, initial_density=0.3, **other
    ),
    "sparse": lambda units, **other: keras_grow.SparseDense(units, initial_density=0.3, **other),
}


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, _WIDTHS[0])).astype("float32")
    return x, np.argmax(x[:, :3] * x[:, 3:6], axis=1)


@pytest.fixture(params=list(_KINDS))
def network(request, data):
    make = _KINDS[request.param]
    model = keras.Sequential(
        [
            keras.Input((_WIDTHS[0],)),
            make(_WIDTHS[1], activation="tanh", seed=1, name="a"),
            make(_WIDTHS[2], activation="softmax", seed=2, name="b"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*data, epochs=3, verbose=0)
    return model


class _State:
    """Kernels, masks and gradients of a network, as arrays."""

    def __init__(self, model, data):
        self.layers = keras_grow.growable_layers(model)
        self.kernels = [layer.effective_kernel().numpy() for layer in self.layers]
        self.active = [
            np.isin(np.arange(layer.num_connections), layer.active_connections()[0]).reshape(
                layer.kernel_shape
            )
            for layer in self.layers
        ]
        # Differentiated with plain layers of the same weights, in float64.
        gradients = _gradients(model, data)
        self.gradients = [gradient.numpy() for gradient in gradients]


def _gradients(model, data):
    kernels = [tf.cast(x.effective_kernel(), tf.float64) for x in model.layers]
    biases = [tf.cast(x.bias.value, tf.float64) for x in model.layers]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        hidden = tf.tanh(tf.cast(data[0], tf.float64) @ kernels[0] + biases[0])
        logits = hidden @ kernels[1] + biases[1]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(data[1], logits)
        loss = tf.reduce_mean(losses)
    return tape.gradient(loss, kernels)


def _masks(model):
    return [
        np.isin(np.arange(layer.num_connections), layer.active_connections()[0]).reshape(
            layer.kernel_shape
        )
        for layer in keras_grow.growable_layers(model)
    ]


def _drop_smallest(score, active, count):
    """The mask without its `count` connections of smallest score; of equals, the first."""
    order = np.argsort(np.where(active, score, np.inf).ravel(), kind="stable")[:count]
    kept = active.copy()
    kept.ravel()[order] = False
    return kept


def _grow_largest(score, kept, count):
    order = np.argsort(-np.where(kept, -np.inf, score).ravel(), kind="stable")[:count]
    grown = kept.copy()
    grown.ravel()[order] = True
    return grown


def rigl(state, fraction):
    after = []
    for kernel, active, gradient in zip(state.kernels, state.active, state.gradients, strict=True):
        count = int(fraction * active.sum())
        kept = _drop_smallest(np.abs(kernel), active, count)
        after.append(_grow_largest(np.abs(gradient), kept, count))
    return after


def set_drops(state, fraction):
    """What SET keeps: of each sign, the weights furthest from 0."""
    kept = []
    for kernel, active in zip(state.kernels, state.active, strict=True):
        count = int(fraction * active.sum())
        share = np.zeros(kernel.shape)
        for sign in (active & (kernel >= 0), active & (kernel < 0)):
            ranks = np.argsort(np.argsort(np.abs(kernel[sign]), kind="stable"), kind="stable")
            share[sign] = np.float32(ranks / max(1, sign.sum()))
        kept.append(_drop_smallest(share, active, count))
    return kept


def ch2_l3n(state, fraction):
    after = []
    for kernel, active in zip(state.kernels, state.active, strict=True):
        count = int(fraction * active.sum())
        kept = _drop_smallest(np.abs(kernel), active, count)
        a = kept.astype(np.float64)
        of_inputs, of_units = a @ a.T, a.T @ a
        with np.errstate(divide="ignore", invalid="ignore"):
            # Links of z outside, one of which leads to v: 1 + e.
            f = np.where(of_inputs > 0, (1 + of_inputs) / (a.sum(1)[None] - of_inputs), 0)
            h = np.where(of_units > 0, (1 + of_units) / (a.sum(0)[:, None] - of_units), 0)
        f, h = (np.where(np.isfinite(each), each, 0) for each in (f, h))
        after.append(_grow_largest(np.float32(f @ a + a @ h), kept, count))
    return after


def granet(state, fraction, density):
    sizes = [active.size for active in state.active]
    num_less = sum(active.sum() for active in state.active) - round(density * sum(sizes))
    flat = np.concatenate(
        [np.where(a, np.abs(k), np.inf).ravel() for k, a in zip(state.kernels, state.active)]
    )
    gone = np.zeros(len(flat), bool)
    gone[np.argsort(flat, kind="stable")[:num_less]] = True
    gone = np.split(gone, np.cumsum(sizes)[:-1])
    for i, active in enumerate(state.active):
        state.active[i] = active & ~gone[i].reshape(active.shape)
    return rigl(state, fraction)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_a_step_of_rigl_is_that_of_numpy(network, data, fraction):
    expected = rigl(_State(network, data), fraction)
    record = drop_and_grow(network, data, fraction=fraction)
    for mask, wanted in zip(_masks(network), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)
    assert record.loss is not None
    assert record.is_complete


def test_a_step_of_set_drops_what_numpy_drops_and_grows_at_random(network, data):
    state = _State(network, data)
    kept = set_drops(state, 0.3)
    drop_and_grow(network, fraction=0.3, method=sparse_training.SET(seed=4))
    for mask, wanted, active in zip(_masks(network), kept, state.active, strict=True):
        assert np.all(mask[wanted])
        assert mask.sum() == active.sum()


def test_set_grows_evenly_over_all_that_is_dormant():
    # Each of 90 dormant connections and 10 dropped ones comes with probability 0.1.
    times = np.zeros(110)
    for seed in range(300):
        layer = keras_grow.GrowableDense(10, initial_density=20 / 110, seed=0)
        model = keras.Sequential([keras.Input((11,)), layer])
        before = layer.kernel_mask.numpy().ravel()
        method = sparse_training.SET(seed)
        drop_and_grow(model, fraction=0.5, method=method)
        times += layer.kernel_mask.numpy().ravel() & ~before
    assert times[before].max() == 0
    # Binomial with 300 trials: 30 +- 5.2; six standard deviations never happen by chance.
    assert np.all(np.abs(times[~before] - 30) < 6 * 5.2)


def test_a_step_of_cannistraci_hebb_is_that_of_numpy(network, data):
    expected = ch2_l3n(_State(network, data), 0.3)
    drop_and_grow(network, fraction=0.3, method=sparse_training.CannistraciHebb(is_soft=False))
    for mask, wanted in zip(_masks(network), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_a_step_of_granet_is_that_of_numpy(network, data):
    expected = granet(_State(network, data), 0.4, density=0.2)
    drop_and_grow(network, data, fraction=0.4, density=0.2, method=sparse_training.GraNet())
    for mask, wanted in zip(_masks(network), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_snfs_lets_layers_grow_by_their_mean_gradient(network, data):
    state = _State(network, data)
    record = drop_and_grow(network, data, fraction=0.5, method=sparse_training.SNFS())
    counts = [int(0.5 * active.sum()) for active in state.active]
    kept = [
        _drop_smallest(np.abs(kernel), active, count)
        for kernel, active, count in zip(state.kernels, state.active, counts, strict=True)
    ]
    means = [np.abs(g[a]).mean() for g, a in zip(state.gradients, state.active, strict=True)]
    room = [
        (layer.capacity if layer.is_sparse else layer.num_connections) - k.sum()
        for layer, k in zip(state.layers, kept, strict=True)
    ]
    grown = in_proportion(sum(counts), means, room)
    for mask, before, count, gradient in zip(
        _masks(network), kept, grown, state.gradients, strict=True
    ):
        np.testing.assert_array_equal(mask, _grow_largest(np.abs(gradient), before, count))
    assert record.num_active == sum(active.sum() for active in state.active)


def test_what_comes_back_at_once_keeps_its_weight_and_its_slots(data):
    layer = keras_grow.GrowableDense(4, initial_density=0.9, seed=0)
    model = keras.Sequential([keras.Input((12,)), layer, keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*data, verbose=0)
    kernel, mask = layer.kernel.numpy(), layer.kernel_mask.numpy()
    moment = next(iter(slots(model.optimizer, layer.kernel).values()))
    moments = moment.numpy()
    # All are dropped, and as many of all come: those dormant before are the only ones that go.
    record = drop_and_grow(model, fraction=1.0, method=sparse_training.SET())
    stays = mask & layer.kernel_mask.numpy()
    assert 0 < record.count == (layer.kernel_mask.numpy() & ~mask).sum() <= 5
    np.testing.assert_array_equal(layer.kernel.numpy()[stays], kernel[stays])
    np.testing.assert_array_equal(moment.numpy()[stays], moments[stays])
    changed = mask != layer.kernel_mask.numpy()
    assert not layer.kernel.numpy()[changed].any()
    assert not moment.numpy()[changed].any()


def test_counts_of_layers_stay_and_the_record_says_what_changed(network, data):
    before = _masks(network)
    record = drop_and_grow(network, data, fraction=0.4)
    for mask, was, pruned, grown in zip(
        _masks(network), before, record.pruned, record.grown, strict=True
    ):
        assert mask.sum() == was.sum() == pruned.num_active
        np.testing.assert_array_equal(np.flatnonzero(was & ~mask), pruned.indices)
        np.testing.assert_array_equal(np.flatnonzero(mask & ~was), grown.indices)
    assert record.count == sum(each.count for each in record.grown)
    assert f"{record.count:,} grown" in str(record)


def test_a_search_that_ran_out_of_time_leaves_the_count(network, data, monkeypatch):
    whole = keras_grow.connections.drop_and_grow.growth_candidates

    picked = []

    def half(*arguments):
        found = whole(*arguments)
        few = len(found.indices) // 2
        picked.append(found.indices[:few].numpy())
        return found._replace(
            scores=found.scores[:few], indices=found.indices[:few], is_complete=False
        )

    state = _State(network, data)
    monkeypatch.setattr("keras_grow.connections.drop_and_grow.growth_candidates", half)
    record = drop_and_grow(network, data, fraction=0.5)
    assert not record.is_complete
    for mask, active, kernel, found in zip(
        _masks(network), state.active, state.kernels, picked, strict=True
    ):
        assert mask.sum() == active.sum()
        kept = _drop_smallest(np.abs(kernel), active, int(0.5 * active.sum()))
        was_found = np.isin(np.arange(mask.size), found).reshape(mask.shape)
        assert np.all(mask[was_found])
        # Of what was dropped and not found, the largest weights stay.
        dropped = active & ~kept & ~was_found
        gone, stayed = dropped & ~mask, dropped & mask
        assert np.abs(kernel[gone]).max(initial=0) <= np.abs(kernel[stayed]).min(initial=np.inf)


def test_a_denser_target_leaves_the_count(network, data):
    before = [mask.sum() for mask in _masks(network)]
    drop_and_grow(network, data, density=0.9)
    assert [mask.sum() for mask in _masks(network)] == before


class _NotFinite(start_values.StartValue):
    def __call__(self, connections):
        return tf.fill(connections.weight.shape, np.nan if connections.layer_index else 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.0}, "`fraction` must be"),
        ({"fraction": 1.5}, "`fraction` must be"),
        ({"fraction": True}, "`fraction` must be"),
        ({"density": 0.0}, "density of 0"),
        ({"data": None}, "measured on data"),
        (
            {
                "method": sparse_training.Method(
                    scores.Magnitude(), scores.Random(), start_value=_NotFinite()
                )
            },
            "finite weight",
        ),
    ],
)
def test_what_is_wrong_raises_and_changes_nothing(network, data, arguments, message):
    before = [variable.numpy() for variable in network.variables]
    with pytest.raises(ValueError, match=message):
        drop_and_grow(network, **{"data": data, **arguments})
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_method_must_be_one(network, data):
    with pytest.raises(TypeError, match="method"):
        drop_and_grow(network, data, method=scores.Magnitude())


def test_a_method_is_made_of_scores_and_a_start_value():
    magnitude = scores.Magnitude()
    for wrong in (
        {"drop": "small", "grow": magnitude},
        {"drop": magnitude, "grow": None},
        {"drop": magnitude, "grow": magnitude, "share": 1.0},
        {"drop": magnitude, "grow": magnitude, "start_value": 0.0},
    ):
        with pytest.raises(TypeError, match="must be a"):
            sparse_training.Method(**wrong)


def test_a_dense_network_has_nothing_to_exchange(data):
    model = keras.Sequential([keras.Input((12,)), keras_grow.GrowableDense(3)])
    with pytest.raises(NothingToChange, match="nothing to drop and grow"):
        drop_and_grow(model, method=sparse_training.SET())


def test_a_convolution_takes_all_methods():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 6, 6, 2)).astype("float32"), np.arange(8) % 3
    for method in (
        sparse_training.RigL(),
        sparse_training.SET(),
        sparse_training.CannistraciHebb(),
        sparse_training.CannistraciHebb(statistics.CH3L3p(), drop=scores.RelativeImportance()),
    ):
        layer = keras_grow.GrowableConv2D(4, 3, initial_density=0.3)
        model = keras.Sequential(
            [keras.Input((6, 6, 2)), layer, keras.layers.Flatten(), keras.layers.Dense(3)]
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        before = layer.num_active
        assert drop_and_grow(model, (x, y), method=method).count > 0
        assert layer.num_active == before


def test_shares_are_in_proportion_and_within_their_limits():
    assert in_proportion(10, [1.0, 1.0], [20, 20]) == [5, 5]
    assert in_proportion(10, [3.0, 1.0], [20, 20]) == [8, 2]
    assert in_proportion(10, [3.0, 1.0], [4, 20]) == [4, 6]
    assert in_proportion(10, [0.0, 0.0], [20, 3]) == [7, 3]
    assert in_proportion(10, [1.0, 0.0], [4, 20]) == [4, 6]
    assert in_proportion(0, [1.0], [4]) == [0]


@pytest.fixture
def shared(data):
    """A network of which the first layer's units share their inputs in groups of 4."""
    model = keras.Sequential(
        [
            keras.Input((_WIDTHS[0],)),
            keras_grow.SparseDense(16, "tanh", initial_density=0.3, group_size=4, seed=1, name="a"),
            keras_grow.SparseDense(3, "softmax", initial_density=0.3, capacity=1.0, seed=2),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*data, epochs=3, verbose=0)
    return model


def _of_groups(array):
    """Root mean squares over groups of 4 units."""
    return np.sqrt(np.mean(np.square(array.reshape(len(array), -1, 4)), axis=-1))


def test_units_that_share_inputs_exchange_them_together(shared, data):
    state = _State(shared, data)
    active = state.active[0].reshape(12, 4, 4).all(-1)
    count = int(0.4 * 4 * active.sum()) // 4
    kept = _drop_smallest(_of_groups(state.kernels[0]), active, count)
    expected = _grow_largest(_of_groups(state.gradients[0]), kept, count)
    drop_and_grow(shared, data, fraction=0.4)
    np.testing.assert_array_equal(_masks(shared)[0], np.repeat(expected, 4, axis=1))


@pytest.mark.parametrize(
    "method",
    [
        sparse_training.SET(),
        sparse_training.SNFS(),
        sparse_training.GraNet(),
        sparse_training.CannistraciHebb(),
        sparse_training.CannistraciHebb(statistics.CH3L3p(), drop=scores.RelativeImportance()),
    ],
)
@pytest.mark.parametrize("search", [None, keras_grow.SampledSearch(ratio=0.5)])
def test_no_method_splits_a_group(shared, data, method, search):
    before = sum(mask.sum() for mask in _masks(shared))
    drop_and_grow(shared, data, fraction=0.5, method=method, search=search)
    by_group = _masks(shared)[0].reshape(12, 4, 4)
    np.testing.assert_array_equal(by_group.any(-1), by_group.all(-1))
    assert sum(mask.sum() for mask in _masks(shared)) == before


def test_a_seed_chooses_whole_groups():
    layer = keras_grow.SparseDense(16, initial_density=0.3, group_size=4)
    model = keras.Sequential([keras.Input((12,)), layer])
    before = layer.num_active
    keras_grow.reseed(model, keras_grow.seeds.ReceptiveField(0.0))
    (mask,) = _masks(model)
    by_group = mask.reshape(12, 4, 4)
    np.testing.assert_array_equal(by_group.any(-1), by_group.all(-1))
    assert mask.sum() == before
