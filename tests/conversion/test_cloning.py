"""Copies keep the class, the training and what is frozen of a model, or say why they can't."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow import (
    compact,
    convert_optimizer,
    make_growable,
    make_plain,
    prune,
)
from keras_grow.layers.growable_kernels import GrowableKernels
from keras_grow.layers.pairing import paired_layers
from keras_grow.layers.paths import nested_layers
from tests.conversion.own_layer import OwnLayer

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def _sequential():
    layers = [keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3, "softmax")])


def test_nothing_is_drawn_for_weights_that_are_overwritten(monkeypatch):
    model = _sequential()
    keras.layers.LSTM(3)  # Draws are counted from here on.
    drawn = []
    for kind in (keras.initializers.GlorotUniform, keras.initializers.Orthogonal):
        monkeypatch.setattr(kind, "__call__", lambda self, shape, dtype=None: drawn.append(shape))
    copy = make_growable(model)
    assert drawn == []
    assert isinstance(copy.layers[0].kernel_initializer, keras.initializers.GlorotUniform)


class _WithOwnStep(keras.Model):
    def train_step(self, data):
        return {"own": keras.ops.ones(())}


def _configure(model, inputs, outputs, strength, **kwargs):
    super(_Configured, model).__init__(inputs, outputs, **kwargs)
    model.strength = strength


class _Configured(_WithOwnStep):
    __init__ = _configure  # Whose first argument has a name of its own.


class _Forgetful(_WithOwnStep):
    def __init__(self, inputs, outputs, strength=1.0, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self._hidden = strength


class _Hyperparameters(keras.Model):
    def __init__(self, units, **kwargs):
        inputs = keras.Input((8,))
        super().__init__(inputs, keras.layers.Dense(units)(inputs), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units}


class _OwnSequential(keras.Sequential):
    def train_step(self, data):
        return {"own": keras.ops.ones(())}


def test_a_model_keeps_its_own_class_and_training_or_is_refused():
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(2)(inputs)
    sequential = _OwnSequential([keras.Input((8,)), keras.layers.Dense(2)], name="kept")
    for model in (
        _WithOwnStep(inputs, outputs, name="kept"),
        _Configured(inputs, outputs, 3.0, name="kept"),
        sequential,
    ):
        copies = [make_growable(model), make_plain(make_growable(model)), compact(model).model]
        for copy in copies:
            assert type(copy) is type(model)
            assert copy.name == "kept"
            assert getattr(copy, "strength", 3.0) == 3.0
            copy.compile("sgd", "mse", run_eagerly=True)
            assert copy.fit(X[:4], X[:4, :2], verbose=0).history == {"own": [1.0]}
    forgetful = _Forgetful(inputs, outputs)
    with pytest.raises(ValueError, match=r"_Forgetful, which does not keep its arguments \['str"):
        make_growable(forgetful)
    for model in (forgetful, _Hyperparameters(4)):
        growable = make_growable(keras.Model(model.inputs, model.outputs))
        np.testing.assert_array_equal(growable(X), model(X))
    with pytest.raises(ValueError, match=r"_Hyperparameters, whose `__init__` does not take \['i"):
        compact(_Hyperparameters(4))
    # Nested, it is not trained in its own way, and computes what its graph does.
    nested = keras.Sequential([keras.Input((8,)), _Hyperparameters(4), keras.layers.Dense(2)])
    np.testing.assert_array_equal(make_growable(nested)(X), nested(X))


def test_a_nested_model_with_a_call_of_its_own_is_no_graph():
    class Doubled(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((8,))
    inner = Doubled(inputs, keras.layers.Dense(3)(inputs), name="inner")
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    growable = make_growable(model)
    wrapper = growable.get_layer("inner")
    assert (type(wrapper), type(wrapper.layer)) == (GrowableKernels, Doubled)
    np.testing.assert_array_equal(growable(X), model(X))


def test_a_layer_that_can_not_be_made_anew_is_named():
    class Closed(keras.Layer):
        def __init__(self, table, **kwargs):
            super().__init__(**kwargs)
            self._hidden = table

        def call(self, x):
            return x + self._hidden[0]

    model = keras.Sequential(
        [keras.Input((8,)), Closed(np.ones(1), name="closed"), keras.layers.Dense(2)]
    )
    with pytest.raises(ValueError, match="Received: layer 'closed' of class Closed"):
        make_growable(model)


def test_a_layer_that_does_not_load_what_it_saves_is_named():
    class Faulty(keras.Layer):
        def call(self, x):
            return x

        def load_own_variables(self, store):
            raise KeyError("missing")

    model = keras.Sequential([keras.Input((8,)), Faulty(name="faulty"), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="layer 'faulty' of class Faulty, which does not"):
        make_growable(model)


def test_what_is_frozen_stays_frozen_layer_by_layer():
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(3)])
    own = OwnLayer()
    model = keras.Sequential([keras.Input((8,)), inner, own, keras.layers.Dense(2)])
    inner.trainable = False
    inner.layers[1].trainable = True
    own.dense.trainable = False
    copy = make_growable(model)
    pairs = paired_layers(model, copy)
    assert len(pairs) == len(nested_layers(model))
    assert [old.trainable for old, _ in pairs] == [new.trainable for _, new in pairs]
    assert not copy.layers[0].trainable
    assert copy.layers[0].layers[1].trainable
    (kernel,) = copy.layers[1].masked_kernels
    assert not kernel.trainable


def test_models_made_of_the_same_input_are_converted(tmp_path):
    inputs = keras.Input((8,))
    encoder = keras.Model(inputs, keras.layers.Dense(4, "relu")(inputs), name="encoder")
    model = keras.Model(inputs, keras.layers.Dense(8)(encoder(inputs)))
    model.compile("adam", "mse")
    model.fit(X, X, verbose=0)
    growable = make_growable(model)
    growable.compile(convert_optimizer(model, growable), "mse")
    np.testing.assert_array_equal(growable(X), model(X))
    prune(growable, density=0.3)
    np.testing.assert_allclose(compact(growable).model(X), growable(X), rtol=0, atol=1e-6)


@keras.saving.register_keras_serializable("tests_cloning")
class _Holder(keras.Layer):
    """A block that holds a layer it was given."""

    def __init__(self, held, **kwargs):
        super().__init__(**kwargs)
        self.held, self.dense = held, keras.layers.Dense(8)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.held(self.dense(x))

    def get_config(self):
        held = keras.saving.serialize_keras_object(self.held)
        return {**super().get_config(), "held": held}

    @classmethod
    def from_config(cls, config):
        held = keras.saving.deserialize_keras_object(config.pop("held"))
        return cls(held, **config)


class _Hider(_Holder):
    """A block that makes another of what it holds."""

    @classmethod
    def from_config(cls, config):
        keras.saving.deserialize_keras_object(config.pop("held"))
        return cls(keras.layers.Dense(8, name="held"), **config)


@pytest.mark.parametrize("place", ["in the model and a block", "in two blocks"])
def test_a_layer_that_a_block_holds_and_that_stands_elsewhere_is_copied_once(place):
    inputs = keras.Input((8,))
    held = keras.layers.Dense(8, name="held")
    first = held(inputs) if place == "in the model and a block" else _Holder(held)(inputs)
    model = keras.Model(inputs, _Holder(held, name="block")(first))
    copy = make_growable(model)
    assert len(copy.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_array_equal(copy(X), model(X))
    kernels = keras_grow.growable_layers(copy)
    assert len(kernels) == len({id(kernel.kernel) for kernel in kernels})
    assert keras_grow.report(copy).num_connections == keras_grow.plan_conversion(model).num_reached
    prune(copy, density=0.4)
    plain = keras_grow.make_plain(copy)
    assert len(plain.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_allclose(plain(X), copy(X), rtol=1e-5, atol=1e-6)


def test_a_block_that_would_tear_shared_weights_apart_is_refused():
    inputs = keras.Input((8,))
    held = keras.layers.Dense(8, name="held")
    model = keras.Model(inputs, _Hider(held, name="block")(held(inputs)))
    with pytest.raises(ValueError, match="stand in several places share their weights.*'held'"):
        make_growable(model)
