"""grow_depth(): more layers, the same function, and a training that goes on as it would have."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_grow import (
    GrowableConv2D,
    GrowableDense,
    GrowableKernels,
    SparseDense,
    WeightNormDense,
    compact,
    convert_optimizer,
    errors,
    grow,
    grow_depth,
    growable_layers,
)
from keras_grow.optimizer_slots import slots, steps_made
from tests.random_models import difference

_layers = keras.layers
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(32, 8)).astype("float32")
Y = _RANDOM.normal(size=(32, 3)).astype("float32")
IMAGES = _RANDOM.normal(size=(8, 6, 6, 4)).astype("float32")
TOKENS = _RANDOM.normal(size=(8, 5, 8)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class TransformerBlock(_layers.Layer):
    """Attention and a feed-forward network, each added to what it reads, normalized before."""

    def __init__(self, is_normalized_after=False, **kwargs):
        super().__init__(**kwargs)
        self.is_normalized_after = is_normalized_after
        self.norms = [_layers.LayerNormalization(), _layers.LayerNormalization()]
        self.attention = _layers.MultiHeadAttention(2, 4, dropout=0.1)
        self.wide, self.narrow = _layers.Dense(16, "gelu"), _layers.Dense(8)

    def call(self, inputs, training=False):
        first, second = self.norms
        if self.is_normalized_after:
            inputs = first(inputs + self.attention(inputs, inputs, training=training))
            return second(inputs + self.narrow(self.wide(inputs)))
        read = first(inputs)
        inputs = inputs + self.attention(read, read, training=training)
        return inputs + self.narrow(self.wide(second(inputs)))

    def get_config(self):
        return {**super().get_config(), "is_normalized_after": self.is_normalized_after}


def _chain(activation, kind=_layers.Dense, **arguments):
    hidden = kind(16, activation, name="hidden", **arguments)
    return keras.Sequential([keras.Input((8,)), hidden, _layers.Dense(3, name="head")])


def _convolutional():
    inputs = keras.Input((6, 6, 4))
    x = _layers.Conv2D(8, 3, 2, padding="same", name="conv")(inputs)
    x = _layers.ReLU(name="relu")(_layers.BatchNormalization()(x))
    x = _layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, _layers.Dense(3, name="head")(x))


def _residual_block(name, relu_last=True):
    inputs = keras.Input((6, 6, 4))
    x = _layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = _layers.ReLU()(_layers.BatchNormalization()(x))
    x = _layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = _layers.Add()([_layers.BatchNormalization()(x), inputs])
    return keras.Model(inputs, _layers.ReLU()(x) if relu_last else x, name=name)


def _residual(relu_last=True):
    inputs = keras.Input((6, 6, 4))
    x = _layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    x = _residual_block("block", relu_last)(x)
    x = _layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, _layers.Dense(3, name="head")(x))


def _transformer(**arguments):
    inputs = keras.Input((5, 8))
    x = TransformerBlock(name="block_1", **arguments)(inputs)
    x = TransformerBlock(name="block_2", **arguments)(x)
    return keras.Model(inputs, _layers.Dense(3, name="head")(_layers.Flatten()(x)))


def _trained(model, x, steps=3, optimizer=None):
    y = np.resize(Y, (len(x), 3))
    optimizer = optimizer or keras.optimizers.Adam(0.01, epsilon=1e-3)
    model.compile(optimizer, "mse", run_eagerly=True)
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model


_CASES = {
    "unit matrix behind relu": (lambda: _chain("relu"), X, "hidden", "hidden_deeper"),
    "unit matrix, linear": (lambda: _chain(None), X, "hidden", "hidden_deeper"),
    "added, gelu": (lambda: _chain("gelu"), X, "hidden", "hidden_deeper_residual"),
    "convolution": (_convolutional, IMAGES, "conv", "conv_deeper"),
    "residual block": (_residual, IMAGES, "block", "block_deeper"),
    "residual block, linear": (lambda: _residual(False), IMAGES, "block", "block_deeper"),
    "transformer": (_transformer, TOKENS, "block_1", "block_1_deeper"),
    "transformer, normalized after": (
        lambda: _transformer(is_normalized_after=True),
        TOKENS,
        "block_1",
        "block_1_deeper_residual",
    ),
}


@pytest.fixture(params=_CASES)
def case(request):
    """A trained model, what it takes, and one grown deeper behind a layer."""
    make, x, after, name = _CASES[request.param]
    model = _trained(make(), x)
    return model, x, grow_depth(model, after), after, name


def _old_variables(model, deeper):
    """The trainable variables of both that are the same weights."""
    for old in model.layers:
        new = deeper.get_layer(old.name)
        yield from zip(old.trainable_variables, new.trainable_variables, strict=True)


def test_the_function_is_the_same_and_the_layer_is_there(case):
    model, x, deeper, after, name = case
    assert type(deeper) is type(model)
    assert not deeper.compiled
    assert difference(deeper(x), model(x)) < 1e-6
    names = [layer.name for layer in deeper.layers]
    assert names[names.index(after) + 1] == name
    assert [each for each in names if each != name] == [layer.name for layer in model.layers]
    assert not set(map(id, deeper.variables)) & set(map(id, model.variables))
    for old, new in _old_variables(model, deeper):
        np.testing.assert_array_equal(old, new)


def test_one_step_moves_old_weights_as_it_would_have_and_others_learn_from_there(case):
    model, x, deeper, _, name = case
    y = np.resize(Y, (len(x), 3))
    deeper.compile(convert_optimizer(model, deeper), "mse", run_eagerly=True)
    assert steps_made(deeper.optimizer) == steps_made(model.optimizer) == 3
    for old, new in _old_variables(model, deeper):
        for kind, slot in slots(model.optimizer, old).items():
            np.testing.assert_array_equal(slot, slots(deeper.optimizer, new)[kind])
    newborn = deeper.get_layer(name).trainable_variables
    for variable in newborn:
        assert all(not np.any(slot) for slot in slots(deeper.optimizer, variable).values())
    before = [variable.numpy() for variable in newborn]
    for each in (model, deeper):
        each.train_on_batch(x, y)
    assert any(np.any(a != b) for a, b in zip(before, newborn, strict=True))
    for old, new in _old_variables(model, deeper):
        np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-5)
    deeper.fit(x, y, epochs=2, verbose=0)
    assert all(np.all(np.isfinite(variable)) for variable in deeper.variables)


def test_only_the_last_weights_of_what_is_added_are_zero():
    model = _trained(_transformer(), TOKENS)
    deeper = grow_depth(model, "block_1")
    old, new = deeper.get_layer("block_1"), deeper.get_layer("block_1_deeper")
    zero = {v.path.split("/", 1)[1] for v in new.trainable_variables if not np.any(v)}
    outputs = (new.attention.output_dense, new.narrow)
    assert zero == {v.path.split("/", 1)[1] for each in outputs for v in each.weights}
    for a, b in zip(old.trainable_variables, new.trainable_variables, strict=True):
        assert b.path.split("/", 1)[1] in zero or np.array_equal(a, b)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(deeper(TOKENS)[:, 0])
    gradients = tape.gradient(loss, [v.value for v in new.trainable_variables])
    moved = {
        v.path.split("/", 1)[1]
        for v, g in zip(new.trainable_variables, gradients, strict=True)
        if g is not None and np.any(g)
    }
    assert moved == zero


def test_what_a_residual_block_adds_is_zero_through_its_last_normalization():
    model = _trained(_residual(), IMAGES)
    block = grow_depth(model, "block").get_layer("block_deeper")
    zero = [v.path for v in block.trainable_variables if not np.any(v)]
    last = block.layers[-3]
    assert isinstance(last, _layers.BatchNormalization)
    assert zero == [last.gamma.path, last.beta.path]


@pytest.mark.parametrize("kind", [GrowableDense, WeightNormDense, SparseDense])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_growable_layer_is_followed_by_a_growable_one(kind, activation):
    model = _chain(activation, kind, initial_density=0.3)
    deeper = grow_depth(model, "hidden")
    new = growable_layers(deeper)[1]
    assert type(new) is kind
    assert 0 < new.density < 0.4
    assert difference(deeper(X), model(X)) < 1e-6
    np.testing.assert_array_equal(
        *(growable_layers(m)[0].active_connections()[0] for m in (model, deeper))
    )


_BLOCKS = {
    "a layer": lambda: _layers.Dense(16),
    "an activation of its own": lambda: _layers.Dense(16, "tanh"),
    "a growable layer": lambda: GrowableDense(16, "gelu", initial_density=0.2),
    "a layer with growable kernels": lambda: GrowableKernels(_layers.EinsumDense("ab,bc->ac", 16)),
    "a model": lambda: keras.Sequential([_layers.Dense(4, "relu"), _layers.Dense(16)]),
    "a function": lambda: lambda x: _layers.Dense(16)(_layers.Dense(4, "relu")(x)),
    "a function with its addition": lambda: lambda x: x + _layers.Dense(16)(x),
}


@pytest.mark.parametrize("make", _BLOCKS.values(), ids=_BLOCKS)
@pytest.mark.parametrize("functional", [False, True])
def test_a_block_of_ones_own_is_placed_as_the_identity(make, functional):
    model = _chain("relu")
    if functional:
        model = keras.Model(model.inputs[0], model.outputs[0])
    block = make()
    deeper = grow_depth(model, "hidden", block)
    assert difference(deeper(X), model(X)) < 1e-6
    assert len(deeper.layers) == len(model.layers) + 1
    if isinstance(block, keras.Layer):
        assert not block.built, "The layer that was passed in is left as it was."


def test_a_built_block_brings_its_weights():
    block = keras.Sequential([keras.Input((16,)), _layers.Dense(4, "tanh"), _layers.Dense(16)])
    before = [weight.numpy() for weight in block.weights]
    deeper = grow_depth(_chain("relu"), "hidden", block)
    inside = deeper.layers[1].layers[1]
    np.testing.assert_array_equal(inside.weights[0], before[0])
    assert not np.any(inside.weights[2])
    for weight, value in zip(block.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_copy_draws_random_numbers_of_its_own():
    layers = [_layers.Dense(64, "gelu", name="dense"), _layers.Dropout(0.5, name="dropout")]
    block = keras.Sequential([keras.Input((64,)), *layers], name="block")
    model = keras.Sequential([keras.Input((64,)), block, _layers.Dense(3)])
    deeper = grow_depth(model, "block")
    ones = np.ones((4, 64), "float32")
    new = deeper.layers[1].get_layer("block_deeper")
    old, new = (each.get_layer("dropout")(ones, training=True) for each in (deeper.layers[0], new))
    assert np.any(np.asarray(old) != np.asarray(new))


@pytest.mark.parametrize("verify", [(X,), X, False])
def test_the_copy_can_be_checked_on_data_or_not_at_all(verify):
    model = _chain("relu")
    model = keras.Model(
        model.inputs[0], {"all": model.outputs[0], "hidden": model.layers[0].output}
    )
    deeper = grow_depth(model, "hidden", verify=verify)
    before, after = model(X), deeper(X)
    assert difference(after["hidden"], before["hidden"]) < 1e-6
    assert difference(after["all"], before["all"]) < 1e-6


def test_a_layer_inside_a_wrapper_is_none_of_the_model():
    inner = keras.Sequential([keras.Input((8,)), _layers.Dense(8, "relu", name="hidden")])
    model = keras.Sequential([keras.Input((5, 8)), _layers.TimeDistributed(inner, name="each")])
    with pytest.raises(ValueError, match="expected one of .'each'."):
        grow_depth(model, "hidden")


def test_a_stretch_of_a_functional_model_is_stacked_with_its_weights():
    inputs = keras.Input((6, 6, 4))
    x = before = _layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    x = _layers.Conv2D(4, 3, padding="same", name="conv_1")(x)
    x = _layers.BatchNormalization(name="norm_1")(x)
    x = _layers.Conv2D(4, 3, padding="same", name="conv_2")(_layers.ReLU()(x))
    x = behind = _layers.Add(name="add")([x, before])
    model = _trained(keras.Model(inputs, _layers.Dense(3)(_layers.Flatten()(x))), IMAGES)
    deeper = grow_depth(model, "add", keras.Model(before, behind, name="more"))
    assert difference(deeper(IMAGES), model(IMAGES)) < 1e-6
    new = deeper.get_layer("more")
    assert new.get_layer("conv_1") is not deeper.get_layer("conv_1")
    for a, b in zip(
        model.get_layer("conv_1").weights, new.get_layer("conv_1").weights, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert not np.any(new.get_layer("conv_2").kernel)
    np.testing.assert_array_equal(*(m.get_layer("norm_1").moving_mean for m in (model, new)))


def test_new_connections_grow_in_a_new_layer_and_it_is_compacted_with_the_rest():
    model = _chain("gelu", GrowableDense, initial_density=0.3)
    deeper = grow_depth(model, "hidden")
    deeper.compile("sgd", "mse", run_eagerly=True)
    record = grow(deeper, (X, Y), count=20, layers=["hidden_deeper_residual/hidden_deeper"])
    assert record.count == 20
    assert difference(deeper(X), model(X)) < 1e-6
    small = compact(deeper).model
    assert difference(small(X), model(X)) < 1e-6


def test_normalization_in_a_chain_passes_on_what_it_is_given():
    def block(x):
        x = _layers.Conv2D(8, 3, padding="same")(x)
        return _layers.ReLU()(_layers.BatchNormalization(epsilon=0.1)(x))

    model = _convolutional()
    deeper = grow_depth(model, "relu", block)
    assert [layer.name for layer in deeper.layers][4] == "relu_deeper"
    assert difference(deeper(IMAGES), model(IMAGES)) < 1e-6


@pytest.mark.parametrize("arguments", [{}, {"kernel_size": 4}, {"groups": 4}, {"kernel_size": 5}])
def test_a_kernel_is_the_unit_matrix_at_the_center_of_any_window(arguments):
    for kind in (_layers.Conv2D, GrowableConv2D):
        block = kind(8, **{"kernel_size": 3, "padding": "same", **arguments})
        model = _convolutional()
        deeper = grow_depth(model, "conv", block, residual=False)
        assert difference(deeper(IMAGES), model(IMAGES)) < 1e-6


def test_it_stands_in_a_nested_model_wherever_that_is_called():
    inner = keras.Sequential(
        [keras.Input((8,)), _layers.Dense(8, "relu", name="hidden")], name="inner"
    )
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, _layers.Dense(3)(inner(inner(inputs))))
    _trained(outer, X)
    deeper = grow_depth(outer, "inner/hidden")
    assert [layer.name for layer in deeper.get_layer("inner").layers] == ["hidden", "hidden_deeper"]
    assert difference(deeper(X), outer(X)) < 1e-6
    deeper.compile(convert_optimizer(outer, deeper), "mse", run_eagerly=True)
    deeper.train_on_batch(X, Y)


def test_a_nested_model_that_several_others_hold_grows_once():
    hidden = _layers.Dense(8, "relu", name="hidden")
    inner = keras.Sequential([keras.Input((8,)), hidden], name="inner")
    arms = []
    for name in ("left", "right"):
        inputs = keras.Input((8,))
        arms.append(keras.Model(inputs, _layers.Dense(4)(inner(inputs)), name=name))
    inputs = keras.Input((8,))
    model = keras.Model(inputs, _layers.Add()([arm(inputs) for arm in arms]))
    deeper = grow_depth(model, "hidden")
    left, right = (deeper.get_layer(name).get_layer("inner") for name in ("left", "right"))
    assert left is right
    assert [layer.name for layer in left.layers] == ["hidden", "hidden_deeper"]
    assert difference(deeper(X), model(X)) < 1e-6


def test_old_layers_stay_frozen_and_new_ones_learn():
    model = _chain("gelu")
    model.trainable = False
    deeper = grow_depth(model, "hidden")
    assert not deeper.get_layer("hidden").trainable
    assert not deeper.get_layer("head").trainable
    assert len(deeper.trainable_variables) == 2


def test_several_new_layers_stand_behind_one_another_and_the_optimizer_goes_along():
    model = _trained(_chain("relu"), X)
    deeper = grow_depth(grow_depth(model, "hidden"), "hidden")
    names = ["hidden", "hidden_deeper_2", "hidden_deeper", "head"]
    assert [layer.name for layer in deeper.layers] == names
    optimizer = convert_optimizer(model, deeper)
    assert steps_made(optimizer) == 3
    deeper.compile(optimizer, "mse", run_eagerly=True)
    deeper.train_on_batch(X, Y)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
        lambda: keras.optimizers.Adafactor(0.01),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    ],
)
def test_the_state_of_any_optimizer_goes_over(optimizer):
    model = _trained(_chain("gelu"), X, optimizer=optimizer())
    deeper = grow_depth(model, "hidden")
    converted = convert_optimizer(model, deeper)
    assert steps_made(converted) == 3
    for old, new in _old_variables(model, deeper):
        for kind, slot in slots(model.optimizer, old).items():
            np.testing.assert_array_equal(slot, slots(converted, new)[kind])
    deeper.compile(converted, "mse", run_eagerly=True)
    deeper.train_on_batch(X, Y)


def test_a_deeper_model_is_saved_and_opened_in_another_process(tmp_path):
    model = _trained(_chain("gelu"), X)
    deeper = grow_depth(model, "hidden")
    deeper.compile(convert_optimizer(model, deeper), "mse")
    deeper.fit(X, Y, verbose=0)
    deeper.save(tmp_path / "deeper.keras")
    np.save(tmp_path / "x.npy", X)
    program = (
        "import keras, keras_grow, numpy as np\n"
        f"model = keras.saving.load_model({str(tmp_path / 'deeper.keras')!r})\n"
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, model(x))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert difference(np.load(tmp_path / "y.npy"), deeper(X)) < 1e-6


def test_features_behind_the_new_layer_pass_through_it():
    deeper = grow_depth(_convolutional(), "conv")
    for layer in deeper.layers[1:]:
        layer.trainable_variables and layer.trainable_variables[0].assign_add(
            tf.ones_like(layer.trainable_variables[0])
        )
    features = keras.Model(deeper.input, deeper.get_layer("head").output)
    assert difference(features(IMAGES), deeper(IMAGES)) < 1e-6


def test_the_last_layer_can_be_followed_too_and_the_model_stays_as_it_was(snapshot):
    model = _trained(_transformer(), TOKENS)
    encoder = keras.Model(model.input, model.get_layer("block_2").output)
    before = snapshot(encoder)
    deeper = grow_depth(encoder, "block_2")
    snapshot.assert_same(encoder, before)
    assert deeper.layers[-1].name == "block_2_deeper"
    assert difference(deeper(TOKENS), encoder(TOKENS)) < 1e-6


_REFUSED = {
    "no such layer": (lambda: _chain("relu"), {"after": "hiden"}, "expected one of"),
    "shapes change": (
        _convolutional,
        {"after": "global_average_pooling2d"},
        "must put out the shape that it takes",
    ),
    "no weights": (
        lambda: _chain("relu"),
        {"after": "hidden", "block": _layers.Dropout(0.5)},
        "no weights to learn",
    ),
    "other units": (
        lambda: _chain("relu"),
        {"after": "hidden", "block": _layers.Dense(5)},
        "makes outputs of shape",
    ),
    "no identity alone": (
        lambda: _chain("tanh"),
        {"after": "hidden", "residual": False},
        "ReLU does behind ReLU",
    ),
    "no relu behind what may be negative": (
        lambda: _chain(None),
        {"after": "hidden", "block": _layers.Dense(16, "relu"), "residual": False},
        "ReLU does behind ReLU",
    ),
    "never zero": (lambda: _chain("sigmoid"), {"after": "hidden"}, "other numbers than 0"),
    "born dead": (
        lambda: _chain("relu"),
        {"after": "hidden", "residual": True},
        "it would never learn",
    ),
    "no block": (lambda: _chain("relu"), {"after": "hidden", "block": 3}, "`block` must be"),
}


@pytest.mark.parametrize(("make", "arguments", "words"), _REFUSED.values(), ids=_REFUSED)
def test_what_can_not_be_born_as_the_identity_is_refused_in_words(make, arguments, words, snapshot):
    model = make()
    before = snapshot(model)
    with pytest.raises((ValueError, TypeError), match=words):
        grow_depth(model, **arguments)
    snapshot.assert_same(model, before)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_mask_of_timesteps_is_passed_on_or_the_block_refused():
    model = keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            _layers.Embedding(4, 8, mask_zero=True, name="embedding"),
            _layers.LSTM(8, return_sequences=True, name="lstm"),
            _layers.LSTM(4, name="last"),
        ]
    )
    tokens = np.arange(56).reshape(8, 7) % 4
    deeper = grow_depth(model, "lstm")
    assert difference(deeper(tokens), model(tokens)) < 1e-6
    with pytest.raises(errors.CopyDiffers, match="mask of timesteps"):
        grow_depth(model, "embedding", lambda x: x + _layers.Dense(8)(x))


def test_a_model_of_a_class_with_arguments_of_its_own_is_refused_in_words():
    class Own(keras.Sequential):
        pass

    model = Own([keras.Input((8,)), _layers.Dense(8, "relu", name="hidden")])
    with pytest.raises(ValueError, match="of Keras's own classes"):
        grow_depth(model, "hidden")


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_any_precision_serves(policy, in_precision):
    in_precision(policy)
    for activation in ("relu", "gelu"):
        model = _chain(activation)
        deeper = grow_depth(model, "hidden")
        assert deeper.layers[1].compute_dtype == model.layers[0].compute_dtype
        np.testing.assert_array_equal(deeper(X), model(X))


def test_what_is_no_deeper_copy_has_no_optimizer():
    model = _trained(_chain("relu"), X)
    deeper = grow_depth(_chain("relu", GrowableDense), "hidden")
    with pytest.raises(ValueError, match="must have been made from `model`"):
        convert_optimizer(model, deeper)
