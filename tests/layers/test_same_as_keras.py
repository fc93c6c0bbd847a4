"""At density 1, all kinds of layers in `GrowableKernels` are Keras's to the last bit (no XLA)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import GrowableKernels
from tests.layers.kinds import KINDS, Block, bits, every_kind
from tests.quick import among

L = keras.layers
X = np.random.default_rng(3).normal(size=(4, 5, 3)).astype("float32")


def _pair(kind):
    return [kind.model(), kind.model(GrowableKernels)]


def _run(model, arrays, **arguments):
    """Outputs, losses and gradients of all that can be trained."""
    with tf.GradientTape() as tape:
        outputs = model(arrays, **arguments)
        squares = [tf.reduce_mean(tf.square(tf.cast(o, "float32"))) for o in _flat(outputs)]
        loss = tf.add_n([*squares, *(tf.cast(each, "float32") for each in model.losses)])
    # A table that some rows of were read has a gradient of these rows only, as in Keras.
    gradients = tape.gradient(loss, model.trainable_variables)
    sparse = [isinstance(each, tf.IndexedSlices) for each in gradients]
    return [*_flat(outputs), *model.losses, loss, *map(tf.convert_to_tensor, gradients), sparse]


def _flat(outputs):
    return keras.tree.flatten(outputs)


def _state(model):
    """All that a model holds but masks: weights, states, seeds."""
    return bits([each.value for each in model.variables if each.name != "kernel_mask"])


@pytest.mark.parametrize(
    "dtype", among(["float32", "mixed_float16", "mixed_bfloat16"], ("float32", "mixed_float16"))
)
@pytest.mark.parametrize("kind", every_kind)
def test_outputs_gradients_and_states_are_those_of_keras(kind, dtype, in_precision):
    in_precision(dtype)
    plain, growable = _pair(kind)
    assert _state(growable) == _state(plain)
    for arguments in ({"training": True}, {"training": False}, {}):
        runs = [_run(model, kind.arrays, **arguments) for model in (plain, growable)]
        assert bits(runs[0]) == bits(runs[1])
        compiled = [
            tf.function(_run)(model, kind.arrays, **arguments) for model in (plain, growable)
        ]
        assert bits(compiled[0]) == bits(compiled[1])
    assert _state(growable) == _state(plain)


@pytest.mark.parametrize("kind", every_kind)
def test_compiled_training_is_that_of_keras(kind):
    plain, growable = _pair(kind)
    histories = []
    for model in (plain, growable):
        model.compile(keras.optimizers.Adam(0.05), "mse")
        keras.utils.set_random_seed(2)
        data = kind.data(model)
        histories.append(model.fit(*data, epochs=2, batch_size=4, verbose=0).history["loss"])
    assert histories[0] == histories[1]
    assert _state(growable) == _state(plain)
    assert _state(plain) != _state(kind.model())


# XLA fuses as it sees fit, and sums in the order that suits it.
@pytest.mark.slow
@pytest.mark.parametrize("kind", every_kind)
def test_training_under_xla_is_that_of_keras_to_rounding(kind):
    if kind.is_random:
        pytest.skip("What is drawn under XLA differs from call to call.")
    weights = []
    for model in _pair(kind):
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
        model.fit(*kind.data(model), epochs=2, batch_size=4, verbose=0)
        weights.append(model.trainable_variables)
    for expected, found in zip(*weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", every_kind)
def test_shapes_and_types_of_outputs_are_those_of_keras(kind):
    plain, growable = ([(o.shape, o.dtype) for o in _flat(m.output)] for m in _pair(kind))
    assert growable == plain


@pytest.mark.parametrize("name", ["dense", "conv2d", "lstm", "attention_to_others", "embedding"])
def test_shapes_are_known_before_a_layer_is_built_as_in_keras(name):
    kind = KINDS[name]
    shapes = [array.shape for array in kind.inputs]
    layers = kind.make(), GrowableKernels(kind.make())
    if name != "attention_to_others":
        expected, found = (layer.compute_output_shape(*shapes) for layer in layers)
        assert tuple(found) == tuple(expected)
    symbols = [keras.KerasTensor(array.shape, array.dtype.name) for array in kind.inputs]
    expected, found = (keras.ops.shape(kind.call(layer, *symbols)) for layer in layers)
    assert found == expected
    wrapped = GrowableKernels(kind.make())
    wrapped.build(*shapes)
    assert wrapped.masked_kernels


@pytest.mark.parametrize("name", ["lstm_dropout", "block_dropout", "lstm_stateful"])
def test_the_first_call_is_one_call_whether_it_builds_or_not(name):
    kind = KINDS[name]
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        layer = wrap(kind.make())
        outputs = [kind.call(layer, *kind.inputs) for _ in range(2)]
        if name != "lstm_stateful":
            outputs += [layer(*kind.inputs, training=True) for _ in range(2)]
        results.append(bits(outputs) + _state(layer))
    assert results[0] == results[1]


class _ShownMask(keras.Layer):
    """Puts out the mask of timesteps that comes in, -1 for none."""

    supports_masking = True

    def call(self, x, mask=None):
        return -tf.ones((1,)) if mask is None else tf.cast(mask, "float32")


_MASKED = {
    "lstm": lambda: L.LSTM(2, return_sequences=True),
    "last_of_lstm": lambda: L.LSTM(2),
    "bidirectional": lambda: L.Bidirectional(L.GRU(2, return_sequences=True)),
    "time_distributed": lambda: L.TimeDistributed(L.Dense(2)),
    "dense": lambda: L.Dense(2),
    "einsum": lambda: L.EinsumDense("abc,cd->abd", (5, 2)),
    "conv": lambda: L.Conv1D(2, 1),
    "block": lambda: Block(2),
}


@pytest.mark.parametrize(
    "make", among(_MASKED, quick=("lstm", "last_of_lstm", "time_distributed", "conv"))
)
def test_masks_of_timesteps_come_in_and_go_out_as_in_keras(make):
    x = X * (np.arange(5)[:, None] < np.array([2, 5, 3, 4])[:, None, None])
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        layers = [L.Masking(), wrap(make()), _ShownMask()]
        outputs = layers[1](layers[0](x))
        eager = [outputs, layers[2](outputs)]
        inputs = keras.Input(x.shape[1:])
        made = layers[1](layers[0](inputs))
        model = keras.Model(inputs, [made, layers[2](made)])
        results.append([bits(eager), bits(model(x)), bits(model.predict(x, verbose=0))])
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["Embedding", "ReversibleEmbedding"])
def test_tables_put_out_the_mask_of_their_zeros(name):
    tokens = KINDS["embedding"].inputs[0]
    if not hasattr(L, name):
        pytest.skip("Keras has it since 3.13 or so.")
    table = GrowableKernels(getattr(L, name)(6, 3, mask_zero=True))
    np.testing.assert_array_equal(_ShownMask()(table(tokens)), tokens != 0)
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, _ShownMask()(table(inputs)))
    np.testing.assert_array_equal(model(tokens), tokens != 0)


_PENALTIES = {
    "activity": lambda: L.GRU(2, activity_regularizer="l2"),
    "input_kernel": lambda: L.Conv1D(2, 2, kernel_regularizer="l1", bias_regularizer="l2"),
    "several_layers": lambda: keras.Sequential(
        [L.Dense(2, kernel_regularizer="l2"), L.ActivityRegularization(0.1), L.Dense(3)]
    ),
    "separable": lambda: L.SeparableConv1D(
        2, 2, depthwise_regularizer="l1", pointwise_regularizer="l2"
    ),
    "block": lambda: Block(2, activity_regularizer="l1"),
}


@pytest.mark.parametrize("make", among(_PENALTIES, quick=("activity", "several_layers")))
def test_penalties_are_those_of_keras_each_once(make):
    expected, found = _with_penalties(make)
    assert bits(found) == bits(expected)


# Of a kernel that is read at every step, Keras adds the penalty's gradient to those of the steps
# one by one, and a masked kernel to their sum.
def test_penalties_of_a_kernel_of_many_reads_are_those_of_keras_to_rounding():
    results = _with_penalties(
        lambda: L.LSTM(2, kernel_regularizer="l1", recurrent_regularizer="l2")
    )
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def _with_penalties(make):
    """Outputs, losses and gradients, and the weights after a step, of Keras's and of masked."""
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input(X.shape[1:]), wrap(make())])
        *numbers, _ = _run(model, X)
        assert len(model.losses) > 0
        model.compile("sgd", "mse")
        loss = model.train_on_batch(X, np.zeros(model.compute_output_shape(X.shape)))
        results.append([*numbers, loss, *model.trainable_variables])
    return results


_CONSTRAINTS = {
    "recurrent": lambda: L.LSTM(2, kernel_constraint="max_norm", recurrent_constraint="unit_norm"),
    "separable": lambda: L.SeparableConv1D(
        2, 2, depthwise_constraint="non_neg", pointwise_constraint="unit_norm"
    ),
    "attention": lambda: L.TimeDistributed(L.Dense(2, kernel_constraint="non_neg")),
}


@pytest.mark.parametrize("make", among(_CONSTRAINTS, quick=("recurrent",)))
def test_constraints_act_as_in_keras(make):
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.Input(X.shape[1:]), wrap(make())])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(X, np.ones(model.compute_output_shape(X.shape)), epochs=2, verbose=0)
        results.append(_state(model))
    assert results[0] == results[1]


_BAD_CALLS = {
    "rank": (lambda: L.LSTM(2), lambda layer: layer(X[0])),
    "no_channels": (lambda: L.Conv2D(2, 3), lambda layer: layer(X)),
    "other_size": (lambda: L.Dense(2), lambda layer: [layer(X), layer(X[..., :2])]),
    "out_of_the_table": (lambda: L.Embedding(3, 2), lambda layer: layer(np.array([[5]]))),
    "unknown_argument": (lambda: L.GRU(2), lambda layer: layer(X, speed=3)),
    "no_input": (lambda: L.Dense(2), lambda layer: layer()),
    "no_value": (lambda: L.MultiHeadAttention(2, 3), lambda layer: layer(X)),
    "batch": (
        lambda: L.LSTM(2, stateful=True),
        lambda layer: [layer(X), layer(X[:3])],
    ),
}


@pytest.mark.parametrize(("make", "call"), _BAD_CALLS.values(), ids=_BAD_CALLS)
def test_what_keras_refuses_is_refused_with_the_same_error(make, call):
    errors = []
    for wrap in (lambda layer: layer, GrowableKernels):
        with pytest.raises((ValueError, TypeError, tf.errors.OpError)) as raised:
            call(wrap(make()))
        errors.append(raised.value)
    assert type(errors[1]) is type(errors[0])


def test_inputs_may_be_given_by_name():
    tokens = KINDS["embedding"].inputs[0]
    table = GrowableKernels(L.Embedding(6, 3))
    np.testing.assert_array_equal(table(inputs=tokens), table(tokens))
    recurrent = GrowableKernels(L.GRU(3))
    np.testing.assert_array_equal(recurrent(sequences=X), recurrent(X))


@pytest.mark.parametrize("kind", ["floats", "doubles", "sparse"])
def test_inputs_of_other_types_are_taken_as_in_keras(kind):
    make, inputs = {
        "floats": (lambda: L.Embedding(6, 3), np.array([[1.0, 5.0]])),
        "doubles": (lambda: L.GRU(3), X.astype("float64")),
        "sparse": (lambda: L.Dense(2), tf.sparse.from_dense(X[0])),
    }[kind]
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        results.append(wrap(make())(inputs))
    assert bits(results[0]) == bits(results[1])


def test_a_recurrent_layer_takes_and_returns_states_and_resets_them_as_in_keras():
    state = np.ones((4, 3), "float32")
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        layer = wrap(L.GRU(3, stateful=True, return_state=True))
        given = layer(X, initial_state=state)
        kept = layer(X)
        getattr(layer, "layer", layer).reset_states()
        results.append([given, kept, layer(X)])
        assert bits(kept) != bits(results[-1][-1])
    assert bits(results[0]) == bits(results[1])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_fast_path_is_asked_with_what_keras_gives_it(name, monkeypatch):
    calls = []

    def fast(inputs, *others, **arguments):
        calls.append((inputs, *others, arguments))
        outputs = tf.tanh(inputs @ arguments["kernel"][:, :3])
        return outputs[:, -1], outputs, [outputs[:, -1]] * {"lstm": 2, "gru": 1}[name]

    # Where Keras looks it up; without a GPU, its own refuses.
    monkeypatch.setattr(f"keras.src.backend.{name}", fast)
    results = []
    for wrap in (lambda layer: layer, GrowableKernels):
        keras.utils.set_random_seed(7)
        layer = wrap({"lstm": L.LSTM, "gru": L.GRU}[name](3, return_sequences=True))
        results.append([layer(X), layer(X, mask=np.arange(5) < 3), layer(X, training=True)])
    assert bits(results[0]) == bits(results[1])
    plain, growable = calls[:3], calls[3:]
    assert _structure(plain) == _structure(growable)
    assert bits(_numbers(plain)) == bits(_numbers(growable))
    # cuDNN takes tensors, and Keras looks for its own variables only.
    assert all(tf.is_tensor(call[-1][key]) for call in growable for key in _KERNELS)


_KERNELS = ("kernel", "recurrent_kernel")


def _numbers(calls):
    return [each for each in _flat(calls) if hasattr(each, "shape")]


def _structure(calls):
    """Arguments by position and name, numbers by their shapes and types."""
    return keras.tree.map_structure(
        lambda each: (
            (tuple(each.shape), keras.backend.standardize_dtype(each.dtype))
            if hasattr(each, "shape")
            else each
        ),
        calls,
    )
