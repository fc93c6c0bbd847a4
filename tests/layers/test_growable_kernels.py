"""Kernels inside layers of every kind: dormant, grown, pruned, measured and saved."""

import copy
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import Epochs, GrowableKernels, GrowthCallback, PruningCallback
from keras_grow.keras_private import slots_of
from keras_grow.policies.densities import exact_count
from tests.layers.kinds import KINDS, bits, every_kind, kinds
from tests.quick import among


def _growable(kind, density=0.4, layer_class=GrowableKernels, **arguments):
    return kind.model(
        lambda layer: layer_class(layer, initial_density=density, seed=5, name="kind"), **arguments
    )


def _kernels(model):
    return keras_grow.growable_layers(model)


def _masks(model):
    return [kernel.kernel_mask.numpy() for kernel in _kernels(model)]


def _stored(model):
    return [kernel._stored_kernel.numpy() for kernel in _kernels(model)]


def _contaminate(model, value):
    for kernel in _kernels(model):
        stored = kernel._stored_kernel
        stored.assign(np.where(kernel.kernel_mask, stored, value))


def _train(model, kind, steps=2):
    for _ in range(steps):
        model.train_on_batch(*kind.data(model))


def _run(model, kind):
    """Outputs, losses and gradients of one step; seeds and states start from where they stood."""
    before = [each.numpy() for each in model.non_trainable_variables]
    kind.start_over(model)
    x, y = kind.data(model)
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = model.compute_loss(y=y, y_pred=outputs)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    return [*keras.tree.flatten(outputs), loss, *map(tf.convert_to_tensor, gradients)]


@pytest.mark.parametrize("kind", every_kind)
def test_each_kernel_has_its_share_of_connections_and_each_unit_one(kind):
    model = _growable(kind)
    variables = [id(each) for each in model.get_layer("kind").layer.trainable_variables]
    for kernel in _kernels(model):
        expected = max(1, exact_count(0.4, kernel.num_connections))
        assert kernel.num_active == np.count_nonzero(kernel.kernel_mask) == expected
        by_unit = kernel.axes.count_by_unit(np.flatnonzero(kernel.kernel_mask))
        assert len(by_unit) == kernel.axes.num_units
        assert by_unit.min() >= (expected >= len(by_unit))
        assert by_unit.max() <= kernel.fan_in
        assert id(kernel.inner.variable) in variables
        assert not kernel.inner.variable.numpy()[~kernel.kernel_mask.numpy()].any()


@pytest.mark.parametrize("kind", every_kind)
def test_a_dormant_value_reaches_no_output_loss_or_gradient(kind):
    model = _growable(kind)
    model.compile("sgd", "mse")
    expected = bits(_run(model, kind))
    for value in (7.0, np.nan):
        _contaminate(model, value)
        assert bits(_run(model, kind)) == expected


@pytest.mark.parametrize("kind", every_kind)
def test_a_training_step_leaves_nothing_at_dormant_connections(kind):
    model = _growable(kind)
    model.compile(
        keras.optimizers.Adam(0.05, use_ema=True, ema_overwrite_frequency=1),
        "mse",
        run_eagerly=True,
    )
    before = _stored(model)
    masks = _masks(model)
    _contaminate(model, 7.0)
    _train(model, kind)
    for stored, start, mask in zip(_stored(model), before, masks, strict=True):
        assert not stored[~mask].any()
        assert (stored[mask] != start[mask]).any()
    assert bits(_masks(model)) == bits(masks)


@pytest.mark.parametrize("kind", every_kind)
def test_growth_gradients_are_finite_differences_of_keras_own_layer(kind, float64):
    model = _growable(kind)
    model.compile("sgd", "mse")
    training = not kind.is_random
    measured = keras_grow.growth_gradients(model, kind.data(model), training=training)
    plain = kind.model()
    states = [each.numpy() for each in plain.non_trainable_variables]
    plain.compile("sgd", "mse")
    x, y = kind.data(plain)
    inside = model.get_layer("kind").layer.trainable_variables
    for mine, theirs in zip(plain.trainable_variables, inside, strict=True):
        mine.assign(theirs)

    def loss(variable, index, change):
        for state, value in zip(plain.non_trainable_variables, states, strict=True):
            state.assign(value)
        kind.start_over(plain)
        start = variable.numpy()
        nudged = start.copy()
        nudged.flat[index] += change
        variable.assign(nudged)
        found = float(plain.compute_loss(y=y, y_pred=plain(x, training=training)))
        variable.assign(start)
        return found

    random = np.random.default_rng(0)
    for kernel in _kernels(model):
        (number,) = (i for i, each in enumerate(inside) if each is kernel.inner.variable)
        mask = kernel.kernel_mask.numpy().ravel()
        for chosen in (np.flatnonzero(mask), np.flatnonzero(~mask)):
            for index in random.choice(chosen, 2):
                ends = [
                    loss(plain.trainable_variables[number], index, change)
                    for change in (1e-5, -1e-5)
                ]
                slope = (ends[0] - ends[1]) / 2e-5
                gradient = measured[kernel].numpy().ravel()[index]
                np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-8)


def _ranked(arrays, wanted):
    """The indices, as pairs of kernel and connection, that `wanted` names, largest first."""
    scored = [
        (-score, number, index)
        for number, (scores, mask) in enumerate(zip(arrays, wanted, strict=True))
        for index, (score, is_wanted) in enumerate(zip(scores.ravel(), mask.ravel(), strict=True))
        if is_wanted
    ]
    return [place for _, *place in sorted(scored)]


def _changed(before, after):
    return [
        [number, index]
        for number, (old, new) in enumerate(zip(before, after, strict=True))
        for index in np.flatnonzero(old != new)
    ]


@pytest.mark.parametrize("kind", every_kind)
def test_growth_takes_the_largest_gradients_of_all_kernels_and_leaves_the_function(kind):
    model = _growable(kind)
    model.compile("sgd", "mse")
    data = kind.data(model)
    found = keras_grow.growth_gradients(model, data, training=False)
    gradients = [np.abs(gradient.numpy()) for gradient in found.values()]
    before, expected = _masks(model), bits(model(data[0]))
    kind.start_over(model)
    meter = keras_grow.GradientMeter(training=False)
    record = keras_grow.grow(model, data, count=5, meter=meter)
    dormant = [~mask for mask in before]
    assert _changed(before, _masks(model)) == sorted(_ranked(gradients, dormant)[:5])
    assert sum(kernel.num_active for kernel in _kernels(model)) == record.num_active
    kind.start_over(model)
    assert bits(model(data[0])) == expected


@pytest.mark.parametrize("kind", every_kind)
def test_pruning_takes_the_smallest_weights_of_all_kernels(kind):
    model = _growable(kind)
    before = _masks(model)
    sizes = [-np.abs(stored) for stored in _stored(model)]
    keras_grow.prune(model, count=3)
    assert _changed(before, _masks(model)) == sorted(_ranked(sizes, before)[:3])
    for stored, mask in zip(_stored(model), _masks(model), strict=True):
        assert not stored[~mask].any()


@pytest.fixture
def grown():
    """Function of a kind: a trained model with other masks than those it began with."""

    def make(kind, layer_class=GrowableKernels):
        model = _growable(kind, layer_class=layer_class)
        model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
        _train(model, kind, 1)
        keras_grow.grow(model, kind.data(model), count=4)
        keras_grow.prune(model, count=3)
        _train(model, kind, 1)
        return model

    return make


def _state(model):
    return bits([each.value for layer in model.layers for each in layer.weights])


def _assert_same(model, other, kind):
    assert bits(_masks(other)) == bits(_masks(model))
    assert _state(other) == _state(model)
    for each in (model, other):
        kind.start_over(each)
    assert bits(other(kind.arrays)) == bits(model(kind.arrays))


@pytest.mark.parametrize("kind", every_kind)
def test_files_and_clones_bring_masks_and_weights_back(kind, grown, tmp_path):
    model = grown(kind)
    model.save(tmp_path / "grown.keras")
    loaded = keras.saving.load_model(tmp_path / "grown.keras")
    _assert_same(model, loaded, kind)
    assert keras_grow.report(loaded).layers == keras_grow.report(model).layers
    model.save_weights(tmp_path / "grown.weights.h5")
    other = _growable(kind, density=0.2)
    other.load_weights(tmp_path / "grown.weights.h5")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for each in (other, clone):
        _assert_same(model, each, kind)
    for each in (model, loaded):
        each.reset_metrics()
    if not kind.is_random:  # Files hold no seeds.
        data = kind.data(model)
        assert loaded.train_on_batch(*data) == model.train_on_batch(*data)
        assert _state(loaded) == _state(model)


@pytest.mark.parametrize("kind", every_kind)
def test_a_tensorflow_checkpoint_brings_back_masks_and_what_it_does_of_keras_own_layer(
    kind, grown, tmp_path
):
    model, plain = grown(kind), kind.model()
    plain.compile("adam", "mse", run_eagerly=True)
    _train(plain, kind)
    brought = []
    for each, other in ((plain, kind.model()), (model, _growable(kind, density=0.2))):
        path = tf.train.Checkpoint(model=each).save(str(tmp_path / "checkpoint"))
        tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
        brought.append([a == b for a, b in zip(_state(each), _state(other), strict=True)])
    assert bits(_masks(other)) == bits(_masks(model))
    # Layers in lists are in no checkpoint.
    weights = len(brought[0])
    assert brought[1][:weights] == brought[0]


_LOADER = """
import sys
import numpy as np
import keras, keras_grow
import tests.layers.kinds
model = keras.saving.load_model(sys.argv[1])
kinds = tests.layers.kinds.KINDS.values()
outputs = model([array for kind in kinds for array in kind.inputs])
np.savez(sys.argv[2], *map(np.asarray, keras.tree.flatten(outputs)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer_class", [GrowableKernels, keras_grow.WeightNormKernels], ids=["masked", "weight_norm"]
)
def test_a_fresh_process_loads_a_model_of_all_kinds(layer_class, tmp_path):
    inputs, outputs = [], []
    for name, kind in KINDS.items():
        layer = layer_class(kind.make(), initial_density=0.4, seed=5, name=name)
        size = len(kind.inputs[0])
        own = [keras.Input(array.shape[1:], size, dtype=array.dtype.name) for array in kind.inputs]
        inputs += own
        outputs += keras.tree.flatten(kind.call(layer, *own))
    model = keras.Model(inputs, outputs)
    keras_grow.prune(model, count=20)
    model.save(tmp_path / "all.keras")
    arguments = [str(tmp_path / name) for name in ("all.keras", "outputs.npz")]
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", _LOADER, *arguments], check=True, cwd=root)
    found = np.load(tmp_path / "outputs.npz").values()
    expected = model([array for kind in KINDS.values() for array in kind.inputs])
    assert bits(list(found)) == bits(expected)


class TraceCounter(keras.Model):
    """Counts how often its train step is traced."""

    traces = 0

    def train_step(self, data):
        self.traces += 1
        return super().train_step(data)


_TRACED = ("conv2d_groups", "embedding", "lstm_dropout", "attention_causal", "block_dropout")


@pytest.mark.parametrize(
    "kind", among({name: KINDS[name] for name in _TRACED}, quick=("lstm_dropout", "block_dropout"))
)
def test_callbacks_grow_and_prune_in_fit_without_a_retrace(kind):
    model = _growable(kind, model_class=TraceCounter)
    data = kind.data(model)
    model.compile("adam", "mse")
    count = keras_grow.report(model).num_active
    callbacks = [
        GrowthCallback(data, count=2, when=Epochs(stop=3)),
        PruningCallback(density=0.3, when=Epochs(start=3)),
    ]
    model.fit(*data, batch_size=4, epochs=1, verbose=0)
    traces = model.traces
    history = model.fit(*data, batch_size=4, epochs=5, verbose=0, callbacks=callbacks).history
    assert model.traces == traces > 0
    assert history["grown_connections"] == [0, 2, 2, 0, 0]
    assert history["connections"][2] == count + 4
    assert history["connections"][-1] == keras_grow.report(model).num_active < count
    for stored, mask in zip(_stored(model), _masks(model), strict=True):
        assert not stored[~mask].any()


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("dense", ["kind/kernel"]),
        ("lstm", ["kind/kernel", "kind/recurrent_kernel"]),
        ("separable_conv2d", ["kind/depthwise_kernel", "kind/pointwise_kernel"]),
        ("embedding", ["kind/embeddings"]),
        (
            "attention",
            [f"kind/{part}_kernel" for part in ("query", "key", "value", "attention_output")],
        ),
        (
            "block",
            [
                f"kind/{part}"
                for part in (
                    "first_kernel",
                    "second_kernel",
                    "memory_kernel",
                    "memory_recurrent_kernel",
                )
            ],
        ),
    ],
)
def test_a_report_calls_kernels_by_their_paths(name, paths):
    model = _growable(KINDS[name])
    report = keras_grow.report(model)
    assert [layer.name for layer in report.layers] == paths
    assert all(path in str(report) for path in paths)


@pytest.mark.parametrize("kind", every_kind)
def test_a_report_counts_every_parameter_once(kind):
    report = keras_grow.report(_growable(kind, density=1.0))
    plain = kind.model()
    seeds = sum(2 for each in plain.variables if "seed" in each.path)
    weights = sum(int(np.prod(each.shape)) for each in plain.variables) - seeds
    assert report.num_parameters + report.other_parameters == weights
    assert report.density == 1


@pytest.mark.parametrize("kind", kinds(lambda kind: kind.input_axes))
def test_a_connection_links_the_input_and_the_unit_that_its_axes_say(kind):
    shape = kind.inputs[0].shape[1:]
    axes = [axis % len(shape) for axis in kind.input_axes]
    sizes = [6] if kind.reads_tokens else [shape[axis] for axis in axes]
    num_inputs = int(np.prod(sizes))
    # The sample i is 0 but for input i.
    if kind.reads_tokens:
        x = np.tile(np.arange(num_inputs)[:, None], (1, *shape)).astype("int32")
    else:
        x = np.zeros((num_inputs, *shape), "float32")
        for number, place in enumerate(np.ndindex(*sizes)):
            where = [slice(None)] * len(shape)
            for axis, entry in zip(axes, place, strict=True):
                where[axis] = entry
            x[(number, *where)] = 1
    layer = GrowableKernels(kind.make())
    others = [np.zeros((num_inputs, *each.shape[1:]), "float32") for each in kind.inputs[1:]]

    def by_unit():
        outputs = kind.call(layer, x, *others).numpy()
        last = range(-len(kind.output_axes), 0)
        outputs = np.moveaxis(outputs, kind.output_axes, last)
        num_units = int(np.prod(outputs.shape[-len(last) :]))
        return outputs.reshape(num_inputs, -1, num_units)

    before = by_unit()
    kernel = layer.masked_kernels[0]
    assert (kernel.axes.num_inputs, kernel.axes.num_units) == (num_inputs, before.shape[-1])
    variable = kernel.inner.variable
    start = variable.numpy()
    for connection in range(kernel.num_connections):
        nudged = start.copy()
        nudged.flat[connection] += 1
        variable.assign(nudged)
        linked = np.argwhere((by_unit() != before).any(axis=1))
        expected = [kernel.axes.inputs_of(connection), kernel.axes.units_of(connection)]
        np.testing.assert_array_equal(linked, [expected])


@pytest.mark.parametrize(
    "kind", among({name: KINDS[name] for name in _TRACED}, quick=("block_dropout",))
)
def test_grown_connections_start_with_moments_of_their_own(kind):
    model = _growable(kind)
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    _train(model, kind)
    before = _masks(model)
    moments = [dict(slots_of(model.optimizer, k.inner.variable)) for k in _kernels(model)]
    moments = [each["_momentums"] for each in moments]
    starts = [each.numpy() for each in moments]
    # No gradient has come to dormant connections.
    assert not any(start[~mask].any() for start, mask in zip(starts, before, strict=True))
    for moment in moments:
        moment.assign(np.full(moment.shape, 3.0))
    keras_grow.grow(model, kind.data(model), count=5)
    for moment, mask, now in zip(moments, before, _masks(model), strict=True):
        np.testing.assert_array_equal(moment, np.where(now & ~mask, 0, 3))


@pytest.mark.parametrize(
    "kind", among({name: KINDS[name] for name in _TRACED}, quick=("block_dropout",))
)
def test_a_copy_is_the_same_network_and_independent(kind, grown):
    model = grown(kind)
    before = _state(model)
    twin = copy.deepcopy(model)
    _assert_same(model, twin, kind)
    keras_grow.prune(twin, count=3)
    assert _state(model) == before


@pytest.mark.parametrize("kind", every_kind)
def test_a_stateless_call_returns_the_states_that_keras_own_layer_does(kind):
    results = []
    for model in (kind.model(), _growable(kind, density=1.0)):
        trained = [each.value for each in model.trainable_variables]
        others = [each.value for each in model.non_trainable_variables]
        outputs, states = model.stateless_call(trained, others, kind.arrays, training=True)
        assert bits(model.non_trainable_variables) == bits(others)
        results.append(bits([outputs, [s for s in states if s.dtype != tf.bool]]))
    assert results[0] == results[1]


_TWO_REPLICAS = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import keras_grow
from tests.layers.kinds import KINDS

strategies = (
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    tf.distribute.OneDeviceStrategy("CPU:0"),
)
# Keras adds up the inputs of replicas, which no mask of timesteps lets it do.
for name in ("conv2d", "embedding_mask_zero", "gru", "attention", "bilinear", "separable_conv1d"):
    kind, weights = KINDS[name], []
    for strategy in strategies:
        with strategy.scope():
            model = kind.model(
                lambda layer: keras_grow.GrowableKernels(layer, initial_density=0.4, seed=5)
            )
            model.compile(keras.optimizers.SGD(0.1), "mse")
        data = kind.data(model)
        for _ in range(2):
            model.fit(*data, batch_size=4, epochs=2, shuffle=False, verbose=0)
            keras_grow.grow(model, data, count=4, meter=keras_grow.GradientMeter(training=False))
            keras_grow.prune(model, count=2)
        weights.append([layer.variables for layer in model.layers])
    for mirrored, single in zip(*map(keras.tree.flatten, weights), strict=True):
        replicas = [replica.numpy() for replica in mirrored.value.values]
        np.testing.assert_array_equal(*replicas)
        if single.dtype != "bool":
            np.testing.assert_allclose(replicas[0], single.numpy(), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_both_replicas_train_and_grow_as_one_device_does():
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", _TWO_REPLICAS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_layer_of_another_type_is_computed_in_it(dtype):
    plain = keras.layers.DepthwiseConv2D(3, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    x = keras.ops.cast(x, dtype)
    expected = plain(x)
    wrapped = keras_grow.GrowableKernels(plain)
    outputs = wrapped(x)
    assert outputs.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(outputs, "float64"), np.asarray(expected, "float64"))
