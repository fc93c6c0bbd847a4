"""A copy is compared with its model layer by layer, and what is not the same is found."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_grow import make_growable
from keras_grow.errors import CopyDiffers
from keras_grow.layers.paths import nested_layers
from keras_grow.measuring.agreement import _difference, check_copy
from tests.zoo.models import ZOO, stirred

pytestmark = pytest.mark.filterwarnings("ignore:Not all of the model can grow")


def _copied(name):
    model, _ = ZOO[name]()
    stirred(model)
    return model, make_growable(model)


def _layer(copy, kind, number=0):
    return [layer for layer in nested_layers(copy) if isinstance(layer, kind)][number]


def _nudge(variable, by=0.02):
    value = variable.numpy()
    value.flat[-1] += by
    variable.assign(value)


PLANTED = {
    "a moving mean": (
        "residual",
        lambda c: _nudge(_layer(c, layers.BatchNormalization).moving_mean),
    ),
    "a moving variance": (
        "residual",
        lambda c: _nudge(_layer(c, layers.BatchNormalization, 1).moving_variance),
    ),
    "a scale": ("residual", lambda c: _nudge(_layer(c, layers.BatchNormalization).gamma)),
    "an offset": ("nested", lambda c: _nudge(_layer(c, layers.BatchNormalization).beta)),
    "a bias of a converted layer": (
        "residual",
        lambda c: _nudge(c.layers[-1].bias),
    ),
    "a bias of a hidden layer": ("normalization", lambda c: _nudge(c.layers[1].bias, 0.1)),
    "an entry of a vocabulary": (
        "string_lookup",
        lambda c: _layer(c, layers.StringLookup).set_vocabulary(["[UNK]", "a", "x", "c"]),
    ),
    "a word that is seldom drawn": (
        "text_vectorization",
        lambda c: _layer(c, layers.TextVectorization).set_vocabulary(
            [
                "changed" if word == "sang" else word
                for word in _layer(c, layers.TextVectorization).get_vocabulary()[2:]
            ]
        ),
    ),
    "a mean that is derived": (
        "normalization",
        lambda c: setattr(
            _layer(c, layers.Normalization), "mean", _layer(c, layers.Normalization).mean + 0.5
        ),
    ),
    "a row of an embedding": (
        "transformer",
        lambda c: _nudge(_layer(c, layers.Embedding).weights[0]),
    ),
    "a recurrent kernel": ("stacked_rnns", lambda c: _nudge(_layer(c, layers.GRUCell).weights[1])),
    "a state of the user's": (
        "layers_of_the_users",
        lambda c: setattr(c.layers[1], "table", np.array([1, 2, 4], "float32")),
    ),
    "a file of the user's": ("layers_of_the_users", lambda c: setattr(c.layers[2], "scale", 1.71)),
    "a running state": (
        "stateful_rnn",
        lambda c: _nudge(_layer(c, layers.LSTM).states[0]),
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_one_number_or_word_that_is_another_is_found(planted):
    name, plant = PLANTED[planted]
    model, copy = _copied(name)
    check_copy(model, copy, True)
    plant(copy)
    with pytest.raises(CopyDiffers, match="Received: layer '.+' .* as the first that differs"):
        check_copy(model, copy, True)


def test_the_first_layer_that_differs_is_named_however_deep_and_saturated():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="guilty")], name="in")
    inputs = keras.Input((4,))
    x = layers.Dense(4, "softmax")(inner(inputs) * 0.0)
    model = keras.Model(inputs, x)
    copy = make_growable(model)
    _nudge(copy.get_layer("in").layers[0].kernel)
    assert np.array_equal(model(np.ones((2, 4))), copy(np.ones((2, 4))))
    with pytest.raises(
        CopyDiffers, match=r"layer 'in/guilty' \(Dense, GrowableDense in the copy\)"
    ):
        check_copy(model, copy, True)


def test_a_copy_that_can_not_be_run_is_not_returned():
    model, copy = _copied("normalization")

    def broken(inputs):
        raise RuntimeError("no kernel for that")

    copy.layers[-1].apply_kernel = lambda inputs, kernel: broken(inputs)
    with pytest.raises(CopyDiffers, match="(?s)what the model runs on.*no kernel for that"):
        check_copy(model, copy, True)


def test_checking_leaves_models_and_random_numbers_as_they_were(snapshot):
    model, copy = _copied("layers_of_the_users")
    tf.random.set_seed(5)
    tf.random.normal([2])
    random.seed(6)
    np.random.seed(7)

    def drawn():
        return random.random(), np.random.rand(), tf.random.normal([3]).numpy().tolist()

    expected = drawn()
    tf.random.set_seed(5)
    tf.random.normal([2])
    random.seed(6)
    np.random.seed(7)
    before = [snapshot(each) for each in (model, copy)]
    attributes = [set(vars(layer)) for layer in nested_layers(model)]
    check_copy(model, copy, True)
    assert drawn() == expected
    for each, state in zip((model, copy), before, strict=True):
        snapshot.assert_same(each, state)
    assert [set(vars(layer)) for layer in nested_layers(model)] == attributes


def test_random_layers_without_a_seed_are_set_alike():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x))),
            layers.Dense(2),
        ]
    )
    copy = make_growable(model)
    _nudge(copy.layers[-1].bias)
    with pytest.raises(CopyDiffers, match="layer '.*dense'"):
        check_copy(model, copy, True)


def test_a_model_that_does_not_agree_with_itself_is_not_blamed_on_its_copy():
    generator = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Lambda(lambda x: x + generator.normal()), layers.Dense(2)]
    )
    with pytest.warns(UserWarning, match=r"layers \['lambda.*'\] were not checked: at inference"):
        copy = make_growable(model)
    # What else there is, is checked all the same.
    _nudge(copy.layers[-1].bias)
    with pytest.raises(CopyDiffers, match="'dense"):
        check_copy(model, copy, True)


def test_inputs_that_can_not_be_made_up_are_asked_for():
    @tf.function
    def only_sevens(x):
        tf.debugging.assert_equal(x, 7.0)
        return x

    model = keras.Sequential(
        [keras.Input((3,)), layers.Lambda(lambda x: only_sevens(x)), layers.Dense(2)]
    )
    with pytest.warns(UserWarning, match="Pass `verify=x` with inputs that it takes"):
        make_growable(model)
    sevens = np.full((2, 3), 7.0, "float32")
    copy = make_growable(model, verify=sevens)
    check_copy(model, copy, (sevens, np.zeros(2)))
    check_copy(model, copy, tf.data.Dataset.from_tensors((sevens, np.zeros(2))))
    with pytest.raises(ValueError, match="Received data that the model can't be run on"):
        make_growable(model, verify=np.ones((2, 3), "float32"))
    make_growable(model, verify=False)


class _Binary(layers.Layer):
    """Takes nothing but 0 and 1, as a layer of one's own may."""

    def call(self, x):
        tf.debugging.assert_less(x, 2)
        return x


@pytest.mark.filterwarnings("error")
def test_inputs_are_made_up_until_the_model_runs_on_them():
    x = keras.Input((4,), dtype="int32")
    hidden = layers.Flatten()(layers.Embedding(7, 3)(_Binary()(x)))
    model = keras.Model(x, layers.Dense(2, name="dense")(hidden))
    copy = make_growable(model)
    copy.get_layer("dense").bias.assign([0, 1])
    with pytest.raises(CopyDiffers, match="layer 'dense'"):
        check_copy(model, copy, True)


@pytest.mark.parametrize(
    ("dtype", "computed_in", "error", "is_accepted"),
    [
        ("float32", "float32", 5e-6, True),
        ("float32", "float32", 2e-5, False),
        ("float32", "bfloat16", 0.05, True),
        ("float32", "bfloat16", 0.1, False),
        ("float16", "float16", 0.005, True),
        ("float16", "float16", 0.02, False),
        ("float64", "float64", 5e-11, True),
        ("float64", "float64", 2e-10, False),
    ],
)
def test_an_error_is_accepted_as_a_share_of_the_largest_output(
    dtype, computed_in, error, is_accepted
):
    original = np.array([0.0, -64.0, 1.0])
    for size, shorter in ((1, False), (1e-3, False), (1, True)):
        ours = size * (original + np.eye(3)[0] * 64 * error * (10 if shorter else 1))
        pair = (tf.constant(each, dtype) for each in (ours, size * original))
        found = _difference(*pair, computed_in, shorter)
        assert (found is None) == is_accepted, found


def test_what_is_not_finite_agrees_with_itself_alone():
    inf, nan = np.inf, np.nan

    def difference(ours, original):
        return _difference(tf.constant(ours), tf.constant(original), "float32")

    assert difference([nan, inf, 1.0], [nan, inf, 1 + 1e-6]) is None
    for ours in ([nan, -inf, 1.0], [0.0, inf, 1.0], [nan, inf, nan], [nan, inf, 1.1]):
        assert difference(ours, [nan, inf, 1.0]) is not None
    assert difference([0.0, 0.0], [0.0, 0.0]) is None
    assert difference([0.0, 1e-30], [0.0, 0.0]) is not None
    assert difference([[1.0]], [1.0]) == "shape (1, 1) in place of (1,)"
    assert difference([1, 2, 4], [1, 3, 5]) == "2 of 3 entries are others"
    assert _difference(None, None, "float32") is None
    assert _difference(None, tf.ones(2), "float32") == "one is None"


@pytest.mark.parametrize("make", [tf.sparse.from_dense, tf.RaggedTensor.from_tensor])
def test_parts_of_sparse_and_ragged_outputs_are_compared(make):
    one, other = np.eye(3, dtype="float32"), np.eye(3, dtype="float32")
    other[1, 1] = 2
    assert _difference(make(one), make(one), "float32") is None
    assert "an error of 1" in _difference(make(one), make(other), "float32")


def test_the_class_is_said_twice_where_it_is_another():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])
    copies = {"(Dense, GrowableDense in the copy)": make_growable(model)}
    copies["(Dense)"] = keras.models.clone_model(model)
    for classes, copy in copies.items():
        copy.layers[0].kernel.assign(model.layers[0].kernel)
        copy.layers[0].bias.assign([0, 1])
        with pytest.raises(CopyDiffers) as raised:
            check_copy(model, copy, True)
        assert f"layer 'dense' {classes} as the first" in str(raised.value)


@pytest.mark.parametrize("is_wrong", [False, True])
def test_units_are_compared_where_they_stand_in_the_copy(is_wrong):
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "tanh", name="hidden")
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    here, there = np.array([0, 2, 3]), np.array([2, 0, 1])
    last = model.layers[-1].kernel.numpy()
    last[[1, 4]] = 0
    model.layers[-1].kernel.assign(last)
    fewer = layers.Dense(3, "tanh", name="hidden")
    copy = keras.Model(inputs, layers.Dense(2, name=model.layers[-1].name)(fewer(inputs)))
    kernel = np.zeros((4, 3), "float32")
    kernel[:, there] = hidden.kernel.numpy()[:, here]
    fewer.kernel.assign(kernel + 0.1 * is_wrong)
    rows = np.zeros((3, 2), "float32")
    rows[there] = last[here]
    copy.layers[-1].kernel.assign(rows)
    places = {id(hidden): (here, there)}
    if is_wrong:
        with pytest.raises(CopyDiffers, match="layer 'hidden'"):
            check_copy(model, copy, True, places)
    else:
        check_copy(model, copy, True, places)
