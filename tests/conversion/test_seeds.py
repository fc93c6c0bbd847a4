"""Every copy goes on drawing where the model stood, also where its layers have other sizes."""

import keras
import numpy as np
import pytest

import keras_grow
from keras_grow.keras_private import is_seed


def _drawn(model):
    """How often each random seed of a model has drawn, by the path of its variable."""
    return {each.path: int(each[1]) for each in model.variables if is_seed(each)}


@pytest.fixture
def trained():
    """Dropout behind a layer with dormant units, in a recurrent layer and in an attention."""
    inputs = keras.Input((5, 4))
    x = keras_grow.GrowableDense(8, "relu", name="hidden")(inputs)
    x = keras.layers.Dropout(0.5, seed=1)(x)
    x = keras.layers.LSTM(6, dropout=0.5, return_sequences=True, seed=2)(x)
    x = keras.layers.MultiHeadAttention(2, 3, dropout=0.5, seed=3)(x, x)
    outputs = keras_grow.GrowableDense(2, name="outputs")(x[:, -1])
    model = keras.Model(inputs, outputs)
    hidden = model.get_layer("hidden")
    gone = np.arange(hidden.num_connections).reshape(hidden.kernel.shape)[:, :3]
    hidden.prune_connections(gone.ravel())
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    model.fit(random.random((8, 5, 4)), random.random((8, 2)), batch_size=4, verbose=0)
    return model


@pytest.mark.parametrize(
    "copied",
    [
        lambda model: keras_grow.compact(model).model,
        lambda model: keras_grow.widen(model, "hidden", 12),
        lambda model: keras_grow.make_growable(model),
        lambda model: keras_grow.make_plain(model),
        lambda model: keras_grow.make_sparse(model),
    ],
    ids=["compact", "widen", "make_growable", "make_plain", "make_sparse"],
)
def test_a_copy_goes_on_drawing_where_the_model_stood(trained, copied):
    before = sorted(_drawn(trained).values())
    assert len(before) == 3
    assert min(before) > 0
    assert sorted(_drawn(copied(trained)).values()) == before
