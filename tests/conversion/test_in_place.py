"""Models that can't be copied grow as the objects they are."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_grow
from keras_grow import make_growable, make_plain
from keras_grow.keras_private import slots_of
from keras_grow.layers.in_place import masked_in_place
from keras_grow.layers.paths import nested_layers

_PACKAGE = "tests_in_place"


@keras.saving.register_keras_serializable(_PACKAGE)
class Block(keras.Layer):
    """A block with layers in a dict and a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = {"wide": keras.layers.Dense(8, "relu"), "more": [keras.layers.Dense(6)]}

    def build(self, shape):
        self.parts["wide"].build(shape)
        self.parts["more"][0].build((*shape[:-1], 8))

    def call(self, x):
        return self.parts["more"][0](self.parts["wide"](x))


@keras.saving.register_keras_serializable(_PACKAGE)
class Reader(keras.Model):
    """A model with a train step, and layers in attributes, a list, a block and a nested model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = keras.layers.Embedding(20, 6)
        self.lstm = keras.layers.LSTM(6, return_sequences=True)
        self.middle = [keras.layers.Dense(6, "relu"), keras.layers.Dropout(0.3)]
        self.block = Block()
        self.inner = keras.Sequential([keras.layers.Dense(6), keras.layers.Dense(5)])
        self.head = keras.layers.Dense(3)

    def call(self, tokens, training=False):
        x = self.lstm(self.embedding(tokens))
        for layer in self.middle:
            x = layer(x)
        return self.head(keras.ops.mean(self.inner(self.block(x)), axis=1))

    def train_step(self, data):
        x, y, *_ = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def _data():
    random = np.random.default_rng(0)
    return random.integers(0, 20, (24, 5)), random.integers(0, 3, 24)


def _trained():
    keras.utils.set_random_seed(1)
    model = Reader()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(*_data(), epochs=2, verbose=0)
    return model


_KERNELS = [
    "embedding/embeddings",
    "lstm/kernel",
    "lstm/recurrent_kernel",
    "dense/kernel",
    "block/dense/kernel",
    "block/dense_2/kernel",
    "sequential/dense/kernel",
    "sequential/dense_2/kernel",
    "dense_2/kernel",
]


def _without_numbers(path):
    """A path whose layers are called as the first of their class that Keras makes."""
    return "/".join(part.rstrip("_0123456789") for part in path.split("/"))


def _assert_dormant_is_zero(model):
    for kernel in keras_grow.growable_layers(model):
        assert not kernel.inner.variable.numpy()[~kernel.kernel_mask.numpy()].any()


def test_without_being_asked_nothing_of_a_users_is_changed():
    model = _trained()
    with pytest.raises(ValueError, match=r"make_growable\(model, in_place=True\)"):
        make_growable(model)
    assert not any(masked_in_place(layer) for layer in nested_layers(model))


def test_kernels_in_attributes_lists_dicts_and_nested_models_grow():
    model = _trained()
    layers = {layer: type(layer) for layer in nested_layers(model)[1:]}
    variables, before = list(model.variables), model.predict(_data()[0], verbose=0)
    trainable = list(model.trainable_variables)
    assert make_growable(model, in_place=True) is model
    kernels = keras_grow.growable_layers(model)
    found = [_without_numbers(each.name) for each in keras_grow.report(model).layers]
    assert found == [_without_numbers(path) for path in _KERNELS]
    assert {layer: type(layer) for layer in layers} == layers
    np.testing.assert_array_equal(model.predict(_data()[0], verbose=0), before)
    # Its variables are those that it had, so that its optimizer goes on with them.
    assert all(a is b for a, b in zip(model.trainable_variables, trainable, strict=True))
    assert len(model.variables) == len(variables) + len(kernels)


def test_all_of_them_move_in_a_step_of_fit_which_is_traced_anew():
    model, (x, y) = _trained(), _data()
    make_growable(model, in_place=True)
    keras_grow.prune(model, density=0.3, per_layer=True)
    iterations = int(model.optimizer.iterations)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.fit(x, y, verbose=0)
    assert all(np.any(v.numpy() != b) for v, b in zip(model.trainable_variables, before))
    assert int(model.optimizer.iterations) == iterations + 1
    _assert_dormant_is_zero(model)


def test_what_dormant_connections_store_reaches_nothing():
    model, (x, _) = _trained(), _data()
    make_growable(model, initial_density=0.5, seed=3, in_place=True)
    expected = model(x)
    for kernel in keras_grow.growable_layers(model):
        stored = kernel.inner.variable
        stored.assign(np.where(kernel.kernel_mask.numpy(), stored.numpy(), np.nan))
    np.testing.assert_array_equal(model(x), expected)


def test_what_the_optimizer_knew_of_dormant_connections_is_forgotten():
    keras.utils.set_random_seed(1)
    model, (x, y) = Reader(), _data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), loss)
    model.fit(x, y, epochs=2, verbose=0)
    make_growable(model, initial_density=0.5, seed=0, in_place=True)
    for kernel in keras_grow.growable_layers(model):
        dormant = ~kernel.kernel_mask.numpy()
        slots = dict(slots_of(model.optimizer, kernel.inner.variable))
        assert len(slots) == 3
        assert not any(slot.numpy()[dormant].any() for slot in slots.values())
        assert slots["_velocities"].numpy()[~dormant].any()
    # At the end of `fit` averages are put in the weights' place.
    model.fit(x, y, verbose=0)
    _assert_dormant_is_zero(model)


def test_it_trains_as_the_copy_of_an_equal_functional_model_does():
    def functional():
        keras.utils.set_random_seed(4)
        inputs = keras.Input((6,))
        hidden = keras.layers.EinsumDense("ab,bc->ac", output_shape=5, activation="tanh")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 6)), random.normal(size=(16, 2))
    copy = make_growable(functional(), initial_density=0.5, seed=2)
    copy.compile(keras.optimizers.SGD(0.1), "mse")
    standing = make_growable(functional(), initial_density=0.5, seed=2, in_place=True)
    for model in (copy, standing):
        keras_grow.grow(model, (x, y), density=0.7)
        model.fit(x, y, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(standing.trainable_variables, copy.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_custom_train_step_trains_and_grows_with_the_loss_that_is_given():
    model, (x, y) = _trained(), _data()
    make_growable(model, in_place=True)
    keras_grow.prune(model, density=0.3, per_layer=True)
    asked = []

    def loss(model, x, y, sample_weight):
        asked.append(len(asked))
        logits = model(x, training=True)
        return 2 * keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, True))

    callback = keras_grow.GrowthCallback(
        (x, y), density=0.5, meter=keras_grow.GradientMeter(loss=loss)
    )
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[callback]).history
    assert asked
    assert keras_grow.report(model).density == pytest.approx(0.5, abs=0.01)
    assert np.all(np.isfinite(history["loss"]))
    _assert_dormant_is_zero(model)


def test_some_layers_can_be_chosen_and_the_rest_later():
    model = _trained()
    make_growable(model, [model.lstm], in_place=True, initial_density=0.5, seed=0)
    assert [kernel.name for kernel in keras_grow.growable_layers(model)] == [
        "kernel",
        "recurrent_kernel",
    ]
    with pytest.raises(ValueError, match="it is growable already"):
        make_growable(model, [model.lstm], in_place=True)
    make_growable(model, in_place=True)
    assert len(keras_grow.growable_layers(model)) == len(_KERNELS)
    assert keras_grow.growable_layers(model)[1].density == 0.5


def test_it_is_saved_and_loaded_with_its_masks_through_its_own_class(tmp_path):
    model, (x, y) = _trained(), _data()
    make_growable(model, in_place=True)
    keras_grow.prune(model, density=0.4, per_layer=True)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "grown.keras")
    loaded = keras.saving.load_model(tmp_path / "grown.keras")
    assert isinstance(loaded, Reader)
    np.testing.assert_array_equal(loaded(x), model(x))
    for ours, theirs in zip(
        keras_grow.growable_layers(loaded), keras_grow.growable_layers(model), strict=True
    ):
        np.testing.assert_array_equal(ours.kernel_mask, theirs.kernel_mask)
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    loaded.fit(x, y, verbose=0)
    _assert_dormant_is_zero(loaded)
    model.save_weights(tmp_path / "grown.weights.h5")
    other = make_growable(_trained(), in_place=True)
    other.load_weights(tmp_path / "grown.weights.h5")
    np.testing.assert_array_equal(other(x), model(x))


def test_a_fresh_process_loads_it(tmp_path):
    model, (x, _) = _trained(), _data()
    make_growable(model, initial_density=0.4, seed=1, in_place=True)
    model.save(tmp_path / "grown.keras")
    np.save(tmp_path / "x.npy", x)
    program = (
        "import keras, numpy as np, keras_grow\n"
        "from tests.conversion import test_in_place\n"
        f"model = keras.saving.load_model({str(tmp_path / 'grown.keras')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, model(np.load({str(tmp_path / 'x.npy')!r})))\n"
        "print(keras_grow.report(model).num_active)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert int(ran.stdout.split()[-1]) == keras_grow.report(model).num_active
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x), rtol=1e-5, atol=1e-6)


def test_it_becomes_plain_again_where_it_stands(tmp_path):
    model, (x, y) = _trained(), _data()
    kinds = [type(layer) for layer in nested_layers(model)]
    num_variables = len(model.variables)
    make_growable(model, initial_density=0.4, in_place=True)
    expected = model(x)
    assert make_plain(model, in_place=True) is model
    assert [type(layer) for layer in nested_layers(model)] == kinds
    assert len(model.variables) == num_variables
    np.testing.assert_array_equal(model(x), expected)
    model.fit(x, y, verbose=0)
    assert np.all(model.head.kernel.numpy() != 0)
    with pytest.raises(ValueError, match="no layer that was made growable in place"):
        make_plain(model, in_place=True)
    make_growable(model, in_place=True)
    assert len(keras_grow.growable_layers(model)) == len(_KERNELS)


def test_a_copy_that_would_lose_the_masks_is_refused():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(5)(inputs)))
    make_growable(model, [model.layers[1]], in_place=True)
    for verb in (make_growable, keras_grow.make_sparse, keras_grow.compact):
        with pytest.raises(ValueError, match="A copy would lose masks.*'dense"):
            verb(model)


class _Positions(keras.layers.Layer):
    """A layer with a table that no layer multiplies by."""

    def build(self, shape):
        self.table = self.add_weight(name="table", shape=shape[1:])

    def call(self, x):
        return x + self.table


@keras.saving.register_keras_serializable(_PACKAGE)
class _Placed(keras.Model):
    """Its class makes its graph, with a table of positions in it."""

    def __init__(self, width, **kwargs):
        inputs = keras.Input((5, 6))
        outputs = keras.layers.Dense(width)(_Positions(name="positions")(inputs))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_is_left_is_said_here_too(in_place):
    with pytest.warns(
        UserWarning, match="(?s)Not all of the model can grow.*positions/table"
    ) as told:
        grown = make_growable(_Placed(3), in_place=in_place)
    assert len(told) == 1
    assert keras_grow.report(grown).left == {"positions/table": 30}
    with pytest.raises(ValueError, match="Received: an unbuilt model"):
        keras_grow.plan_conversion(Reader())


def test_an_unbuilt_model_and_one_without_kernels_are_refused():
    with pytest.raises(ValueError, match="Received: an unbuilt model"):
        make_growable(Reader(), in_place=True)
    with pytest.raises(ValueError, match="no layer to convert"):
        make_growable(keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]), in_place=True)


@keras.saving.register_keras_serializable(_PACKAGE)
class Stack(keras.Model):
    """A functional model whose class makes its graph of two numbers."""

    def __init__(self, width, depth, **kwargs):
        x = inputs = keras.Input((6,))
        for _ in range(depth):
            x = keras.layers.Dense(width, "relu")(x)
        super().__init__(inputs=inputs, outputs=Block()(x), **kwargs)
        self.width, self.depth = width, depth

    def get_config(self):
        return {"width": self.width, "depth": self.depth, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def test_a_model_whose_class_makes_its_graph_is_copied_by_its_configuration(tmp_path):
    keras.utils.set_random_seed(1)
    model, x = Stack(7, 2), np.random.default_rng(0).normal(size=(9, 6))
    before = [variable.numpy() for variable in model.variables]
    copy = make_growable(model)
    assert isinstance(copy, Stack)
    assert copy is not model
    np.testing.assert_array_equal(copy(x), model(x))
    keras_grow.prune(copy, density=0.3)
    assert keras_grow.report(copy).density == pytest.approx(0.3, abs=0.01)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    copy.save(tmp_path / "stack.keras")
    loaded = keras.saving.load_model(tmp_path / "stack.keras")
    np.testing.assert_array_equal(loaded(x), copy(x))
    assert keras_grow.report(loaded).num_active == keras_grow.report(copy).num_active
    plain = make_plain(copy)
    assert type(plain) is Stack
    np.testing.assert_array_equal(plain(x), copy(x))
